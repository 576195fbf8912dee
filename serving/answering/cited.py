"""Citations as the API carries them: `annotations` of type url_citation, and a `citations` list beside."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from index.interface import Hit
from serving.answering.citations import CitationWriter, Mark


class Cited:
    """One choice of an answer made with context: its text with markers, its citations."""

    def __init__(self, hits: Sequence[Hit], server_url: str, *, write_markers: bool):
        self._hits = hits
        self._server_url = server_url
        self.writer = CitationWriter(hits, write_markers=write_markers)

    def fields(self) -> dict[str, Any]:
        """What is added to a message, or to the last delta of a stream."""
        return {
            "annotations": [self._annotation(mark) for mark in self.writer.marks],
            "citations": self._citations(),
        }

    def _annotation(self, mark: Mark) -> dict[str, Any]:
        hit = self._hits[mark.support.number - 1]
        return {
            "type": "url_citation",
            "url_citation": {
                "start_index": mark.answer_start,
                "end_index": mark.answer_end,
                "title": hit.title,
                "url": self._url(hit, mark.support.start, mark.support.end),
            },
        }

    def _citations(self) -> list[dict[str, Any]]:
        """Each cited span once, in the order in which it is first cited."""
        spans = {mark.support: None for mark in self.writer.marks}
        return [self._citation(support.number, support.start, support.end) for support in spans]

    def _citation(self, number: int, start: int, end: int) -> dict[str, Any]:
        hit = self._hits[number - 1]
        return {
            "index": number,
            "collection": hit.collection,
            # An upload's document is named by the file's id: people know it by the file's name.
            "document": hit.filename if hit.file_id else hit.document,
            "file_id": hit.file_id,
            "document_id": hit.document_id,
            "title": hit.title,
            "version": hit.version,
            "page": hit.page,
            "start": start,
            "end": end,
            "quote": hit.text[start - hit.start : end - hit.start],
            "url": self._url(hit, start, end),
        }

    def _url(self, hit: Hit, start: int, end: int) -> str:
        query = urlencode({"version": hit.version, "start": start, "end": end})
        return f"{self._server_url}/passages/{quote(hit.collection, safe='')}/{hit.document_id}?{query}"


def cite_message(choice: dict[str, Any], cited: Cited) -> None:
    """Adds markers and citations to a whole choice, in place. Tool calls carry none."""
    message = choice["message"]
    if not message.get("content"):
        return
    message["content"] = cited.writer.feed(message["content"]) + cited.writer.finish()
    message.update(cited.fields())


def cite_delta(choice: dict[str, Any], cited: Cited) -> None:
    """Adds markers to a piece of a streamed choice, in place, and the citations to its last."""
    delta = choice["delta"]
    text = cited.writer.feed(delta.get("content") or "")
    if choice.get("finish_reason"):
        text += cited.writer.finish()
        delta.update(cited.fields())
    if text or delta.get("content") is not None:
        delta["content"] = text
