"""What was answered of a batch is found again, whatever befell the disk."""

import asyncio
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.answering.events import TokenUsage
from serving.batches.journal import AnsweredLines, Entry, Journal, read_answered


def entry(number: int, text: bytes = b'{"a":1}') -> Entry:
    return Entry(number, True, TokenUsage(1, 0, 2), text)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes meanwhile: writes come short, then fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_tears_no_answer_that_was_durable(tmp_path: Path) -> None:
    """Later answers were written behind the torn one: both were one record then, with broken JSON in it."""

    async def work() -> None:
        journal = Journal(tmp_path / "batch", "one")
        await journal.add(entry(1))
        with disk_of(100), pytest.raises(OSError, match="File too large"):
            await journal.add(entry(2, b'{"a":"' + b"x" * 200 + b'"}'))
        with pytest.raises(OSError, match="an earlier write failed"):
            await journal.add(entry(3))
        await journal.close()
        again = Journal(tmp_path / "batch", "two")
        await again.add(entry(3))
        await again.close()

    asyncio.run(work())
    assert read_answered(tmp_path / "batch").numbers == {1, 3}
    lines = AnsweredLines(tmp_path / "batch").lines(succeeded=True)
    assert list(lines) == [(1, b'{"a":1}'), (3, b'{"a":1}')]
    assert (tmp_path / "batch" / "one.journal").read_bytes() == entry(1).record()


@pytest.mark.parametrize("torn", [b"1\t1", entry(2).record()[:-5], b"\n", b"\x00" * 40, b"zz\tzz\t\n"])
def test_what_is_no_answer_is_passed_over_and_told(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole = entry(1).record(), entry(3).record()
    (tmp_path / "a.journal").write_bytes(whole[0] + torn + b"\n" + whole[1] + torn)
    assert read_answered(tmp_path).numbers == {1, 3}
    assert [text for _, text in AnsweredLines(tmp_path).lines(succeeded=True)] == [b'{"a":1}'] * 2
    assert "a.journal at byte" in caplog.text


def test_an_answer_that_ran_into_a_torn_one_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "a.journal").write_bytes(entry(1).record()[:-3] + entry(2).record() + entry(3).record())
    assert read_answered(tmp_path).numbers == {3}
