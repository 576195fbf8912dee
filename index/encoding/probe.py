"""Texts and questions that every box has: what an int8 encoder is calibrated with and measured on.

Each subject meets each aspect in one passage, and one question asks for it: the others of its subject and of its
aspect are near misses, which makes ranking them harder than most real collections.
"""

import random
from dataclasses import dataclass

SUBJECTS = (
    "the harbour ferry",
    "the village library",
    "the river mill",
    "the mountain railway",
    "the glass workshop",
    "the school kitchen",
    "the weather station",
    "the paper factory",
    "the botanical garden",
    "the lighthouse",
    "the dental clinic",
    "the data centre",
    "the tax office",
    "the football club",
    "the bee farm",
    "the city theatre",
)
# What is said of each, and what is asked. {n} is a number of the subject's own.
ASPECTS = (
    ("In winter {s} opens at {n} in the morning and closes before dark.", "When does {s} open in winter?"),
    ("A ticket for {s} costs {n} crowns; children under six come free.", "What do I pay to visit {s}?"),
    ("{s} was damaged by a fire {n} years ago and took two summers to rebuild.", "What did the fire do to {s}?"),
    ("The roof of {s} leaks, and repairing it would take {n} days of dry weather.", "Is the roof of {s} sound?"),
    ("{n} people work at {s}, most of them part time.", "How many employees has {s}?"),
    ("{s} was founded by two sisters who had inherited {n} acres of land.", "Who started {s}?"),
    ("Bus number {n} stops right in front of {s} every half hour.", "How do I get to {s} without a car?"),
    ("Last year {s} used {n} thousand litres of water, less than ever before.", "How much water does {s} need?"),
    ("To complain about {s}, write to the council within {n} days.", "Where can I send a complaint about {s}?"),
    ("An inspection of {s} found {n} faults in the wiring and one blocked exit.", "Is {s} safe, electrically?"),
    ("Volunteers paint the walls of {s} every {n} years with white lime.", "Who looks after the walls of {s}?"),
    ("{s} insures its machines against flood, theft and hail for {n} thousand.", "Against what is {s} insured?"),
    ("A dog called Number {n} guards {s} at night.", "What animal watches over {s}?"),
    ("The director of {s} retires in {n} months, and nobody has applied yet.", "Who will lead {s} next?"),
    ("Passwords at {s} must have {n} characters and are changed each spring.", "What passwords does {s} want?"),
)
RANDOM_WORD_TEXTS, SEED = 24, 7


@dataclass(frozen=True)
class Probe:
    """`answers[i]` is the number of the passage that answers `questions[i]`."""

    passages: list[str]
    questions: list[str]
    answers: list[int]


def probe() -> Probe:
    passages, questions = [], []
    for number, subject in enumerate(SUBJECTS):
        for passage, question in ASPECTS:
            text = passage.format(s=subject, n=7 + 3 * number)
            passages.append(text[:1].upper() + text[1:])
            questions.append(question.format(s=subject))
    return Probe(passages, questions, list(range(len(passages))))


def calibration_texts(words: list[str], most_words: int) -> list[str]:
    """Passages and questions of the probe, alone and strung together, and random words of the encoder's vocabulary:
    they reach languages and fields that the probe knows nothing of."""
    known, draw = probe(), random.Random(SEED)
    short = draw.sample(known.passages, 48) + draw.sample(known.questions, 24)
    joined = [" ".join(draw.sample(known.passages, 10)) for _ in range(12)]
    strange = [" ".join(draw.choices(words, k=draw.randint(4, most_words))) for _ in range(RANDOM_WORD_TEXTS)]
    return short + joined + strange
