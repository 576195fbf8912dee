"""Whatever befalls a run is told in our words, with a code that a program can tell apart."""

import errno

import pytest

from training.failures import in_our_words, is_disk_full, is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """As torch names CUDA's."""


def wrapped() -> Exception:
    """As safetensors and SQLAlchemy do: the system's error inside another one."""
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("I/O error") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutOfMemoryError("CUDA: tried to allocate 2 GiB"), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "out_of_memory",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (
            RuntimeError("PytorchStreamWriter failed writing file"),
            "disk_full",
        ),
        (wrapped(), "disk_full"),
        (ValueError("no idea"), None),
    ],
)
def test_errors_of_libraries_are_known_by_their_meaning(error: Exception, code: str | None) -> None:
    ours = in_our_words(error)
    assert ours.code == code
    if code is None:
        assert ours.message == "unexpected ValueError: no idea"
    else:
        assert ours.hint is not None


def test_other_errors_are_neither() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
