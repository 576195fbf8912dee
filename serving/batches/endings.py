"""How batches end before all is answered, and what is said of it."""

from dataclasses import dataclass

from serving.batches.leases import End
from serving.batches.requests import InputProblem


@dataclass(frozen=True)
class Ending:
    """How a batch ends before all is answered: its status, and what is said of each line that was not asked."""

    status: End
    reason: InputProblem


CANCELLED = Ending("cancelled", InputProblem("batch_cancelled", "the batch was cancelled before this was asked"))
EXPIRED = Ending(
    "expired", InputProblem("batch_expired", "this could not be answered before the completion window was over")
)
# Of a batch whose input nobody came to check there are no lines to speak of: this is said of it as a whole.
NEVER_BEGUN = InputProblem(
    "batch_expired",
    "the completion window was over before the batch had its turn; nothing of it was asked, send it again",
)
FULL = Ending(
    "failed",
    InputProblem(
        "quota_exceeded",
        "the project's files and the answers so far take all that they may; delete files that are no longer needed "
        "or have the quota raised (server.project_quota_bytes, or the project's own), and send the rest again",
    ),
)
NO_FILE = Ending("failed", InputProblem("input_file_deleted", "the input file was deleted", param="input_file_id"))


def problems_of(ending: Ending | None, *, checked: bool) -> list[InputProblem] | None:
    """What is told of the batch as a whole."""
    if ending is not None and ending.status == "failed":
        return [ending.reason]
    return [NEVER_BEGUN] if ending is EXPIRED and not checked else None
