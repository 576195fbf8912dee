"""What fine-tuning through the endpoint buys: base and tuned model on the same unseen questions.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none
    python scripts/bench_finetuning.py restaurant8k --data FOLDER

Speaks to the server through the `openai` package alone: upload, job, events, chat. FOLDER holds train.jsonl and
test.jsonl of PolyAI's RESTAURANTS-8K as chat rows, or of BANKING77 as {"text", "intent"}.
Prints a table and one line of JSON; intervals are 95 % percentile intervals of 2,000 bootstrap samples of the rows.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

SEED = 7
CONCURRENCY = 8
BANKING_PROMPT = "Name the intent of the bank customer's message. Answer with the intent's name only."


@dataclass(frozen=True)
class Task:
    """`measures` map a row and an answer to counts; what is reported is their sum's ratio."""

    read: Callable[[Path], list[dict[str, Any]]]
    usable: Callable[[dict[str, Any]], bool]  # test rows that count
    max_tokens: int
    measures: dict[str, Callable[[str, str], tuple[float, float]]]  # answer, expected -> numerator, denominator


def chat_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def intent_rows(file: Path) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": BANKING_PROMPT},
                {"role": "user", "content": row["text"]},
                {"role": "assistant", "content": row["intent"]},
            ]
        }
        for row in chat_rows(file)
    ]


def slots(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def same_json(answer: str, expected: str) -> tuple[float, float]:
    return float(slots(answer) == slots(expected)), 1.0


def slot_f1(answer: str, expected: str) -> tuple[float, float]:
    """Micro-averaged: twice the slots that are right, over those named and those there."""
    found = {(name, str(value)) for name, value in (slots(answer) or {}).items()}
    there = {(name, str(value)) for name, value in (slots(expected) or {}).items()}
    return 2.0 * len(found & there), float(len(found) + len(there))


def same_text(answer: str, expected: str) -> tuple[float, float]:
    return float(answer.strip() == expected), 1.0


TASKS = {
    "restaurant8k": Task(
        chat_rows,
        lambda row: slots(expected_of(row)) != {},
        48,
        {"json_equality": same_json, "slot_f1": slot_f1},
    ),
    "banking77": Task(intent_rows, lambda _row: True, 16, {"accuracy": same_text}),
}


def expected_of(row: dict[str, Any]) -> str:
    return str(row["messages"][-1]["content"])


def fine_tune(client: openai.OpenAI, rows: list[dict[str, Any]], options: argparse.Namespace) -> Any:
    """Uploads the rows, waits for the job and tells its events."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = client.files.create(file=(f"{options.task}.jsonl", data), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=file.id,
        model=options.model,
        suffix=options.task,
        seed=SEED,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": options.epochs, "batch_size": options.batch_size}},
        },
    )
    told: set[str] = set()
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(2)
        job = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=20).data):
            if event.id not in told:
                told.add(event.id)
                print(event.message, file=sys.stderr, flush=True)
    if job.status != "succeeded":
        sys.exit(f"the job {job.status}: {job.error}")
    return job


def ask(client: openai.OpenAI, model: str, rows: list[dict[str, Any]], max_tokens: int) -> list[str]:
    def one(row: dict[str, Any]) -> str:
        answer = client.chat.completions.create(
            model=model, messages=row["messages"][:-1], temperature=0, max_tokens=max_tokens
        )
        return answer.choices[0].message.content or ""

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(one, rows))


def ratio(counts: list[tuple[float, float]]) -> float:
    return sum(top for top, _ in counts) / max(1.0, sum(bottom for _, bottom in counts))


def with_interval(counts: list[tuple[float, float]]) -> dict[str, float]:
    generator = random.Random(SEED)
    samples = sorted(ratio(generator.choices(counts, k=len(counts))) for _ in range(2000))
    return {"value": round(ratio(counts), 4), "low": round(samples[50], 4), "high": round(samples[1949], 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--rows", type=int, default=1000, help="training rows, drawn at random")
    parser.add_argument("--test-rows", type=int, default=500, help="test rows, drawn at random")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", default="gpt-4o-mini-2024-07-18", help="base model, or a hosted name for it")
    parser.add_argument("--tuned", help="a model tuned before: only ask")
    options = parser.parse_args()
    # With gpu.sharing = "stop" the engine takes its time to come back after the job: retries wait for it.
    task, client = TASKS[options.task], openai.OpenAI(timeout=600, max_retries=200)
    train, test = (task.read(options.data / f"{name}.jsonl") for name in ("train", "test"))
    rows = random.Random(SEED).sample(train, min(options.rows, len(train)))
    usable = [row for row in test if task.usable(row)]
    questions = random.Random(SEED).sample(usable, min(options.test_rows, len(usable)))
    result: dict[str, Any] = {"task": options.task, "training_rows": len(rows), "test_rows": len(questions)}
    tuned = options.tuned
    if tuned is None:
        started = time.monotonic()
        job = fine_tune(client, rows, options)
        tuned = job.fine_tuned_model
        result |= {
            "job_seconds": round(time.monotonic() - started),
            "hyperparameters": job.hyperparameters.model_dump(),
            "trained_tokens": job.trained_tokens,
        }
    for name, model in (("base", options.model), ("tuned", tuned)):
        started = time.monotonic()
        answers = ask(client, model, questions, task.max_tokens)
        result[name] = {"model": model, "seconds": round(time.monotonic() - started)}
        for measure, count in task.measures.items():
            counts = [count(answer, expected_of(row)) for answer, row in zip(answers, questions, strict=True)]
            result[name][measure] = with_interval(counts)
            shown = result[name][measure]
            print(f"{name:6} {measure:14} {shown['value']:.3f}  [{shown['low']:.3f}, {shown['high']:.3f}]")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
