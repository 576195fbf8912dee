"""Files into a collection: found, parsed, split, encoded, written."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np

from index.collection.documents import Access, NewDocument, StoredDocument
from index.documents.document import UnreadableDocument
from index.documents.parse import ParsedDocument, UnparsableDocument
from index.documents.parser_process import ParserProcess
from index.documents.split import Passage, Splitter
from index.encoding.encoder import BATCH, Encoder, Vectors
from index.interface import IngestReport, Report, Skipped, Source
from local_llm.errors import InvalidInputError
from local_llm.fileio import sha256_of

# Documents are encoded together until they have this many passages: enough to fill batches of like length.
GROUP_PASSAGES = 16 * BATCH


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """The files given, and those in the folders given. Hidden ones inside a folder are passed over.

    A file in a folder is named by its path relative to it, any other file by its own name.

    Raises: InvalidInputError if a path is not there or a folder holds no file.
    """
    sources = [source for path in paths for source in _sources_at(path.expanduser().absolute())]
    refuse_equal_names(sources)
    return sources


def refuse_equal_names(sources: Sequence[Source]) -> None:
    """Raises: InvalidInputError if one file would replace another given with it."""
    refuse_equal([source.name for source in sources])


def refuse_equal(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidInputError(
            f"several files would become the document {', '.join(twice)}",
            hint="add their common folder, so that their names hold the folders between",
        )


def _sources_at(path: Path) -> list[Source]:
    if path.is_file():
        return [Source(path, _readable(path.name), _readable(path.name))]
    if not path.is_dir():
        raise InvalidInputError(f"there is no file or folder {path}", param="path")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
    if not files:
        raise InvalidInputError(
            f"the folder {path} holds no files", hint="give a folder with documents, or the files", param="path"
        )
    names = [_readable(file.relative_to(path).as_posix()) for file in files]
    return [Source(file, name, name) for file, name in zip(files, names, strict=True)]


def _readable(name: str) -> str:
    """A file's name can be bytes that are no UTF-8: one that cannot be written down is told as far as it can be."""
    return os.fsencode(name).decode("utf-8", "replace")


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


class Destination(Protocol):
    """What an ingestion asks of the collection that it writes into (index.collection.store)."""

    def update_if_unchanged(self, name: str, sha256: str, splitting: dict[str, int], access: Access) -> bool: ...

    def write(self, documents: Sequence[NewDocument], fingerprint: str | None = None) -> list[bool]: ...

    def find(self, name: str) -> StoredDocument | None: ...

    def encoded(self, document: StoredDocument) -> dict[str, Vectors]: ...


class EncodedAhead(Protocol):
    """Vectors that were made before, elsewhere (index.bulk.encoded)."""

    def find(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """Those of the texts that it has."""


@dataclass(frozen=True)
class _Prepared:
    source: Source
    sha256: str
    parsed: ParsedDocument
    passages: list[Passage]


@dataclass
class Ingestion:
    """One run over some files. `run` may be called once."""

    store: Destination
    encoder: Encoder
    splitter: Splitter
    access: Access
    report: Report
    parser: ParserProcess
    ahead: EncodedAhead | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _skipped: list[Skipped] = field(default_factory=list)
    _done: int = 0

    def run(self, sources: Sequence[Source]) -> IngestReport:
        """Every file ends up added, replaced, unchanged or skipped; if cut off, what was written stays."""
        started = perf_counter()
        self.report(0, len(sources), "")
        for group in self._groups(sources):
            self._write(group)
            for prepared in group:
                self._finished(prepared.source, len(sources))
        return IngestReport(
            added=self._counts["added"],
            replaced=self._counts["replaced"],
            unchanged=self._counts["unchanged"],
            skipped=tuple(self._skipped),
            passages=self._counts["passages"],
            tokens=self._counts["tokens"],
            seconds=perf_counter() - started,
            ahead=self._counts["ahead"],
        )

    def _groups(self, sources: Sequence[Source]) -> Iterator[list[_Prepared]]:
        group: list[_Prepared] = []
        for source in sources:
            prepared = self._prepare(source)
            if prepared is None:
                self._finished(source, len(sources))
            else:
                group.append(prepared)
            if sum(len(one.passages) for one in group) >= GROUP_PASSAGES:
                yield group
                group = []
        yield group

    def _prepare(self, source: Source) -> _Prepared | None:
        """None if there is nothing to encode."""
        try:
            sha256 = sha256_of(source.path)
            if self.store.update_if_unchanged(source.name, sha256, self.splitter.sizes, self.access):
                self._counts["unchanged"] += 1
                return None
            return _Prepared(source, sha256, *passages_of(source, self.parser, self.splitter))
        except UnparsableDocument as error:
            self._skipped.append(Skipped(source.name, error.message))
        except OSError as error:
            self._skipped.append(Skipped(source.name, _unreadable(error)))
        return None

    def _write(self, group: list[_Prepared]) -> None:
        """The documents of a group, encoded together and written in one transaction."""
        known = self._known_vectors(group)
        passages = [passage for prepared in group for passage in prepared.passages]
        new = [passage for passage in passages if passage.encoded not in known]
        if self.ahead is not None:
            ahead = self.ahead.find([passage.encoded for passage in new])
            new = [passage for passage in new if passage.encoded not in ahead]
            known.update(ahead)
            self._counts["ahead"] += len(ahead)
        known.update(zip((one.encoded for one in new), encode_by_length(self.encoder, new), strict=True))
        replaced = self._stored([self._document(prepared, known) for prepared in group])
        self._counts["replaced"] += sum(replaced)
        self._counts["added"] += len(replaced) - sum(replaced)
        self._counts["passages"] += len(new)
        self._counts["tokens"] += sum(passage.tokens for passage in new)

    def _stored(self, documents: Sequence[NewDocument]) -> list[bool]:
        """In one transaction; if one of them cannot be stored, one by one, without it."""
        try:
            return self.store.write(documents, self.encoder.fingerprint)
        except InvalidInputError as error:
            if len(documents) > 1:
                return [replaced for one in documents for replaced in self._stored([one])]
            self._skipped.append(Skipped(documents[0].name, error.message))
            return []

    def _known_vectors(self, group: list[_Prepared]) -> dict[str, Vectors]:
        """Of passages that the old versions of these documents have already."""
        known: dict[str, Vectors] = {}
        for prepared in group:
            old = self.store.find(prepared.source.name)
            if old is not None:
                known.update(self.store.encoded(old))
        return known

    def _document(self, prepared: _Prepared, vectors: dict[str, Vectors]) -> NewDocument:
        return NewDocument(
            name=prepared.source.name,
            filename=prepared.source.filename,
            file_id=prepared.source.file_id,
            sha256=prepared.sha256,
            parsed=prepared.parsed,
            passages=prepared.passages,
            vectors=np.stack([vectors[passage.encoded] for passage in prepared.passages]),
            access=self.access,
            splitting=self.splitter.sizes,
        )

    def _finished(self, source: Source, total: int) -> None:
        self._done += 1
        self.report(self._done, total, source.name)


def passages_of(source: Source, parser: ParserProcess, splitter: Splitter) -> tuple[ParsedDocument, list[Passage]]:
    """Raises: UnparsableDocument for a file of which nothing can be found; UnreadableDocument for one that the
    system does not give us."""
    try:
        parsed = parser.parse(source.path, source.filename)
    except OSError as error:
        raise UnreadableDocument(_unreadable(error)) from None
    passages = splitter.split(parsed)
    if not passages:
        raise UnparsableDocument("it holds headings only")
    return parsed, passages


def _unreadable(error: OSError) -> str:
    return f"it cannot be read: {error.strerror}"


def encode_by_length(encoder: Encoder, passages: Sequence[Passage]) -> Vectors:
    """float32 [passages, dimension], encoded in batches of like length: little is spent on padding.

    The encoder is free between batches, so that a search need not wait for all of them.
    """
    embeddings = np.empty((len(passages), encoder.dimension), np.float32)
    order = sorted(range(len(passages)), key=lambda at: passages[at].tokens)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        embeddings[batch] = encoder.encode_documents([passages[at].encoded for at in batch])
    return embeddings
