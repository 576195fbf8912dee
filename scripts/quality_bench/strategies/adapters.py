"""Adapters trained by the product's own command: each once, found again by the file that it was trained on."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from local_llm.cli.output import talk
from local_llm.errors import UnavailableError
from local_llm.fileio import read_json, sha256_of, write_json
from local_llm.state import File, Job, LedgerEntry
from quality_bench.lines import read_rows, write_rows
from quality_bench.strategies.box import Box
from training.job_rows import UNFINISHED

TRAINING = (
    "--epochs", "1", "--batch-size", "8", "--rank", "16", "--learning-rate-multiplier", "1", "--seed", "7",
)  # fmt: skip
# So many rows are trained first to see how fast this machine is: two batches.
PROBE_ROWS = 16


@dataclass(frozen=True)
class Trained:
    """`name` is the `ft:` name. Of the loop; `resumed_at_step` tells that it is the last attempt's only."""

    name: str
    rows: int
    tokens: int
    seconds: float
    resumed_at_step: int

    @property
    def tokens_per_second(self) -> float:
        return round(self.tokens / self.seconds, 1)


def trained(box: Box, suffix: str, file: Path) -> Trained:
    """The adapter trained on exactly this file: there already, gone on with, or new. Raises: LocalLLMError."""
    sha256 = sha256_of(file)
    name = _finished(box, sha256)
    if name is None:
        job = _unfinished(box, sha256)
        line = ["--resume", job] if job else [str(file), "--suffix", suffix, *TRAINING]
        name = str(box.command("train", "adapter", *line)["fine_tuned_model"])
    facts = _facts(box, sha256)
    return Trained(name, facts["examples"], facts["tokens"], facts["loop_seconds"], facts["resumed_at_step"])


def affordable_rows(box: Box, file: Path, minutes: float, kept: Path) -> int:
    """How many of the file's first rows are trained in so many minutes here. Chosen once for so many minutes and
    kept, for another number of rows would be other adapters. Raises: LocalLLMError."""
    chosen: dict[str, Any] = read_json(kept) if kept.exists() else {}
    if chosen.get("minutes") != minutes:
        probe = file.with_name("probe.jsonl")
        write_rows(probe, read_rows(file)[:PROBE_ROWS])
        trained(box, "probe", probe)
        estimate = box.command("train", "estimate", str(file), "--epochs", "1", "--batch-size", "8")
        hours = estimate["bill"]["hours"]
        if hours is None:
            raise UnavailableError("the speed of training here is not known", hint="say how many: --rows N")
        rows = rows_within(60 * minutes, 3600 * hours, estimate["counts"]["examples"])
        chosen = {"minutes": minutes, "rows": rows}
        write_json(kept, chosen)
    return int(chosen["rows"])


def rows_within(seconds: float, seconds_of_all: float, rows: int) -> int:
    """How many of `rows` alike, which together take `seconds_of_all`, are trained in `seconds`; one at least."""
    return max(1, min(rows, int(rows * seconds / seconds_of_all)))


def _finished(box: Box, sha256: str) -> str | None:
    for row in box.command("models", "list"):
        if row["kind"] == "adapter" and row["step_number"] is None and row["data_sha256"] == sha256:
            return str(row["name"])
    return None


def _unfinished(box: Box, sha256: str) -> str | None:
    """The job that was interrupted on this file, once nobody holds it any more."""
    with box.state.reading() as session:
        query = (
            select(Job.id, Job.lease_until)
            .join(File, File.id == Job.training_file)
            .where(File.sha256 == sha256, Job.status.in_(UNFINISHED))
        )
        row = session.execute(query).first()
    if row is None:
        return None
    waiting = (row.lease_until or 0) - time.time()
    if waiting > 0:
        talk(f"{row.id} was cut off: its lease runs out in {waiting:.0f} s")
        time.sleep(waiting + 1)
    return str(row.id)


def _facts(box: Box, sha256: str) -> dict[str, Any]:
    with box.state.reading() as session:
        query = select(LedgerEntry).where(LedgerEntry.kind == "training").order_by(LedgerEntry.created_at.desc())
        return next(entry.facts for entry in session.scalars(query) if entry.facts["data_sha256"] == sha256)
