"""Citations as the API carries them: `annotations` of type url_citation, `citations` and `context` beside."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from index.interface import Hit
from local_llm.prompts import LONGEST_REFUSAL, is_refusal
from serving.answering.citations import CitationWriter, Mark
from serving.answering.prepare import Prepared
from serving.answering.sources import Sources
from serving.answering.standing import Standing

# Of a whole answer so much is compared before others are let on: a few milliseconds.
PIECES_AT_ONCE = 32


class Cited:
    """One choice of an answer made with context: its text with markers, its citations."""

    def __init__(self, prepared: Prepared, standing: Standing, sources: Sources | None = None):
        """`sources`: the passages, ready to be compared, where another choice had them made."""
        self._prepared = prepared
        self._sources = sources or Sources(prepared.hits)
        self._hits = prepared.hits
        self._standing = standing
        self._gone: frozenset[int] = frozenset()
        self._beginning = ""
        self._writer = self._new_writer()

    @property
    def has_text(self) -> bool:
        return bool(self._beginning)

    async def feed(self, text: str) -> str:
        """The text to send on for a piece of the answer. No marker leaves before its passage was seen to stand."""
        self._begin(text)
        return await self._checked(self._writer.pieces(text))

    async def finish(self) -> str:
        """What is still to be sent when the answer has ended."""
        return await self._checked(self._writer.rest()) + await self._close()

    async def _checked(self, pieces: Iterator[str | None]) -> str:
        return "".join([await self._close() if piece is None else piece for piece in pieces])

    async def _close(self) -> str:
        """The markers of the sentence that has ended, if any are written."""
        supports = self._writer.supports()
        while supports and self._prepared.writes_markers:
            gone = await self._find_gone({support.number for support in supports})
            if not gone:
                break
            self._writer.leave_out(gone)
            supports = self._writer.supports()  # another passage may say the same
        return self._writer.close(supports)

    async def whole(self, text: str) -> str:
        """A whole answer with markers, all looked up at once. None of a passage that stands no more."""
        self._begin(text)
        while True:
            written = await self._written(text)
            if not await self.check():
                return written
            self._writer = self._new_writer()

    async def _written(self, text: str) -> str:
        """Others are let on between: a long answer takes a tenth of a second."""
        parts = []
        for at, piece in enumerate(self._writer.pieces(text), 1):
            parts.append(self._writer.end_sentence() if piece is None else piece)
            if at % PIECES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return "".join(parts) + self._writer.finish()

    async def check(self) -> bool:
        """Whether any of the passages cited stands no more. In a stream their markers are out by then."""
        cited = {mark.support.number for mark in self._writer.marks}
        return bool(cited and await self._find_gone(cited))

    async def _find_gone(self, cited: set[int]) -> frozenset[int]:
        gone = await self._standing.gone(self._hits, cited)
        self._gone |= gone
        return gone

    def _begin(self, text: str) -> None:
        if len(self._beginning) < 2 * LONGEST_REFUSAL:  # a refusal is known by how it begins
            self._beginning += text

    def fields(self) -> dict[str, Any]:
        """What is added to a message, or to the last delta of a stream."""
        return {
            "annotations": [self._annotation(mark) for mark in self._marks()],
            "citations": self._citations(),
            "context": self._context(),
        }

    def _new_writer(self) -> CitationWriter:
        return CitationWriter(self._sources, write_markers=self._prepared.writes_markers, left_out=self._gone)

    def _marks(self) -> list[Mark]:
        return [mark for mark in self._writer.marks if mark.support.number not in self._gone]

    def _context(self) -> dict[str, Any]:
        """What the answer was made from. `gone`: passages that were replaced, deleted or closed to the asker while
        it was made; they are cited no more."""
        prepared = self._prepared
        return {
            "passages_found": prepared.found,
            "passages_used": len(self._hits),
            "last_passage_cut": prepared.last_is_cut,
            "search_query": prepared.rewritten.text if prepared.rewritten else None,
            "refused": is_refusal(self._beginning, self._prepared.refusal),
            "gone": sorted(self._gone),
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
        spans = {mark.support: None for mark in self._marks()}
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
        server_url = self._prepared.question.server_url
        return f"{server_url}/passages/{quote(hit.collection, safe='')}/{hit.document_id}?{query}"


async def cite_message(choice: dict[str, Any], cited: Cited) -> None:
    """Adds markers and citations to a whole choice, in place. Tool calls carry none."""
    message = choice["message"]
    if not message.get("content"):
        return
    message["content"] = await cited.whole(message["content"])
    message.update(cited.fields())


async def cite_delta(choice: dict[str, Any], cited: Cited) -> None:
    """Adds markers to a piece of a streamed choice, in place, and the citations to its last.

    Tool calls carry none.
    """
    delta = choice["delta"]
    text = await cited.feed(delta.get("content") or "")
    if choice.get("finish_reason") and cited.has_text:
        text += await cited.finish()
        await cited.check()
        delta.update(cited.fields())
    if text or delta.get("content") is not None:
        delta["content"] = text
