"""A child process that parses one file after another, within a time and a memory.

A file that crashes a parser, never ends or eats memory costs one document and not the index. The child is kept,
because starting one takes longer than parsing most documents.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from index.documents.decode import is_utf8
from index.documents.document import MOST_CHARACTERS, ParsedDocument, UnparsableDocument
from index.documents.media_types import LITERAL, media_type_of
from index.documents.parse import parse
from index.documents.readers.text import load_libraries
from index.interface import Page
from local_llm import offline

BLOCK_BYTES = 1 << 20
START_SECONDS = 300  # imports on a cold, busy disk
MEMORY_BYTES = 2 << 30
# JSON writes a character in 6 bytes at most (\\u0000); pages and title are small beside that.
MOST_ANSWER_BYTES = 7 * MOST_CHARACTERS
# What is read here, in the parent: UTF-8 of this size at most, which no parser can choke on.
TRUSTED_BYTES = 16 << 20


class ParserProcess:
    """A context manager; the child is started by the first file that needs it.

    `memory_bytes` bounds the child's heap: the parsers themselves take some 200 MB of it.
    """

    def __init__(self, timeout_seconds: float, memory_bytes: int = MEMORY_BYTES):
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ParserProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def parse(self, path: Path, filename: str) -> ParsedDocument:
        """Like `index.documents.parse.parse`, but a crash or a limit reached is an UnparsableDocument too.

        Raises: OSError if the file cannot be opened.
        """
        if media_type_of(filename) in LITERAL and _is_plain(path):
            return parse(path, filename)
        answer = self._asked([str(path.absolute()), filename])
        if answer.get("spent"):  # memory that a parser lost is not given back
            self._end()
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]), str(path))
        if "reason" in answer:
            raise UnparsableDocument(answer["reason"])
        return ParsedDocument(**{**answer, "pages": tuple(Page(**page) for page in answer["pages"])})

    def _asked(self, question: list[str]) -> dict[str, Any]:
        child = self._child
        try:
            if child is None or child.poll() is not None:
                child = self._child = _start(self._timeout_seconds, self._memory_bytes)
                self._answer(child, START_SECONDS)
            _write_line(child.stdin, question)
            return self._answer(child, self._timeout_seconds)
        except BrokenPipeError:
            assert child is not None
            raise self._crashed(child) from None
        except BaseException:  # an answer that came after all would be taken for the next file's
            self._end()
            raise

    def _answer(self, child: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        assert child.stdout is not None
        deadline = time.monotonic() + seconds
        answering = select.poll()  # select() knows no descriptor beyond 1,023
        answering.register(child.stdout, select.POLLIN)
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not answering.poll(1000 * left):
                raise UnparsableDocument(f"parsing it took longer than {seconds:g} s")
            block = os.read(child.stdout.fileno(), BLOCK_BYTES)
            if not block:
                raise self._crashed(child)
            line += block
            if len(line) > MOST_ANSWER_BYTES:
                raise UnparsableDocument("its text is longer than a document may be")
        return json.loads(line)

    def _crashed(self, child: subprocess.Popen[bytes]) -> UnparsableDocument:
        """Libraries in C end the process when they get no memory: the reason may be either."""
        status = child.wait()
        cause = signal.Signals(-status).name if status < 0 else f"status {status}"
        most = _megabytes(self._memory_bytes)
        return UnparsableDocument(
            f"its parser crashed ({cause}): it is damaged, or takes more than {most} of memory"
        )

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _is_plain(path: Path) -> bool:
    """Whether it is an ordinary file of UTF-8: what takes guessing is left to the child."""
    return path.is_file() and path.stat().st_size <= TRUSTED_BYTES and is_utf8(path.read_bytes())


def _megabytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"


def _start(timeout_seconds: float, memory_bytes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "index.documents.parser_process", str(timeout_seconds), str(memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Threads of numeric libraries take memory each, and no parser computes anything.
        env={**offline.environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],  # where `-m` finds this package, installed or not
    )


def _write_line(stream: IO[bytes] | None, value: Any) -> None:
    assert stream is not None
    stream.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
    stream.flush()


def _main(timeout_seconds: float, memory_bytes: int) -> None:
    """The child: a line out when ready; then a line [path, filename] in, a line with the document, or the reason
    for none, out.
    """
    _bind(memory_bytes)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what parsers print is no answer
    load_libraries()
    _write_line(answers, {"ready": True})
    for line in sys.stdin.buffer:
        # The parent keeps the time; should it be gone, nobody else would end a parser that hangs.
        signal.setitimer(signal.ITIMER_REAL, 2 * timeout_seconds)
        path, filename = json.loads(line.decode("utf-8", "surrogateescape"))
        _write_line(answers, _parsed(Path(path), filename, memory_bytes))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _bind(memory_bytes: int) -> None:
    """Heap and private mappings are limited: what code itself maps is not the document's doing."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no dump of anybody's document on the disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _parsed(path: Path, filename: str, memory_bytes: int) -> dict[str, Any]:
    try:
        return asdict(parse(path, filename))
    except UnparsableDocument as error:
        return {"reason": error.message}
    except (MemoryError, SystemError):  # the second where C code forgot to say the first
        return {"reason": f"parsing it takes more than {_megabytes(memory_bytes)} of memory", "spent": True}
    except RecursionError:
        return {"reason": "it is nested too deeply"}
    except Exception as error:
        if isinstance(error, OSError) and error.filename == str(path):
            return {"errno": error.errno}
        # Whatever else a parser raises speaks of what the file holds.
        return {"reason": f"it is damaged: {type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    _main(float(sys.argv[1]), int(sys.argv[2]))
