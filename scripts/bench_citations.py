"""How often a citation is right, and how often a sentence that could be cited is: on questions with gold spans.

    python scripts/bench_citations.py DATA
    python scripts/bench_citations.py DATA --server http://127.0.0.1:8000/v1 --model PROFILE --questions 100

DATA holds documents.jsonl (id, title, text) and questions.{train,test}.jsonl (question, answer, answer_start,
document_id), as our cut of XQuAD does; no article is on both sides.

The first form needs no model. For each question the passages are its paragraph and others of the same article, in
random order, and sentences are put before the citation writer of which is known whether the passages support them:

- supported: the gold sentence word for word; its clause around the answer; the question turned into a statement
  by its answer, whose words are the asker's own and not the passage's.
- not supported: the gold sentence with the answer of another question in place of its own; the question turned into
  a statement by a wrong answer; a sentence of the same article that is in no passage; one of another article.

A citation is right if the sentence is supported and the cited characters touch the gold answer's. Precision: of the
sentences cited; recall: of those supported. `--part train` is what thresholds were chosen on.

The second form asks a served profile whose collection holds the documents as files `ID.md` (as
`scripts/bench_ranking.py` writes them) and compares its citations with the gold spans. A model's sentence that does
not hold the gold answer may be cited for something else that it says, so only precision and recall over the answers
that hold it are told.

Prints a table and a line of JSON.
"""

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.hardware import this_hardware
from serving.answering.citations import CitationWriter
from serving.answering.sources import sentence_spans

SEED = 11
PASSAGES = 3
CLAUSE_WORDS = 7

_WH = re.compile(
    r"^(?:(?:in|on|at|by|to|from|for|of|with|during) )?"
    r"(?:what|which|who|whom|whose|when|where|how (?:many|much|long|old|often|far|big|large))\b"
    r"(?: (?:is|was|are|were|did|does|do|has|had) )?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Passage:
    title: str
    text: str
    start: int = 0
    heading: str = ""


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    answer_start: int
    document: str

    @property
    def answer_end(self) -> int:
        return self.answer_start + len(self.answer)


@dataclass(frozen=True)
class Case:
    """A sentence, and whether the passages support it; `gold` counts from 1."""

    kind: str
    sentence: str
    supported: bool
    passages: tuple[Passage, ...]
    gold: int
    question: Question


@dataclass
class Count:
    cases: int = 0
    cited: int = 0
    right: int = 0


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions_of(data: Path, part: str) -> list[Question]:
    return [
        Question(one["question"], one["answer"], one["answer_start"], one["document_id"])
        for one in rows(data / f"questions.{part}.jsonl")
    ]


def cases(data: Path, part: str) -> Iterator[Case]:
    chance = random.Random(SEED)
    questions = questions_of(data, part)
    asked = {question.document for question in questions}
    texts = {one["id"]: one for one in rows(data / "documents.jsonl") if one["id"] in asked}
    articles: dict[str, list[str]] = defaultdict(list)
    for identifier, one in texts.items():
        articles[one["title"]].append(identifier)
    for question in questions:
        title = texts[question.document]["title"]
        others = [one for one in articles[title] if one != question.document]
        chance.shuffle(others)
        inside = [question.document, *others[: PASSAGES - 1]]
        chance.shuffle(inside)
        passages = tuple(Passage(title, texts[one]["text"]) for one in inside)
        gold = inside.index(question.document) + 1
        for kind, sentence, supported in sentences(question, questions, texts, others[PASSAGES - 1 :], chance):
            yield Case(kind, sentence, supported, passages, gold, question)


def sentences(
    question: Question,
    questions: list[Question],
    texts: dict[str, dict[str, Any]],
    outside: list[str],
    chance: random.Random,
) -> Iterator[tuple[str, str, bool]]:
    text = texts[question.document]["text"]
    gold = gold_sentence(text, question)
    yield "word for word", gold, True
    yield "clause", clause(gold, question.answer), True
    yield "statement", statement(question.text, question.answer), True
    wrong = wrong_answer(question, questions, text, chance)
    yield "wrong answer", gold.replace(question.answer, wrong), False
    yield "wrong statement", statement(question.text, wrong), False
    if outside:
        yield "same article", any_sentence(texts[chance.choice(outside)]["text"], chance), False
    strangers = [one for one in texts if texts[one]["title"] != texts[question.document]["title"]]
    yield "other article", any_sentence(texts[chance.choice(strangers)]["text"], chance), False


def gold_sentence(text: str, question: Question) -> str:
    touching = [
        (start, end)
        for start, end in sentence_spans(text)
        if start < question.answer_end and end > question.answer_start
    ]
    return " ".join(text[touching[0][0] : touching[-1][1]].split())


def clause(sentence: str, answer: str) -> str:
    before, found, after = sentence.partition(answer)
    kept = [*before.split()[-CLAUSE_WORDS:], found, *after.split()[:CLAUSE_WORDS]]
    return " ".join(kept).rstrip(" ,;:.") + "."


def statement(question: str, answer: str) -> str:
    """ "Who led the team in sacks?" and "Short": "Short led the team in sacks." Not always good English."""
    asked = question.strip().rstrip("?").strip()
    said, found = _WH.subn(f"{answer} ", asked, count=1)
    said = " ".join(said.split())
    return f"{said if found else f'{asked}: {answer}'}."


def wrong_answer(question: Question, questions: list[Question], text: str, chance: random.Random) -> str:
    """An answer of the same kind to another question, which the paragraph does not hold."""
    kind = kind_of(question.answer)
    others = [one.answer for one in questions if kind_of(one.answer) == kind and one.answer not in text]
    return chance.choice(others)


def kind_of(answer: str) -> str:
    if any(character.isdigit() for character in answer):
        return "number"
    return "name" if answer[:1].isupper() else "words"


def any_sentence(text: str, chance: random.Random) -> str:
    start, end = chance.choice(sentence_spans(text))
    return " ".join(text[start:end].split())


def measure(found: Iterator[Case]) -> dict[str, Count]:
    counts: dict[str, Count] = defaultdict(Count)
    for case in found:
        writer = CitationWriter(case.passages)
        writer.feed(case.sentence)
        writer.finish()
        for name in (case.kind, "supported" if case.supported else "not supported"):
            count = counts[name]
            count.cases += 1
            count.cited += bool(writer.marks)
            count.right += case.supported and any(is_right(mark.support, case) for mark in writer.marks)
    return counts


def is_right(support: Any, case: Case) -> bool:
    touches = support.start < case.question.answer_end and support.end > case.question.answer_start
    return support.number == case.gold and touches


def facts_of(counts: dict[str, Count]) -> dict[str, Any]:
    right, supported = counts["supported"].right, counts["supported"]
    cited = supported.cited + counts["not supported"].cited
    kinds = {
        name: {"cases": one.cases, "cited": one.cited, "right": one.right}
        for name, one in counts.items()
        if name not in ("supported", "not supported")
    }
    return {
        "precision": round(right / max(1, cited), 4),
        "recall": round(right / max(1, supported.cases), 4),
        "kinds": kinds,
    }


def print_table(facts: dict[str, Any]) -> None:
    print(f"{'kind':18} {'cases':>6} {'cited':>7} {'right':>7}")
    for name, one in facts["kinds"].items():
        shares = [one[column] / max(1, one["cases"]) for column in ("cited", "right")]
        print(f"{name:18} {one['cases']:6d} {shares[0]:7.1%} {shares[1]:7.1%}")
    print(f"precision {facts['precision']:.1%}, recall {facts['recall']:.1%}")


def ask_server(server: str, model: str, key: str, asked: list[Question]) -> dict[str, Any]:
    """Citations of a served profile. Documents are known by their names, `ID.md`."""
    import openai

    client = openai.OpenAI(base_url=server, api_key=key)
    cited = right = holding = recalled = refused = 0
    for number, question in enumerate(asked, 1):
        chat: Any = [{"role": "user", "content": question.text}]
        answer = client.chat.completions.create(model=model, messages=chat, temperature=0, max_tokens=120)
        message: Any = answer.choices[0].message
        refused += message.context["refused"]
        if question.answer.lower() not in (message.content or "").lower():
            continue
        holding += 1
        good = [holds_gold(citation, question) for citation in message.citations]
        cited, right, recalled = cited + len(good), right + sum(good), recalled + any(good)
        print(f"\r{number}/{len(asked)}", end="", file=sys.stderr)
    return {
        "questions": len(asked),
        "answers_holding_the_gold_answer": holding,
        "refused": refused,
        "precision": round(right / max(1, cited), 4),
        "recall": round(recalled / max(1, holding), 4),
    }


def holds_gold(citation: dict[str, Any], question: Question) -> bool:
    named = str(citation["document"]).removesuffix(".md").endswith(question.document)
    return named and question.answer in citation["quote"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=["train", "test"], default="test")
    parser.add_argument("--server", help="base URL of a running server, as OPENAI_BASE_URL")
    parser.add_argument("--model", help="with --server: the profile that is asked")
    parser.add_argument("--key", default="none")
    parser.add_argument("--questions", type=int, default=100, help="with --server: how many are asked")
    options = parser.parse_args()
    if options.server:
        asked = questions_of(options.data, options.part)
        random.Random(SEED).shuffle(asked)
        facts = ask_server(options.server, options.model, options.key, asked[: options.questions])
    else:
        facts = facts_of(measure(cases(options.data, options.part)))
        print_table(facts)
    where = {"hardware": this_hardware().to_json()}
    print(json.dumps({"data": options.data.name, "part": options.part} | facts | where))


if __name__ == "__main__":
    main()
