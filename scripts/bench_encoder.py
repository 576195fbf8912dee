"""Encoding on the CPU: ours in int8 against plain sentence-transformers in float32, and what int8 costs in ranking.

    OMP_NUM_THREADS=1 python scripts/bench_encoder.py DATA_FOLDER [--model NAME] [--home FOLDER]

DATA_FOLDER holds medquad/ and xquad/ (documents.jsonl, questions.test.jsonl). Both sides run in this process, with
the same number of threads, in alternating rounds, over the same real sentences and over whole documents (cut to
what the encoder reads). Reported are texts a second of wall time and of processor time, the best round of each: on
a machine that others use, processor time is the fairer one. nDCG@10 is of exact search, title before the text; of
medquad a sample with a fixed seed. Prints a table and one line of JSON.
"""

import argparse
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from local_llm import offline
from local_llm.embedded import ENCODER, locate
from local_llm.hardware import this_hardware
from local_llm.home import Home
from local_llm.models import ModelStore

SEED = 7
Encode = Callable[[Sequence[str]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=ENCODER.name, help="an encoder in the home's store")
    parser.add_argument("--home", type=Path, help="default: a new one with the embedded encoder")
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--medquad-questions", type=int, default=300)
    parser.add_argument("--medquad-documents", type=int, default=900, help="besides the questions' own")
    options = parser.parse_args()
    offline.apply()
    with tempfile.TemporaryDirectory() as folder:
        run(options, Home(options.home or Path(folder)).ensure())


def run(options: argparse.Namespace, home: Home) -> None:
    plain, ours, facts = both_sides(options, home)
    texts = {
        "sentences": sentences(options.data / "medquad", options.sentences),
        "documents": sample(bodies(options.data / "medquad"), options.documents),
    }
    result: dict[str, Any] = {**facts, "hardware": str(this_hardware()), "threads": os.environ["OMP_NUM_THREADS"]}
    for name, some in texts.items():
        result[name] = speeds(plain, ours, some, options.rounds)
    for name, limits in (("xquad", None), ("medquad", (options.medquad_questions, options.medquad_documents))):
        result[f"{name}_ndcg"] = scores(plain, ours, options.data / name, limits)
    print(json.dumps(result))


def both_sides(options: argparse.Namespace, home: Home) -> tuple[dict[str, Encode], Encode, dict[str, Any]]:
    """Plain sentence-transformers for documents and queries, ours, and what came of the conversion."""
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from sentence_transformers import SentenceTransformer

    from index.encoding.converted import convert_once
    from index.encoding.encoder import Encoder

    store = ModelStore(home.models)
    model = store.find(options.model) or store.import_folder(locate(ENCODER), name=ENCODER.name)
    check = convert_once(model.path, home.derived, print)
    encoder = Encoder(model.path, "cpu", "int8" if check.kept else "float32", home.derived)
    loaded = SentenceTransformer(str(model.path), device="cpu", local_files_only=True)

    def plain(texts: Sequence[str], prompt: str) -> np.ndarray:
        return loaded.encode(
            list(texts), prompt=prompt or None, normalize_embeddings=True, batch_size=32, show_progress_bar=False
        )

    sides = {
        "document": lambda texts: plain(texts, encoder.recipe.document_prompt),
        "query": lambda texts: plain(texts, encoder.recipe.query_prompt),
    }
    kept = {"model": model.name, "precision": encoder.precision, "check": check.reason}
    return sides, {"document": encoder.encode_documents, "query": encoder.encode_queries}, kept


def speeds(plain: Any, ours: Any, texts: list[str], rounds: int) -> dict[str, float]:
    sides = {"plain": plain["document"], "ours": ours["document"]}
    taken = [{name: timed(encode, texts) for name, encode in sides.items()} for _ in range(rounds)]
    found: dict[str, float] = {"texts": len(texts)}
    for at, clock in enumerate(("wall", "cpu")):
        best = {name: min(one[name][at] for one in taken) for name in sides}
        for name, seconds in best.items():
            found[f"{name}_per_{clock}_second"] = round(len(texts) / seconds, 1)
        found[f"ratio_{clock}"] = round(best["plain"] / best["ours"], 2)
        print(
            f"{len(texts):5} texts, {clock:4}: {found[f'plain_per_{clock}_second']:8} plain, "
            f"{found[f'ours_per_{clock}_second']:8} ours a second: {found[f'ratio_{clock}']} x"
        )
    return found


def timed(encode: Encode, texts: list[str]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    encode(texts)
    return time.perf_counter() - wall, time.process_time() - cpu


def scores(plain: Any, ours: Any, folder: Path, limits: tuple[int, int] | None) -> dict[str, float]:
    from index.encoding.converted import ndcg

    documents, questions = rows(folder / "documents.jsonl"), rows(folder / "questions.test.jsonl")
    if limits is not None:
        questions = sample(questions, limits[0])
        needed = {name for question in questions for name in gold(question)}
        others = sample([row for row in documents if row["id"] not in needed], limits[1])
        documents = [row for row in documents if row["id"] in needed] + others
    at = {row["id"]: number for number, row in enumerate(documents)}
    relevant = np.zeros((len(questions), len(documents)), np.float32)
    for number, question in enumerate(questions):
        relevant[number, [at[name] for name in gold(question)]] = 1
    found: dict[str, float] = {"questions": len(questions), "documents": len(documents)}
    for name, side in (("plain", plain), ("ours", ours)):
        vectors = side["document"]([f"{row['title']}\n{row['text']}" for row in documents])
        queries = side["query"]([question["question"] for question in questions])
        found[name] = round(ndcg(queries @ vectors.T, relevant), 5)
    found["loss_percent"] = round(100 * (found["plain"] - found["ours"]) / found["plain"], 3)
    print(f"{folder.name}: {found}")
    return found


def gold(question: dict[str, Any]) -> list[str]:
    return question.get("document_ids") or [question["document_id"]]


def sentences(folder: Path, count: int) -> list[str]:
    every = [one for row in rows(folder / "documents.jsonl") for one in re.split(r"(?<=[.!?])\s+", row["text"])]
    return sample([one for one in every if len(one) >= 20], count)


def bodies(folder: Path) -> list[str]:
    return [f"{row['title']}\n{row['text']}" for row in rows(folder / "documents.jsonl")]


def sample(items: list[Any], count: int) -> list[Any]:
    return random.Random(SEED).sample(items, min(count, len(items)))


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
