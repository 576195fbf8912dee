"""How much of the encoder's own speed is left when documents are parsed, split, encoded and made searchable.

    python scripts/bench_ingestion.py MEDQUAD_FOLDER

In turns, with the same loaded encoder: `Index.add` of some documents as Markdown files, then the encoder alone
on the very passages that were encoded of them, in one call. Prints each round and ends with one line of JSON;
the ratios are those of the sums over all rounds. That of processor seconds tells less of a machine's other work
than that of the clock.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Round:
    passages: int
    tokens: int
    add_seconds: float
    add_cpu_seconds: float
    encode_seconds: float
    encode_cpu_seconds: float

    @property
    def ratio(self) -> float:
        return self.encode_seconds / self.add_seconds

    @property
    def cpu_ratio(self) -> float:
        return self.encode_cpu_seconds / self.add_cpu_seconds


def main() -> None:
    options = arguments()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as (index, caller):
        warm_up(index, caller, Path(folder))
        rounds = []
        for number, files in enumerate(batches(options, Path(folder))):
            rounds.append(measured(index, caller, Path(folder), f"bench-{number}", files))
            print_round(rounds[-1])
        print(json.dumps(report(index, rounds)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="MEDQUAD_FOLDER")
    parser.add_argument("--documents", type=int, default=200, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, help="hold everything to this core")
    return parser.parse_args()


@contextmanager
def service(home: Path) -> Iterator[tuple[Any, Any]]:
    """An index of its own with the embedded encoder, and an admin of it."""
    from index.service import IndexService
    from local_llm import offline
    from local_llm.embedded import ENCODER, locate
    from local_llm.models import ModelStore
    from local_llm.permissions import local_admin
    from local_llm.settings import load_settings
    from local_llm.state import open_state

    offline.apply()
    settings = load_settings(environment={"LOCAL_LLM_HOME": str(home)})
    store = ModelStore(settings.place.models)
    store.import_folder(locate(ENCODER), name=ENCODER.name, licence=ENCODER.licence)
    state = open_state(settings.place)
    index = IndexService(settings, state)
    yield index, local_admin(state.local_project_id())
    index.close()
    state.close()


def batches(options: argparse.Namespace, folder: Path) -> Iterator[list[Path]]:
    """Documents of each round as files: every so-and-so-many-th, so that rounds are alike."""
    lines = (options.source / "documents.jsonl").read_text().splitlines()
    wanted = options.documents * options.rounds
    chosen = lines[:: max(1, len(lines) // wanted)][:wanted]
    for number in range(options.rounds):
        batch = folder / f"documents-{number}"
        batch.mkdir()
        yield [_written(batch, at, json.loads(line)) for at, line in enumerate(chosen[number :: options.rounds])]


def _written(folder: Path, number: int, document: dict[str, Any]) -> Path:
    path = folder / f"{number}.md"
    path.write_text(f"# {document['title']}\n\n{document['text']}\n")
    return path


def warm_up(index: Any, caller: Any, folder: Path) -> None:
    """The first call pays for what is loaded late: the encoder's, and the ingestion's beyond it."""
    from index.interface import Source

    path = folder / "first.md"
    path.write_text("# First\n\nThe first call pays for what is loaded late.\n")
    index.create(caller, "warm-up")
    index.add(caller, "warm-up", [Source(path, path.name, path.name)])


def measured(index: Any, caller: Any, home: Path, collection: str, files: list[Path]) -> Round:
    from index.interface import Source

    made = index.create(caller, collection)
    sources = [Source(path, path.name, path.name) for path in files]
    started = spent()
    outcome = index.add(caller, collection, sources)
    added = [end - start for start, end in zip(started, spent(), strict=True)]
    texts = encoded_texts(home, made.id)
    if len(texts) != outcome.passages:
        raise ValueError(f"{outcome.passages} passages were encoded, {len(texts)} are stored")
    started = spent()
    index.encoder().encode_documents(texts)
    encoded = [end - start for start, end in zip(started, spent(), strict=True)]
    return Round(outcome.passages, outcome.tokens, *added, *encoded)


def spent() -> tuple[float, float]:
    """The clock, and processor seconds of this process and of its ended children: `add` ends its parser."""
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system


def encoded_texts(home: Path, collection_id: str) -> list[str]:
    """What the encoder was given: title and headings, then the passage."""
    from index.collection.database import Database
    from index.collection.documents import encoded_passages

    database = Database(next(home.rglob(f"{collection_id}/collection.db")))
    numbers = [number for (number,) in database.iterate("SELECT number FROM documents")]
    texts = [text for number in numbers for text in encoded_passages(database, number)]
    database.close()
    return texts


def print_round(one: Round) -> None:
    print(
        f"{one.passages} passages ({one.tokens} tokens): added at {one.passages / one.add_seconds:.1f}/s,"
        f" encoded alone at {one.passages / one.encode_seconds:.1f}/s, ratio {one.ratio:.3f},"
        f" of processor seconds {one.cpu_ratio:.3f}",
        flush=True,
    )


def report(index: Any, rounds: list[Round]) -> dict[str, Any]:
    from local_llm.hardware import this_hardware

    whole = Round(*(sum(getattr(one, name) for one in rounds) for name in Round.__dataclass_fields__))
    print("all rounds:", end=" ")
    print_round(whole)
    return {
        "hardware": this_hardware().to_json(),
        "encoder": index.encoder().name,
        "passages": whole.passages,
        "tokens": whole.tokens,
        "added_passages_per_second": round(whole.passages / whole.add_seconds, 1),
        "encoded_passages_per_second": round(whole.passages / whole.encode_seconds, 1),
        "ratio": round(whole.ratio, 3),
        "cpu_ratio": round(whole.cpu_ratio, 3),
        "ratios": [round(one.ratio, 3) for one in rounds],
    }


if __name__ == "__main__":
    main()
