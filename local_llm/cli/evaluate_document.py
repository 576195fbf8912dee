"""A document that `local-llm evaluate freshness` changes and puts back, also after a kill."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from local_llm.cli.context import CommandContext
from local_llm.cli.evaluate_retraining import folded
from local_llm.cli.output import talk
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.evaluation.freshness import Fact, Work
from local_llm.fileio import read_json, write_json
from local_llm.locks import exclusive_lock

# In the run folder while a document is changed.
LEFT = "freshness.json"


@dataclass(frozen=True)
class Document:
    """`name` is that of the document in the collection; `path` its file, `changed` that with the new fact."""

    collection: str
    name: str
    path: Path
    changed: Path


def document_of(
    box: CommandContext, path: Path, collection: str, name: str, changed: Path | None, fact: Fact, folder: Path
) -> Document:
    """Raises: NotFoundError, InvalidInputError unless the collection holds the file, which is put back afterwards,
    and in it the old fact and not the new one."""
    from index.access import open_index
    from index.interface import Source

    with open_index(box.settings, box.state) as index:
        listed = {one.name: one.id for one in index.documents(box.caller, collection)}
        if name not in listed:
            raise NotFoundError(
                f"{collection} has no document {name!r}", hint="--name says what it is called there", param="name"
            )
        text = index.document(box.caller, collection, listed[name]).text
        source = Source(path.absolute(), name, path.name)
        if not path.is_file() or index.sync(box.caller, collection, [source], scope="", dry_run=True).to_replace:
            raise InvalidInputError(
                f"{path} is not what {collection} holds as {name}: the document could not be put back afterwards",
                hint="give the file as it was added, or add it first: local-llm index add",
            )
    if folded(fact.old) not in folded(text):
        raise InvalidInputError(f"{fact.old!r} does not stand in {name} as {collection} has it", param="old")
    if folded(fact.new) in folded(text):
        raise InvalidInputError(f"{fact.new!r} stands in {name} already", param="new")
    return Document(collection, name, path, changed or _with_new_fact(path, fact, folder))


def _with_new_fact(path: Path, fact: Fact, folder: Path) -> Path:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{path} cannot be changed here: {error}", hint="give the changed document: --changed FILE"
        ) from None
    if fact.old not in text:
        raise InvalidInputError(
            f"{fact.old!r} does not stand in {path} word for word", hint="give the changed document: --changed FILE"
        )
    changed = folder / path.name
    changed.write_bytes(text.replace(fact.old, fact.new).encode())
    return changed


def reindex(box: CommandContext, file: Document) -> Work:
    began = time.perf_counter()
    report = _add(box, file, file.changed)
    done = {"documents": 1, "passages": report.passages, "tokens": report.tokens}
    return Work(time.perf_counter() - began, done)


def _add(box: CommandContext, file: Document, path: Path) -> Any:
    """Raises: InvalidInputError if the file is not read."""
    from index.access import open_index
    from index.interface import Source

    with open_index(box.settings, box.state) as index:
        report = index.add(box.caller, file.collection, [Source(path.absolute(), file.name, path.name)])
    if report.skipped:
        raise InvalidInputError(f"{path} was not indexed: {report.skipped[0].reason}")
    return report


@contextmanager
def changing(box: CommandContext) -> Iterator[Path]:
    """A folder for the changed document, one at a time in a home. What a killed run left changed is put back first.

    Raises: LockedError while another one runs, InvalidInputError if what was changed has no file any more.
    """
    place = box.settings.place.ensure()
    with exclusive_lock(place.run / "freshness.lock", "evaluate freshness"):
        left = place.run / LEFT
        if left.exists():
            told = read_json(left)
            file = Document(told["collection"], told["name"], Path(told["path"]), Path(told["changed"]))
            talk(f"an earlier run was killed: {file.name} of {file.collection} is put back as {file.path} has it")
            _add(box, file, file.path)
            left.unlink()
        with TemporaryDirectory() as folder:
            yield Path(folder)


@contextmanager
def putting_back(box: CommandContext, file: Document, *, keep: bool) -> Iterator[None]:
    left = box.settings.place.run / LEFT
    if not keep:
        write_json(left, {name: str(value) for name, value in vars(file).items()})
    try:
        yield
    finally:
        if keep:
            talk(f"{file.collection} holds the changed {file.name}")
        else:
            _add(box, file, file.path)
            left.unlink(missing_ok=True)
