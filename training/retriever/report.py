"""What a run did, for people and machines: report.json, report.md and plot.svg in its folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local_llm import plots
from local_llm.fileio import write_file, write_json
from local_llm.questions import Question
from local_llm.relevance import ndcg

JSON, MARKDOWN, PLOT = "report.json", "report.md", "plot.svg"
# Rows of each table in the Markdown report; report.json has all.
SHOWN = 20
HEADINGS = {"ndcg_10": "nDCG@10", "recall_5": "recall@5", "mrr_10": "MRR@10", "accuracy_1": "accuracy@1"}


@dataclass(frozen=True)
class Change:
    """One question. Ranks are those of its best right document; None: it is not among those that were kept."""

    question: str
    ndcg_before: float
    ndcg_after: float
    rank_before: int | None
    rank_after: int | None

    @property
    def gain(self) -> float:
        return self.ndcg_after - self.ndcg_before


def changes(
    questions: Sequence[Question], before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]
) -> list[Change]:
    """Of each question, what became of it; the largest loss first, the largest gain last."""
    found = [
        Change(
            one.text,
            ndcg(old, one.documents),
            ndcg(new, one.documents),
            _rank(old, one),
            _rank(new, one),
        )
        for one, old, new in zip(questions, before, after, strict=True)
    ]
    return sorted(found, key=lambda one: (one.gain, one.question))


def write(folder: Path, facts: dict[str, Any], dev: Sequence[Change], losses: Sequence[float]) -> None:
    """`facts`: the outcome as JSON has it, with `reason`, `metrics`, `data`, `trained`."""
    rows = [asdict(one) for one in dev]
    write_json(folder / JSON, {**facts, "questions": rows})
    figure = plots.new_figure(9, 4)
    _draw(figure, dev, losses)
    write_file(folder / PLOT, plots.as_svg(figure).encode())
    write_file(folder / MARKDOWN, _markdown(facts, dev).encode())


def _markdown(facts: dict[str, Any], dev: Sequence[Change]) -> str:
    worse = [one for one in dev if one.gain < 0]
    better = [one for one in reversed(dev) if one.gain > 0]
    verdict = "Better" if facts["better"] else "Kept aside"
    return "\n".join(
        [
            f"# A retriever trained from {facts['provenance']['base']['name']}\n",
            f"**{verdict}**: {facts['reason']}.\n",
            "## Measured\n",
            "All documents of the collection ranked by their best passage; intervals at 95 %, paired bootstrap.\n",
            *_figures(facts["metrics"]),
            f"\nOf {len(dev)} dev questions {len(better)} got better, {len(worse)} got worse, "
            f"{len(dev) - len(better) - len(worse)} stayed as they were.\n",
            "![Loss, and the change of each question](plot.svg)\n",
            *_table("Got worse", worse),
            *_table("Got better", better),
            "## The data\n",
            *(f"- {line}" for line in facts["notes"]),
            "\n## How it was trained\n",
            "| | |",
            "|---|---|",
            *(f"| {_cell(name)} | {_cell(value)} |" for name, value in _training(facts).items()),
            "",
        ]
    )


def _figures(metrics: dict[str, Any]) -> list[str]:
    lines = ["| side | measure | before | after | change |", "|---|---|---|---|---|"]
    for side, one in metrics.items():
        if one is None:
            continue
        for name, heading in HEADINGS.items():
            gain = one["differences"][name]
            lines.append(
                f"| {side} ({one['questions']}) | {heading} | {one['before'][name]:.4f} | "
                f"{one['after'][name]:.4f} | {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}] |"
            )
    return lines


def _table(title: str, rows: Sequence[Change]) -> list[str]:
    if not rows:
        return [f"## {title}\n", "None.\n"]
    more = f"The first {SHOWN} of {len(rows)}; report.json has all.\n" if len(rows) > SHOWN else ""
    return [
        f"## {title}\n",
        *([more] if more else []),
        "| question | nDCG@10 before | after | rank before | after |",
        "|---|---|---|---|---|",
        *(
            f"| {_cell(one.question)} | {one.ndcg_before:.3f} | {one.ndcg_after:.3f} | "
            f"{_shown(one.rank_before)} | {_shown(one.rank_after)} |"
            for one in rows[:SHOWN]
        ),
        "",
    ]


def _training(facts: dict[str, Any]) -> dict[str, Any]:
    trained = {name: value for name, value in facts["trained"].items() if name not in ("losses", "chosen")}
    return {**facts["provenance"]["settings"], **facts["trained"]["chosen"], **trained, **facts["took"]}


def _draw(figure: Any, dev: Sequence[Change], losses: Sequence[float]) -> None:
    left, right = figure.subplots(1, 2)
    left.plot(range(1, len(losses) + 1), losses, linewidth=0.8)
    left.set(title="Loss", xlabel="step", ylabel="loss of a batch")
    gains = [one.gain for one in dev]
    colours = ["#b3423a" if gain < 0 else "#2f7d4f" for gain in gains]
    right.bar(range(1, len(gains) + 1), gains, width=1.0, color=colours)
    right.axhline(0, color="#444444", linewidth=0.8)
    right.set(title="Change of nDCG@10", xlabel="dev questions, by their change", ylabel="after minus before")


def _rank(ranked: Sequence[str], question: Question) -> int | None:
    return next((rank for rank, one in enumerate(ranked, 1) if one in question.documents), None)


def _shown(rank: int | None) -> str:
    return "beyond" if rank is None else str(rank)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
