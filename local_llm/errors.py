"""Every error a user can meet.

    LocalLLMError                 500
    ├── InvalidInputError         400  what was asked for cannot be right
    │   ├── SettingsError              a setting, or several at once
    │   └── TrainingDataError          lines of a training file
    ├── AuthenticationError       401  no key, or not one of ours
    ├── ForbiddenError            403  this key's role does not reach that far
    ├── NotFoundError             404
    │   └── ModelNotFoundError
    ├── ConflictError             409  the present state forbids it
    │   └── LockedError                another process holds it
    ├── IntegrityError            500  bytes on disk are not the bytes published
    ├── InsufficientMemoryError   500
    ├── RateLimitError            429  too much at once, or more than a key may
    ├── OutOfSpaceError           507  the disk is full
    └── UnavailableError          503  a process we need is down or still starting

Each class fixes the HTTP status and the `type` of OpenAI's error envelope. `hint` is the command or
the setting that mends it; the command line prints it on a line of its own.
"""

from dataclasses import dataclass


class LocalLLMError(Exception):
    """Base of all errors told to users. `param` names the offending request field, if there is one."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param

    def envelope(self) -> dict:
        """OpenAI's error body: {"error": {message, type, param, code}}."""
        message = f"{self.message} ({self.hint})" if self.hint else self.message
        return {"error": {"message": message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidInputError(LocalLLMError):
    status = 400
    type = "invalid_request_error"


class SettingsError(InvalidInputError):
    code = "invalid_settings"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a training file. `line` counts from 1; 0 speaks of the whole file.

    Sources of imports that have no lines count rows: `unit` says which.
    """

    line: int
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: {self.reason}" if self.line else self.reason


class TrainingDataError(InvalidInputError):
    code = "invalid_training_file"

    def __init__(
        self,
        path: str,
        problems: list[Problem],
        *,
        param: str = "training_file",
        hint: str = "mend these lines and try again",
    ):
        shown = "; ".join(str(problem) for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{path} has {count}: {shown}", hint=hint, param=param)
        self.problems = problems


class AuthenticationError(LocalLLMError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class ForbiddenError(LocalLLMError):
    status = 403
    type = "invalid_request_error"
    code = "insufficient_permissions"


class NotFoundError(LocalLLMError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class ConflictError(LocalLLMError):
    status = 409
    type = "invalid_request_error"
    code = "conflict"


class LockedError(ConflictError):
    code = "locked"


class IntegrityError(LocalLLMError):
    code = "integrity_error"


class InsufficientMemoryError(LocalLLMError):
    code = "insufficient_memory"


class OutOfSpaceError(LocalLLMError):
    status = 507
    code = "out_of_space"


class RateLimitError(LocalLLMError):
    """`retry_after_seconds`: when it may be tried again; None: trying again soon is of no use. `limit` names what
    was reached, for whoever counts."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        limit: str = "other",
        hint: str | None = None,
        param: str | None = None,
    ):
        super().__init__(message, hint=hint, param=param)
        self.retry_after_seconds = retry_after_seconds
        self.limit = limit


class UnavailableError(LocalLLMError):
    """`retry_after_seconds`: when to ask again."""

    status = 503
    code = "unavailable"
    retry_after_seconds = 2

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ):
        super().__init__(message, hint=hint, param=param)
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds
