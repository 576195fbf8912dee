"""Trains what is asked for, measures all that was trained so far, and compares it."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from acceptance.machine import versions

from local_llm.embedded import ENCODER, locate
from local_llm.fileio import write_json
from local_llm.hardware import this_hardware
from quality_bench.retriever import data, presets, report
from quality_bench.retriever.report import UNTUNED
from quality_bench.retriever.scoring import Scorer


def run(options: Namespace) -> dict[str, Any]:
    """Raises: LocalLLMError."""
    work = options.work.expanduser().resolve()
    sets = (
        data.medquad(options.data / "medquad", options.limit),
        data.xquad(options.data / "xquad", options.limit),
    )
    models = {UNTUNED: locate(ENCODER)}
    changes = {"max_tokens": options.max_tokens} if options.max_tokens else {}
    scorer = Scorer(UNTUNED, models[UNTUNED], work / "encodings", options.device)
    found = {test.name: {UNTUNED: scorer.measures(test)} for test in sets}
    for preset in presets.PRESETS:
        if preset in options.preset:
            presets.trained(
                work, preset, options.data / "medquad", models[UNTUNED],
                seconds=options.seconds, limit=options.limit, changes=changes,
            )  # fmt: skip
    trained = presets.facts_of(work)
    for name in trained:
        scorer = Scorer(name, work / "training" / name / "model", work / "encodings", options.device)
        for test in sets:
            found[test.name][name] = scorer.measures(test)
    compared = {test.name: report.facts_of(test, found[test.name]) for test in sets}
    report.print_tables(compared, trained)
    facts = {
        "part": "retriever",
        "encoder": ENCODER.name,
        "hardware": this_hardware().to_json(),
        "threads": len(os.sched_getaffinity(0)),
        "versions": versions(),
        "sets": compared,
        "trained": trained,
    }
    write_json(work / "results.json", facts)
    return facts


def add_arguments(parser: Any) -> None:
    parser.add_argument("data", type=Path, help="folder with medquad/ and xquad/")
    parser.add_argument("--work", type=Path, required=True, help="what was encoded and trained is kept here")
    parser.add_argument(
        "--preset", nargs="*", choices=presets.PRESETS, default=["default"], help="train these; none: only measure"
    )
    parser.add_argument(
        "--seconds", type=float, help=f"of training; default: {presets.SECONDS:g}, for the others what ours took"
    )
    parser.add_argument("--max-tokens", type=int, help="of a passage while ours trains; default: the product's")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="that measures")
    parser.add_argument("--limit", type=int, help="only so many questions, and about so many documents")
