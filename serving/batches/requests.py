"""What a batch asks: the body that creates one, and the lines of its input file."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from local_llm.errors import LocalLLMError
from local_llm.json_lines import BYTE_ORDER_MARK, LineError, parse_line, refuse_other_files
from serving.bodies import dump_json
from serving.vector_stores.requests import Body, Identifier, Metadata

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
ENDPOINTS: tuple[str, ...] = get_args(Endpoint)

# Source: the reference of the API, "Create batch".
MOST_REQUESTS = 50_000
MOST_PROBLEMS = 100
LONGEST_CUSTOM_ID = 512
# Longer than any name of ours: such a one is neither looked up nor told in full.
LONGEST_MODEL_NAME = 512
# Problems are kept in the database: of each, and of a value in it, so many characters.
LONGEST_MESSAGE, SHOWN = 500, 80
# As large as any other body; not a setting, since a file that was checked must stay good.
MOST_LINE_BYTES = 16 * 1024**2
# A file of nothing but line ends would keep us busy for minutes.
MOST_BLANK_LINES = 100_000
KEYS = {"custom_id", "method", "url", "body"}

# Raises LocalLLMError for a name that this batch's key cannot ask for.
RefuseModel = Callable[[str], None]


class CreateBatch(Body):
    input_file_id: Identifier
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


@dataclass(frozen=True)
class Line:
    """Where a line of a file stands: its bytes from `start` on. `number` counts from 1."""

    number: int
    start: int
    size: int


@dataclass(frozen=True)
class Request:
    """A line of an input file that was checked. `number` counts lines from 1."""

    number: int
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class InputProblem:
    """As the API tells it. `line` counts from 1; None speaks of the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class InputSummary:
    """`model` is the one that all requests name, if they do."""

    total: int
    model: str | None


@dataclass
class InputCheck:
    """One pass over a file of requests; nothing of it is kept but ids and names."""

    endpoint: str
    refuse_model: RefuseModel
    problems: list[InputProblem] = field(default_factory=list)
    total: int = 0
    _ids: set[str] = field(default_factory=set)
    _models: dict[str, LocalLLMError | None] = field(default_factory=dict)

    def read(self, path: Path) -> InputSummary | None:
        """None if there are problems: all of them, or the first 100."""
        try:
            for line, data in _lines(path):
                self._look(line.number, data)
                if len(self.problems) >= MOST_PROBLEMS:
                    return None
                if self.total > MOST_REQUESTS:
                    self._add("too_many_requests", f"more than {MOST_REQUESTS:,} requests; split the file", None)
                    return None
        except TooManyBlankLinesError as error:
            self._add("too_many_blank_lines", str(error), error.number)
        if not self.total and not self.problems:
            self._add("empty_file", "the file holds no requests", None)
        if self.problems:
            return None
        return InputSummary(self.total, next(iter(self._models)) if len(self._models) == 1 else None)

    def _look(self, number: int, line: bytes | None) -> None:
        other = refuse_other_files(line) if number == 1 else None
        if other:
            self._add("invalid_file", other.partition(";")[0], None)
            return
        self.total += 1
        if line is None:
            self._add("line_too_long", f"longer than {MOST_LINE_BYTES:,} bytes", number)
            return
        try:
            value = parse_line(line)
        except LineError as error:
            self._add("invalid_json_line", str(error), number)
            return
        if isinstance(value, dict):
            self._look_at_fields(number, value)
        else:
            self._add("invalid_json_line", "expected an object", number)

    def _look_at_fields(self, number: int, value: dict[str, Any]) -> None:
        unknown = sorted(value.keys() - KEYS)
        if unknown:
            self._add("unknown_parameter", f"unknown key {unknown[0]!r:.80}", number, unknown[0][:80])
        if value.get("method") != "POST":
            self._add("invalid_method", f"method is {value.get('method')!r:.60}; expected 'POST'", number, "method")
        if value.get("url") != self.endpoint:
            message = f"url is {value.get('url')!r:.80}; expected the endpoint of the batch, {self.endpoint!r}"
            self._add("invalid_url", message, number, "url")
        self._look_at_id(number, value.get("custom_id"))
        self._look_at_body(number, value.get("body"))

    def _look_at_id(self, number: int, custom_id: Any) -> None:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID:
            message = f"custom_id is {custom_id!r:.60}; expected a text of 1 to {LONGEST_CUSTOM_ID} characters"
            self._add("invalid_custom_id", message, number, "custom_id")
        elif custom_id in self._ids:
            message = f"custom_id {custom_id!r:.80} was given to an earlier line"
            self._add("duplicate_custom_id", message, number, "custom_id")
        else:
            self._ids.add(custom_id)

    def _look_at_body(self, number: int, body: Any) -> None:
        if not isinstance(body, dict):
            self._add("invalid_body", "body: expected an object", number, "body")
            return
        try:
            dump_json(body)
        except ValueError as error:  # half a surrogate pair
            self._add("invalid_body", f"body holds what JSON cannot: {error}"[:200], number, "body")
        if body.get("stream"):
            self._add("invalid_body", "body.stream: answers of batches are not streamed", number, "body.stream")
        model = body.get("model")
        if not isinstance(model, str) or not model:
            self._add("missing_required_parameter", "body.model: expected a model's name", number, "body.model")
            return
        if len(model) > LONGEST_MODEL_NAME:
            message = f"body.model: {model!r:.{SHOWN}}… has {len(model):,} characters; expected a model's name"
            self._add("model_not_found", message, number, "body.model")
            return
        refusal = self._refusal_of(model)
        if refusal is not None:
            self._add(refusal.code or refusal.type, refusal.message, number, "body.model")

    def _refusal_of(self, model: str) -> LocalLLMError | None:
        """Each name is looked up once."""
        if model not in self._models:
            try:
                self.refuse_model(model)
                self._models[model] = None
            except LocalLLMError as error:
                self._models[model] = error
        return self._models[model]

    def _add(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        self.problems.append(InputProblem(code[:SHOWN], message[:LONGEST_MESSAGE], line, param))


def read_requests(path: Path) -> Iterator[Request]:
    """The requests of a file that was checked."""
    for line, data in _lines(path):
        yield _request_of(line, data)


def find_requests(path: Path) -> Iterator[Line]:
    """Where they stand, for read_request()."""
    return (line for line, _ in _lines(path))


def read_request(path: Path, line: Line) -> Request:
    with path.open("rb") as handle:
        handle.seek(line.start)
        return _request_of(line, handle.read(line.size))


def _request_of(line: Line, data: bytes | None) -> Request:
    value = parse_line(data)
    return Request(line.number, value["custom_id"], value["body"])


class TooManyBlankLinesError(Exception):
    """What comes behind them was not read."""

    def __init__(self, number: int):
        super().__init__(f"more than {MOST_BLANK_LINES:,} blank lines; remove them")
        self.number = number


def _lines(path: Path) -> Iterator[tuple[Line, bytes | None]]:
    """Lines that are not blank; None stands for one that is too long, which is never held whole.

    Raises: TooManyBlankLinesError.
    """
    blank, most = 0, MOST_LINE_BYTES
    with path.open("rb") as handle:
        number = start = 0
        while piece := handle.readline(most + 1):
            number += 1
            size, whole = len(piece), piece.endswith(b"\n") or len(piece) <= most
            while not piece.endswith(b"\n") and (more := handle.readline(most)):
                piece = more
                size += len(more)
            data = piece.removeprefix(BYTE_ORDER_MARK) if number == 1 else piece
            if whole and not data.strip():
                blank += 1
                if blank > MOST_BLANK_LINES:
                    raise TooManyBlankLinesError(number)
            else:
                line = Line(number, start + len(piece) - len(data), len(data))
                yield line, data if whole else None
            start += size
