"""What the index's work took, noted in the ledger."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from index.ingestion.reembed import Reembedding
from index.interface import IngestReport
from index.vectors.view import Built
from local_llm import ledger
from local_llm.energy import EnergyMeter
from local_llm.state import Collection, State


class Measured:
    """Any thread may note."""

    def __init__(self, state: State):
        self._state = state

    @contextmanager
    def ingestion(self, row: Collection) -> Iterator[Callable[[IngestReport], None]]:
        """Yields what is to be handed the outcome. Nothing is noted where no passage was encoded."""
        outcomes: list[IngestReport] = []
        cpu = _cpu_seconds()
        with EnergyMeter() as meter:
            yield outcomes.append
        for outcome in outcomes:
            if outcome.passages:
                facts = {
                    "collection": row.id,
                    "documents": outcome.added + outcome.replaced,
                    "passages": outcome.passages,
                    "tokens": outcome.tokens,
                    "seconds": round(outcome.seconds, 3),
                    "cpu_seconds": round(_cpu_seconds() - cpu, 3),
                    **meter.facts(),
                    "encoder": row.encoder,
                }
                ledger.record(self._state, row.project_id, "ingestion", facts)

    @contextmanager
    def reembedding(self, row: Collection, run: Reembedding) -> Iterator[None]:
        """Notes what was encoded, also of a run that fails. `seconds`: of that; the structure over the vectors is
        noted by itself (built)."""
        cpu, meter = _cpu_seconds(), EnergyMeter()
        try:
            with meter:
                yield
        finally:
            done = run.encoded
            if done.passages:
                facts = {
                    "collection": row.id,
                    "passages": done.passages,
                    "tokens": done.tokens,
                    "seconds": round(done.seconds, 3),
                    "cpu_seconds": round(_cpu_seconds() - cpu, 3),
                    **meter.facts(),
                    "encoder": run.encoder.name,
                    "encoder_before": row.encoder,
                }
                ledger.record(self._state, row.project_id, "reembed", facts)

    def built(self, collection: str, built: Built) -> None:
        """A collection that was deleted meanwhile is passed over."""
        with self._state.reading() as session:
            row = session.get(Collection, collection)
        if row is not None:
            facts = {
                "collection": collection,
                "structure": built.structure,
                "vectors": built.vectors,
                "seconds": round(built.seconds, 3),
                "cpu_seconds": round(built.cpu_seconds, 3),
            }
            ledger.record(self._state, row.project_id, "index_build", facts)


def _cpu_seconds() -> float:
    """Processor time of this process and of the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
