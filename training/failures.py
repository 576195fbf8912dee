"""What can befall a training run, in our words: exceptions of libraries by their meaning."""

import errno

from sqlalchemy.exc import OperationalError

from local_llm.errors import InsufficientMemoryError, LocalLLMError
from local_llm.postgresql import StateUnavailableError

# The words of torch's allocators; only CUDA's has a class of its own.
MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
DISK_WORDS = ("no space left on device", "disk full", "database or disk is full", "failed writing file")


class OutOfMemoryError(InsufficientMemoryError):
    code = "out_of_memory"


class DiskFullError(LocalLLMError):
    code = "disk_full"


class LossError(LocalLLMError):
    """The loss is no longer a number."""

    code = "loss_not_finite"


class StoppedError(LocalLLMError):
    """The run was told to stop; its last step is in a checkpoint."""

    code = "stopped"


def in_our_words(error: Exception) -> LocalLLMError:
    """The error to be told to users for whatever a run raised."""
    if isinstance(error, LocalLLMError):
        return error
    if is_out_of_memory(error):
        return OutOfMemoryError(
            "training ran out of memory",
            hint="lower training.micro_batch_tokens or training.max_tokens, or set training.quantization = '4bit'",
        )
    if is_disk_full(error):
        return DiskFullError("the disk is full", hint="free space under LOCAL_LLM_HOME and create the job again")
    return LocalLLMError(f"unexpected {type(error).__name__}: {error}")


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in MEMORY_WORDS)


def is_busy(error: BaseException) -> bool:
    """Whether another process held the state database for longer than a write waits, or it is away."""
    if isinstance(error, StateUnavailableError):
        return True
    return isinstance(error, OperationalError) and "locked" in str(error).lower()


def is_disk_full(error: BaseException) -> bool:
    """Also where a library wraps the system's error in one of its own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(words in str(error).lower() for words in DISK_WORDS):
        return True
    return error.__cause__ is not None and is_disk_full(error.__cause__)
