"""Whether citations point at the evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from local_llm.answer_measures import containment
from local_llm.evaluation.question_set import Evidence

Citation = Mapping[str, Any]


def precision(citations: Sequence[Citation], evidence: Sequence[Evidence]) -> float | None:
    """Share of the citations that are right; None without any citation."""
    if not citations:
        return None
    return sum(any(points_at(one, wanted) for wanted in evidence) for one in citations) / len(citations)


def recall(citations: Sequence[Citation], evidence: Sequence[Evidence]) -> float:
    """Share of the evidence that a citation is right about. `evidence` holds one at least."""
    return sum(any(points_at(one, wanted) for one in citations) for wanted in evidence) / len(evidence)


def points_at(citation: Citation, evidence: Evidence) -> bool:
    """Whether one of the two spans contains the other, in the right document. Spans are compared by their
    characters where the evidence has them, else by their words."""
    names = {citation.get("document"), citation.get("document_id"), citation.get("file_id")}
    if evidence.documents and names.isdisjoint(evidence.documents):
        return False
    if evidence.start is not None and evidence.end is not None:
        start, end = citation.get("start"), citation.get("end")
        if not isinstance(start, int) or not isinstance(end, int):
            return False
        inside = evidence.start <= start and end <= evidence.end
        return inside or (start <= evidence.start and evidence.end <= end)
    if evidence.text is None:
        return True
    quote = str(citation.get("quote") or "")
    return bool(quote.strip()) and bool(containment(quote, evidence.text) or containment(evidence.text, quote))
