"""What the user says, on the command line or in a file: answers, needs, and what rules ways out."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local_llm.errors import InvalidInputError
from local_llm.json_lines import LineError, parse_json

FORMATS = (".toml", ".json")


class Told(BaseModel):
    """None: not said. The names are those of the flags, and of the file's keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    changes: bool | None = None
    citations: bool | None = None
    examples: int | None = Field(None, ge=0)
    low_latency: bool | None = None
    both_affordable: bool | None = None

    per_user_access: bool | None = None
    too_many_documents: bool | None = None
    add_remove_without_retraining: bool | None = None
    consistent_times: bool | None = None
    format_needed: bool | None = None
    style_needed: bool | None = None
    terms_needed: bool | None = None

    air_gapped: bool | None = None
    residency: str | None = Field(None, min_length=1)
    hosted_region: list[str] = Field(default_factory=list)
    gpu: bool | None = None
    collection: str | None = None


def read_told(file: Path | None, said: dict[str, Any]) -> Told:
    """What stands in the file, with what was `said` beside it (None: not said) in place of that.

    Raises: InvalidInputError naming everything that is wrong.
    """
    values = {} if file is None else _read(file)
    try:
        Told.model_validate(values)  # the file by itself: a flag mends nothing in it
        return Told.model_validate(values | {name: value for name, value in said.items() if value is not None})
    except ValidationError as error:
        where = "" if file is None else f"{file}: "
        raise InvalidInputError(
            where + "; ".join(_reason(detail) for detail in error.errors()), hint="local-llm decide --help"
        ) from None


def _read(file: Path) -> dict[str, Any]:
    if file.suffix not in FORMATS:
        raise InvalidInputError(f"answers cannot be read from {file}; expected a name in .toml or .json")
    try:
        text = file.read_text(encoding="utf-8")
        found = tomllib.loads(text) if file.suffix == ".toml" else parse_json(text)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, LineError) as error:
        raise InvalidInputError(f"{file} is not {file.suffix[1:].upper()}: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInputError(
            f"{file} holds no object; expected keys as {', '.join(list(Told.model_fields)[:3])}"
        )
    return found


def _reason(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{name}: there is no such key; expected some of {', '.join(Told.model_fields)}"
    return f"{name} = {detail['input']!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
