"""What a batch gives back: a file of answers and a file of errors, both in the order of the input."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete

from local_llm.files import BATCH_OUTPUT, FileStore
from local_llm.identifiers import new_id
from local_llm.permissions import Caller, key_principal
from local_llm.state import BatchRow, File, State
from serving.batches import leases
from serving.batches.asking import Reply
from serving.batches.journal import AnsweredLines, Entry
from serving.batches.leases import Lease
from serving.batches.requests import InputProblem, Line, read_requests
from serving.bodies import dump_json

NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class Published:
    output_file_id: str | None
    error_file_id: str | None
    unasked: int


def entry_of(line: Line, reply: Reply) -> Entry:
    """The reply as a line of the output; its body stays as it is."""
    head = dump_json({"id": new_id("batch_req_"), "custom_id": reply.custom_id})[:-1]
    about = dump_json({"status_code": reply.status, "request_id": reply.request_id})[:-1]
    text = head + b',"response":' + about + b',"body":' + reply.body + b'},"error":null}'
    return Entry(line.number, reply.succeeded, reply.usage, text)


def principals_of(row: BatchRow, maker: Caller | None, input_allow: list[str] | None) -> list[str] | None:
    """Who may read the answers: nobody who might not see all that the maker sees, since they may quote any of it.

    A key with one principal shares them with all who have it. One with several shares them with nobody, because a
    file is for whoever has *any* of those it names. None, everyone in the project: of a key that sees no more.
    """
    if maker is not None and maker.sees is not None and input_allow is None and len(maker.sees) <= 1:
        return list(maker.sees) or None
    return [] if row.key_id is None else [key_principal(row.key_id)]


def publish(
    files: FileStore,
    row: BatchRow,
    lines: AnsweredLines,
    unasked: InputProblem | None,
    source: Path | None,
    allow: list[str] | None,
) -> Published:
    """Stores both files. With `unasked`, lines of `source` without an answer are errors of that code."""
    rest = _unasked(lines, unasked, source) if unasked and source else {}

    def errors() -> Iterator[bytes]:
        failed = dict.fromkeys(rest) | dict(lines.lines(succeeded=False))
        for number in sorted(failed):
            yield failed[number] or rest[number]

    answers = (line for _, line in lines.lines(succeeded=True))
    return Published(
        _store(files, row, "output", answers, allow), _store(files, row, "errors", errors(), allow), len(rest)
    )


def withdraw(state: State, files: FileStore, lease: Lease) -> None:
    """Deletes what an earlier try to publish left, which nobody was ever told of.

    Raises: LeaseLostError, deleting nothing: from then on such files may be those that the row names.
    """
    with state.session() as session:
        row = leases.held(session, lease)
        named = [file_id for file_id in (row.output_file_id, row.error_file_id) if file_id is not None]
        left = delete(File).where(
            File.project_id == row.project_id,
            File.purpose == BATCH_OUTPUT,
            File.filename.in_([_filename(row, kind) for kind in ("output", "errors")]),
            File.id.not_in(named),
        )
        gone = list(session.scalars(left.returning(File.id)))
    for file_id in gone:
        files.path(file_id).unlink(missing_ok=True)


def _unasked(lines: AnsweredLines, reason: InputProblem, source: Path) -> dict[int, bytes]:
    error = {"code": reason.code, "message": reason.message}
    return {
        request.number: dump_json(
            {"id": new_id("batch_req_"), "custom_id": request.custom_id, "response": None, "error": error}
        )
        for request in read_requests(source)
        if request.number not in lines.answered.numbers
    }


def _store(
    files: FileStore, row: BatchRow, kind: str, lines: Iterator[bytes], allow: list[str] | None
) -> str | None:
    first = next(lines, None)
    if first is None:
        return None

    def chunks() -> Iterator[bytes]:
        yield first + b"\n"
        for line in lines:
            yield line + b"\n"

    stored = files.add(
        chunks(),
        filename=_filename(row, kind),
        purpose=BATCH_OUTPUT,
        project_id=row.project_id,
        key_id=row.key_id,
        max_bytes=NO_LIMIT,
        allow=allow,
    )
    return stored.id


def _filename(row: BatchRow, kind: str) -> str:
    return f"{row.id}_{kind}.jsonl"
