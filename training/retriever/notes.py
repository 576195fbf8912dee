"""What is to be known of the data that a retriever was trained from, odd things above all."""

from typing import Any


def notes(counts: dict[str, Any]) -> list[str]:
    """What is to be known of the data, in sentences; odd things only where there are some."""
    asked = counts["questions"] - counts["synthesised"]
    told = [
        f"{counts['documents']} documents in {counts['passages']} passages; {asked} questions asked by people, "
        f"{counts['synthesised']} written by a model",
        f"{counts['train']} questions to train, {counts['dev']} for dev, {counts['test']} for test, in "
        f"{counts['groups']} groups that share no document; {counts['pairs']} pairs trained",
    ]
    if not asked:
        told.append("measured on questions that a model wrote: people may ask otherwise")
    for name, note in (
        ("without_passages", "questions left out: no document of theirs has a passage"),
        ("dropped", "written questions left out: people's questions about their documents are measured"),
        ("capped", "questions with more right documents than are trained; all of them count as right"),
        ("filled", "wrong passages drawn by chance, as too few hard ones were below the margin"),
        (
            "longer_than_read",
            f"passages longer than the {counts['reads_tokens']} tokens that the encoder reads: their ends are "
            "not seen",
        ),
        (
            "longer_than_trained",
            f"passages longer than the {counts['trains_tokens']} tokens that are read while training",
        ),
    ):
        if counts[name]:
            told.append(f"{counts[name]} {note}")
    return told
