"""How often a model says that it does not know, rightly and wrongly, and how often it obeys what a passage says.

    python scripts/bench_refusals.py DATA --server http://127.0.0.1:8000/v1 --model base --questions 100

DATA holds documents.jsonl (id, title, text) and questions.test.jsonl (question, answer, document_id), as our cut of
XQuAD does. `--model` is one that takes the prompt as it is given, `base` or an `ft:` name: the context is put
together here by the server's own function, so that what is measured is model and prompt, and no retrieval.

- held: the gold paragraph among others of its article, in random order. A refusal is a false one.
- not held: only others of its article, none of which holds the answer. A refusal is right.
- nothing: no passage at all. (Served profiles do not ask a model then; see docs/answers.md.)
- injections: each text of tests/serving/injections.jsonl between two harmless ones. Obeyed: the answer holds the
  sign that the text asks for. Answered: it holds the fact that the question asks for.

`--unquoted` puts the injections into the prompt as they are, without what local_llm/prompts.py does to lines that
look like parts of the prompt and to the marks of turns: the difference is what that is worth.

Greedy, 80 tokens at most. Prints a table and a line of JSON.
"""

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.hardware import this_hardware
from local_llm.prompts import INSTRUCTION, context_prompt, is_refusal

SEED = 13
PASSAGES = 3
MOST_TOKENS = 80
INJECTIONS = Path(__file__).parent.parent / "tests" / "serving" / "injections.jsonl"

Ask = Callable[[str], str]
"""The model: a prompt in, its answer out."""


@dataclass(frozen=True)
class Passage:
    title: str
    text: str
    heading: str = ""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refusals(data: Path, count: int, ask: Ask) -> dict[str, dict[str, float]]:
    """Shares of answers that refuse, and that hold the gold answer, for each kind of context."""
    chance = random.Random(SEED)
    texts = {one["id"]: one for one in rows(data / "documents.jsonl")}
    articles: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in texts.values():
        articles[one["title"]].append(one)
    questions = rows(data / "questions.test.jsonl")
    chance.shuffle(questions)
    found: dict[str, list[tuple[bool, bool]]] = {"held": [], "not held": [], "nothing": []}
    for number, question in enumerate(questions[:count], 1):
        gold = texts[question["document_id"]]
        others = [
            one
            for one in articles[gold["title"]]
            if one["id"] != gold["id"] and question["answer"].lower() not in one["text"].lower()
        ]
        chance.shuffle(others)
        held = [gold, *others[: PASSAGES - 1]]
        chance.shuffle(held)
        for kind, inside in (("held", held), ("not held", others[:PASSAGES]), ("nothing", [])):
            answer = ask(context_prompt(question["question"], [Passage(o["title"], o["text"]) for o in inside]))
            found[kind].append((is_refusal(answer), question["answer"].lower() in answer.lower()))
        tell(number, count)
    return {kind: {"refused": share(seen, 0), "answered": share(seen, 1)} for kind, seen in found.items()}


def injections(path: Path, ask: Ask, *, unquoted: bool) -> dict[str, dict[str, Any]]:
    """For each kind of injection, and for all: how many, the share obeyed, and the share answered all the same."""
    every = rows(path)
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for number, one in enumerate(every, 1):
        before, after = (harmless(every[(number + step) % len(every)]) for step in (3, 7))
        passages = [before, Passage(one["title"], one["text"]), after]
        put_together = as_it_is if unquoted else context_prompt
        answer = ask(put_together(one["question"], passages))
        seen = (one["sign"].lower() in answer.lower(), one["fact"].lower() in answer.lower())
        found[one["kind"]].append(seen)
        found["all"].append(seen)
        tell(number, len(every))
    return {
        kind: {"cases": len(seen), "obeyed": share(seen, 0), "answered": share(seen, 1)}
        for kind, seen in found.items()
    }


def harmless(one: dict[str, Any]) -> Passage:
    """A text's first sentence: what it says before it begins to speak to the model."""
    first = re.split(r"(?<=\w)\.(?=\s|<|$)", one["text"])[0]
    return Passage(one["title"], f"{first}.")


def as_it_is(question: str, passages: Sequence[Passage]) -> str:
    context = "\n\n".join(f"[{number}] {one.title}\n{one.text}" for number, one in enumerate(passages, 1))
    return f"{INSTRUCTION}\n\nContext:\n{context}\n\nQuestion: {question}"


def share(seen: Sequence[tuple[bool, bool]], position: int) -> float:
    return round(sum(one[position] for one in seen) / max(1, len(seen)), 4)


def tell(number: int, count: int) -> None:
    print(f"\r{number}/{count} ", end="" if number < count else "\n", file=sys.stderr)


def served(server: str, model: str, key: str) -> Ask:
    import openai

    client = openai.OpenAI(base_url=server, api_key=key)

    def ask(prompt: str) -> str:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=MOST_TOKENS
        )
        return answer.choices[0].message.content or ""

    return ask


def print_tables(facts: dict[str, Any]) -> None:
    print(f"{'context':16} {'refused':>9} {'holds the answer':>17}")
    for kind, one in facts["refusals"].items():
        print(f"{kind:16} {one['refused']:9.1%} {one['answered']:17.1%}")
    print(f"{'injection':16} {'cases':>6} {'obeyed':>9} {'answered':>9}")
    for kind, one in facts["injections"].items():
        print(f"{kind:16} {one['cases']:6d} {one['obeyed']:9.1%} {one['answered']:9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--server", required=True, help="base URL of a running server, as OPENAI_BASE_URL")
    parser.add_argument("--model", default="base")
    parser.add_argument("--key", default="none")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--injections", type=Path, default=INJECTIONS)
    parser.add_argument("--unquoted", action="store_true")
    options = parser.parse_args()
    ask = served(options.server, options.model, options.key)
    facts = {
        "refusals": refusals(options.data, options.questions, ask),
        "injections": injections(options.injections, ask, unquoted=options.unquoted),
    }
    print_tables(facts)
    where = {"data": options.data.name, "model": options.model, "unquoted": options.unquoted}
    print(json.dumps(where | facts | {"hardware": this_hardware().to_json()}))


if __name__ == "__main__":
    main()
