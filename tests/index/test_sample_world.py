"""Retrieval on the sample world with the settings as they come."""

import json
from pathlib import Path

from index.ingestion.ingest import find_sources
from index.service import IndexService
from local_llm.permissions import Caller

WORLD = Path(__file__).parents[2] / "examples" / "quillon"
K = 5


def test_the_answering_document_is_among_the_first_five(
    service: IndexService, admin: Caller, collection: str, figures: dict[str, object]
) -> None:
    report = service.add(admin, collection, find_sources([WORLD / "documents"]))
    assert report.skipped == ()
    questions = [json.loads(line) for line in (WORLD / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    found = 0
    for question in questions:
        hits = service.search(admin, collection, question["question"], K)
        found += bool({hit.document for hit in hits} & set(question["documents"]))
        for hit in hits:
            text = service.document(admin, collection, hit.document_id, hit.version).text
            assert text[hit.start : hit.end] == hit.text
    figures["questions whose document is among the first five"] = f"{found} of {len(questions)}"
    assert found >= 0.9 * len(questions)
