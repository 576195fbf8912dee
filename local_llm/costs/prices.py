"""Prices of others: dated, sourced, and hashed, so that two results can be seen to rest on the same ones.

What is shipped lies in prices.json. A file of the user's own goes over it row by row: a row's figures, date and
source belong together, so a row of the same name takes the whole row's place. A price that is not known is None:
unpriced, never zero.
"""

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from local_llm.costs.request import TokenPrices
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.fileio import write_json
from local_llm.section import Section
from local_llm.settings import Settings

SHIPPED = Path(__file__).parent / "prices.json"
FILE_NAME = "prices.json"
# Prices of hosted models change several times a year; after half of one they are asked about again.
OLD_AFTER_DAYS = 180

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ModelKind = Literal["chat", "embedding"]


class _Row(Section):
    as_of: str = Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$", description="When it was seen: a day or a month.")
    source: str = Field(min_length=1)

    @field_validator("as_of")
    @classmethod
    def _is_a_date(cls, text: str) -> str:
        _first_day(text)
        return text

    @property
    def seen_on(self) -> datetime.date:
        """Of a month its first day: no price is taken for younger than it may be."""
        return _first_day(self.as_of)


class HostedModel(_Row):
    """US dollars a million tokens."""

    model: str = Field(min_length=1)
    kind: ModelKind = "chat"
    input_usd_per_million_tokens: Usd
    cached_input_usd_per_million_tokens: Usd | None = None
    output_usd_per_million_tokens: Usd | None = None
    batch_input_usd_per_million_tokens: Usd | None = None
    batch_output_usd_per_million_tokens: Usd | None = None
    training_usd_per_million_tokens: Usd | None = None
    fine_tuned_model: str | None = Field(None, description="The row that prices this model once fine-tuned.")
    no_new_training_after: datetime.date | None = None
    end_of_life: datetime.date | None = Field(None, description="The day it is shut down.")

    @property
    def token_prices(self) -> TokenPrices:
        """Raises: InvalidInputError if its answers are unpriced."""
        if self.output_usd_per_million_tokens is None:
            raise InvalidInputError(
                f"{self.model} has no price for output tokens",
                hint="local-llm cost prices list shows those that do",
            )
        return TokenPrices(
            self.input_usd_per_million_tokens,
            self.output_usd_per_million_tokens,
            self.cached_input_usd_per_million_tokens,
        )


class GPUPrice(_Row):
    gpu: str = Field(min_length=1)
    driver_names: tuple[str, ...] = Field((), description="As the driver calls it: which measurements are its own.")
    rent_low_usd_per_hour: Usd | None = None
    rent_high_usd_per_hour: Usd | None = None
    purchase_usd: Usd | None = None
    power_watts: Usd | None = None


class PriceFile(Section):
    hosted: tuple[HostedModel, ...] = ()
    gpus: tuple[GPUPrice, ...] = ()


@dataclass(frozen=True)
class Prices:
    """What holds now. `sha256` is of all rows together, whichever file they came from."""

    hosted: tuple[HostedModel, ...]
    gpus: tuple[GPUPrice, ...]
    sha256: str
    files: tuple[Path, ...]

    def model(self, name: str) -> HostedModel:
        """Raises: NotFoundError."""
        for row in self.hosted:
            if row.model == name:
                return row
        known = ", ".join(row.model for row in self.hosted)
        raise NotFoundError(
            f"no price for {name!r}; priced are {known}",
            hint="local-llm cost prices import FILE, or a row of your own in the file of cost.prices_file",
        )

    def gpu(self, name: str) -> GPUPrice:
        """Raises: NotFoundError."""
        for row in self.gpus:
            if name in (row.gpu, *row.driver_names):
                return row
        known = ", ".join(row.gpu for row in self.gpus)
        raise NotFoundError(
            f"no price for a GPU {name!r}; priced are {known}",
            hint="--gpu-usd-per-hour with one of those, or a row of your own in the file of cost.prices_file",
        )

    def base_of(self, fine_tuned: str) -> HostedModel | None:
        return next((row for row in self.hosted if row.fine_tuned_model == fine_tuned), None)


def load_prices(settings: Settings) -> Prices:
    """The shipped rows and over them the user's: cost.prices_file, else prices.json in the home folder, if there.

    Raises: InvalidInputError for a file that is missing or has anything wrong in it.
    """
    shipped, own = read_price_file(SHIPPED), own_file(settings)
    if settings.cost.prices_file is None and not own.exists():
        return _prices(shipped, (SHIPPED,))
    return _prices(merged(shipped, read_price_file(own)), (SHIPPED, own))


def own_file(settings: Settings) -> Path:
    return settings.cost.prices_file or settings.home / FILE_NAME


def read_price_file(path: Path) -> PriceFile:
    """Raises: InvalidInputError with everything that is wrong."""
    try:
        made = PriceFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(
            f"the price file {path} cannot be read: {error.strerror}", hint="check cost.prices_file"
        ) from None
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise InvalidInputError(f"the price file {path}: {reasons}", hint="docs/cost.md shows a row") from None
    _refuse_twice(path, [row.model for row in made.hosted] + [row.gpu for row in made.gpus])
    return made


def write_price_file(path: Path, file: PriceFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, file.model_dump(mode="json"))


def merged(below: PriceFile, above: PriceFile) -> PriceFile:
    """Rows of `above` in the place of rows of the same name, new ones behind."""
    hosted = {row.model: row for row in (*below.hosted, *above.hosted)}
    gpus = {row.gpu: row for row in (*below.gpus, *above.gpus)}
    return PriceFile(hosted=tuple(hosted.values()), gpus=tuple(gpus.values()))


def warnings(rows: Iterable[HostedModel | GPUPrice], today: datetime.date) -> list[str]:
    """What is no longer to be relied on, one line each."""
    return [line for row in rows for line in _warnings_of(row, today)]


def _warnings_of(row: HostedModel | GPUPrice, today: datetime.date) -> list[str]:
    name, lines = row.model if isinstance(row, HostedModel) else row.gpu, []
    age_days = (today - row.seen_on).days
    if age_days > OLD_AFTER_DAYS:
        lines.append(f"{name}: the price is from {row.as_of}, {age_days} days old: look again and import it")
    if isinstance(row, HostedModel):
        if row.end_of_life is not None and row.end_of_life <= today:
            lines.append(f"{name}: shut down on {row.end_of_life}: nobody can buy it any more")
        elif row.end_of_life is not None:
            lines.append(f"{name}: will be shut down on {row.end_of_life}")
        if row.no_new_training_after is not None and row.no_new_training_after < today:
            lines.append(f"{name}: no new training since {row.no_new_training_after}")
    return lines


def batched(row: HostedModel) -> HostedModel | None:
    """The row at its prices for batches, which have none of their own for what the cache holds; None: unpriced."""
    unpriced = row.batch_output_usd_per_million_tokens is None and row.kind == "chat"
    if row.batch_input_usd_per_million_tokens is None or unpriced:
        return None
    return row.model_copy(
        update={
            "input_usd_per_million_tokens": row.batch_input_usd_per_million_tokens,
            "cached_input_usd_per_million_tokens": None,
            "output_usd_per_million_tokens": row.batch_output_usd_per_million_tokens,
        }
    )


def expired(row: HostedModel, today: datetime.date) -> bool:
    return row.end_of_life is not None and row.end_of_life <= today


def _prices(file: PriceFile, files: Sequence[Path]) -> Prices:
    canonical = json.dumps(file.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return Prices(file.hosted, file.gpus, hashlib.sha256(canonical.encode()).hexdigest(), tuple(files))


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"the price file {path} has two rows of {', '.join(twice)}; expected one each")


def _first_day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text if len(text) == len("2026-11-01") else f"{text}-01")
