"""What to do next, as commands. Retrieval comes first: it is quicker to build, and what tuning has to beat.

Source: the article's advice, "start with RAG; add fine-tuning where it cannot give the format or behaviour".
"""

import shlex
from dataclasses import dataclass

from local_llm.decision.questions import ENOUGH_EXAMPLES
from local_llm.profiles import Strategy

COLLECTION = "handbook"
FOLDER, QUESTIONS, EXAMPLES, WITH_PASSAGES = "./documents", "questions.jsonl", "examples.jsonl", "raft.jsonl"
# Others than those that it is evaluated with: what a model has seen it may know by heart.
TO_LEARN_FROM = "training-questions.jsonl"
TRAINED = "ft:NAME"


@dataclass(frozen=True)
class NextStep:
    command: str
    why: str


def next_steps(
    strategy: Strategy, *, collection: str | None, enough_examples: bool, hosted: bool
) -> tuple[NextStep, ...]:
    """`collection`: one that is there already. `hosted`: a vendor's API is a choice, too."""
    name = collection or COLLECTION
    steps = [*_retrieval(name, made=collection is not None)]
    if strategy == "rag":
        steps += _better_retrieval(name)
        if not enough_examples:
            steps.append(_collecting())
    else:
        steps += _tuning(strategy, name)
    steps.append(_evaluating(strategy, name))
    if hosted:
        steps.append(_comparing())
    return tuple(steps)


def _retrieval(name: str, *, made: bool) -> list[NextStep]:
    filled = [
        NextStep(_line("index", "create", name), "a collection for the documents"),
        NextStep(_line("index", "add", name, FOLDER), "the documents"),
    ]
    return [
        *([] if made else filled),
        NextStep(
            _line("profiles", "set", _profile(name, "rag"), "--strategy", "rag", "--collection", name),
            "retrieval first: it is quicker to build, and what anything else has to beat",
        ),
        NextStep(_line("serve"), "in another shell"),
        NextStep(
            _line("ask", "A question of yours", "--model", _profile(name, "rag")), "an answer with its sources"
        ),
        NextStep(
            _line("index", "evaluate", name, QUESTIONS),
            "whether the right documents are found, and what would find more of them",
        ),
    ]


def _better_retrieval(name: str) -> list[NextStep]:
    return [
        NextStep(
            _line("train", "retriever", name, "--questions", TO_LEARN_FROM),
            "where the right documents are too often not among the first five",
        )
    ]


def _collecting() -> NextStep:
    return NextStep(
        _line("train", "dataset", "chats", "--out", EXAMPLES),
        f"kept chats that were rated good become examples; with {ENOUGH_EXAMPLES} of them decide again",
    )


def _tuning(strategy: Strategy, name: str) -> list[NextStep]:
    """Hybrid learns with passages before the question, as it will be asked: plain tuning can lose to rag alone."""
    examples = WITH_PASSAGES if strategy == "hybrid" else EXAMPLES
    steps = []
    if strategy == "hybrid":
        steps.append(
            NextStep(
                _line("train", "dataset", "raft", TO_LEARN_FROM, "--collection", name, "--out", WITH_PASSAGES),
                "examples with the passages that the model will be shown: tuned without, hybrid can lose to rag",
            )
        )
    profile = ["profiles", "set", _profile(name, strategy), "--strategy", strategy, "--model", TRAINED]
    if strategy == "hybrid":
        profile += ["--collection", name]
    return [
        *steps,
        NextStep(_line("train", "preview", examples), "what is trained, token by token"),
        NextStep(_line("train", "estimate", examples), "steps, memory, hours and cost"),
        NextStep(_line("train", "adapter", examples, "--suffix", name), "prints the name of the tuned model"),
        NextStep(_line(*profile), f"with that name in place of {TRAINED}"),
    ]


def _evaluating(strategy: Strategy, name: str) -> NextStep:
    profiles = ",".join(_profile(name, one) for one in dict.fromkeys(("rag", strategy)))
    why = "how good and how quick its answers are" if strategy == "rag" else "whether tuning beats retrieval alone"
    return NextStep(_line("evaluate", QUESTIONS, "--profiles", profiles), f"{why}, on your own questions")


def _comparing() -> NextStep:
    return NextStep(
        _line("cost", "compare", "--queries-per-month", "10000"),
        "with your own number of questions: what each choice costs here, beside the hosted price",
    )


def _profile(name: str, strategy: str) -> str:
    return f"{name}-{strategy.replace('_', '-')}"


def _line(*parts: str) -> str:
    return shlex.join(("local-llm", *parts))
