"""A child process that parses one file after another.

A file that crashes a parser, or never ends, costs one document and not the index. The child is kept, because
starting one takes longer than parsing most documents.
"""

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from index.documents.parse import MARKDOWN, PLAIN, ParsedDocument, UnparsableDocument, media_type_of, parse
from index.interface import Page
from local_llm import offline

BLOCK_BYTES = 1 << 16


class ParserProcess:
    """A context manager; the child is started by the first file that needs it."""

    def __init__(self, timeout_seconds: float):
        self._timeout_seconds = timeout_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ParserProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def parse(self, path: Path, filename: str) -> ParsedDocument:
        """Like `index.documents.parse.parse`, but a crash or a timeout is an UnparsableDocument too."""
        if media_type_of(filename) in (MARKDOWN, PLAIN):
            return parse(path, filename)
        if self._child is None or self._child.poll() is not None:
            self._child = _start()
        try:
            _write_line(self._child.stdin, [str(path.absolute()), filename])
            answer = self._answer(self._child)
        except BrokenPipeError:
            raise UnparsableDocument(f"its parser ended with status {self._child.wait()}") from None
        except BaseException:  # an answer that came after all would be taken for the next file's
            self._end()
            raise
        if "reason" in answer:
            raise UnparsableDocument(answer["reason"])
        return ParsedDocument(**{**answer, "pages": tuple(Page(**page) for page in answer["pages"])})

    def _answer(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert child.stdout is not None
        deadline = time.monotonic() + self._timeout_seconds
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                raise UnparsableDocument(f"parsing it took longer than {self._timeout_seconds:g} s")
            block = os.read(child.stdout.fileno(), BLOCK_BYTES)
            if not block:
                raise UnparsableDocument(f"its parser ended with status {child.wait()}")
            line += block
        return json.loads(line)

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "index.documents.parser_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=offline.environment(),
        cwd=Path(__file__).parents[2],  # where `-m` finds this package, installed or not
    )


def _write_line(stream: IO[bytes] | None, value: Any) -> None:
    assert stream is not None
    stream.write(json.dumps(value).encode() + b"\n")
    stream.flush()


def _main() -> None:
    """The child: a line [path, filename] in, a line with the document, or the reason for none, out."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what parsers print is no answer
    for line in sys.stdin.buffer:
        _write_line(answers, _parsed(*json.loads(line)))


def _parsed(path: str, filename: str) -> dict[str, Any]:
    try:
        return asdict(parse(Path(path), filename))
    except UnparsableDocument as error:
        return {"reason": error.message}
    except Exception as error:  # whatever a parser raises speaks of the file
        return {"reason": f"it is damaged: {type(error).__name__}: {error}"}


if __name__ == "__main__":
    _main()
