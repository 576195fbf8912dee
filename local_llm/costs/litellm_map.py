"""Prices out of LiteLLM's price map (model_prices_and_context_window.json, MIT): dollars a token there.

The map says neither when a price was seen nor where: whoever imports it does.
"""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from local_llm.costs.prices import HostedModel, ModelKind, PriceFile
from local_llm.costs.units import TOKENS_PER_MILLION
from local_llm.errors import InvalidInputError, NotFoundError

# The map's kinds that are priced by tokens in and out.
KINDS: dict[str, ModelKind] = {"chat": "chat", "completion": "chat", "responses": "chat", "embedding": "embedding"}
EXAMPLE_ROW = "sample_spec"


@dataclass(frozen=True)
class Imported:
    """`left_out` names rows of the map that have no price for a token, or another kind."""

    file: PriceFile
    left_out: tuple[str, ...]


def read_litellm_map(path: Path, models: Sequence[str], *, as_of: str, source: str) -> Imported:
    """The rows of `models`; of all where none is named.

    Raises: InvalidInputError for a file that is no such map, NotFoundError for models that are not in it.
    """
    rows = _rows(path)
    missing = [name for name in models if name not in rows]
    if missing:
        raise NotFoundError(f"{path.name} has no price of {', '.join(missing)}", hint="look for their names in it")
    chosen = {name: rows[name] for name in models} if models else rows
    try:
        made = {name: _row(name, row, as_of, source, rows) for name, row in chosen.items()}
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidInputError(f"{path.name} with {as_of=}, {source=}: {reasons}", hint="set --as-of") from None
    left_out = tuple(name for name, row in made.items() if row is None)
    if models and left_out:
        raise InvalidInputError(f"{path.name} has no price for tokens of {', '.join(left_out)}")
    return Imported(PriceFile(hosted=tuple(row for row in made.values() if row is not None)), left_out)


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    except ValueError as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise InvalidInputError(
            f"{path} is not LiteLLM's price map: expected an object of objects",
            hint="litellm/model_prices_and_context_window_backup.json of an installed litellm is one",
        )
    return {name: row for name, row in found.items() if name != EXAMPLE_ROW}


def _row(
    name: str, row: dict[str, Any], as_of: str, source: str, rows: dict[str, dict[str, Any]]
) -> HostedModel | None:
    kind, price = KINDS.get(row.get("mode", "")), _per_million(row.get("input_cost_per_token"))
    output = _per_million(row.get("output_cost_per_token"))
    if kind is None or price is None or (kind == "chat" and output is None):
        return None
    tuned = [other for other in rows if other == f"ft:{name}" or other.startswith(f"ft:{name}-20")]
    return HostedModel(
        model=name,
        kind=kind,
        input_usd_per_million_tokens=price,
        cached_input_usd_per_million_tokens=_per_million(row.get("cache_read_input_token_cost")),
        output_usd_per_million_tokens=output if kind == "chat" else None,
        batch_input_usd_per_million_tokens=_per_million(row.get("input_cost_per_token_batches")),
        batch_output_usd_per_million_tokens=_per_million(row.get("output_cost_per_token_batches")),
        fine_tuned_model=tuned[-1] if tuned else None,
        end_of_life=_date(row.get("deprecation_date")),
        as_of=as_of,
        source=source,
    )


def _per_million(usd_per_token: object) -> float | None:
    """None where the map has none, or a zero, which is how it marks what it has no price of.

    Rounded to twelve digits, so that 1.5e-07 a token is 0.15 a million.
    """
    if isinstance(usd_per_token, bool) or not isinstance(usd_per_token, int | float) or usd_per_token <= 0:
        return None
    return round(usd_per_token * TOKENS_PER_MILLION, 12)


def _date(text: object) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(str(text))
    except ValueError:
        return None
