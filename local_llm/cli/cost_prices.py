"""local-llm cost prices: what hosted models and GPUs cost, as the price files have it."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_json, emit_table, talk
from local_llm.costs.litellm_map import read_litellm_map
from local_llm.costs.prices import (
    PriceFile,
    load_prices,
    merged,
    own_file,
    read_price_file,
    warnings,
    write_price_file,
)

app = typer.Typer(
    no_args_is_help=True, help="Prices of hosted models and GPUs: dated, sourced, and yours to replace."
)

HOSTED_COLUMNS = ["model", "in", "cached", "out", "batch in", "batch out", "training", "as of", "ends", "source"]
GPU_COLUMNS = ["gpu", "rent low", "rent high", "purchase", "watts", "as of", "source"]


@app.command("list")
def list_prices(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists all prices: US dollars a million tokens, an hour of a GPU, a GPU. Unpriced is not free."""
    box: CommandContext = context.obj
    prices = load_prices(box.settings)
    if as_json:
        rows = PriceFile(hosted=prices.hosted, gpus=prices.gpus).model_dump(mode="json")
        emit_json({**rows, "sha256": prices.sha256, "files": [str(path) for path in prices.files]})
        return
    hosted = [
        {
            "model": row.model,
            "in": _price(row.input_usd_per_million_tokens),
            "cached": _price(row.cached_input_usd_per_million_tokens),
            "out": _price(row.output_usd_per_million_tokens),
            "batch in": _price(row.batch_input_usd_per_million_tokens),
            "batch out": _price(row.batch_output_usd_per_million_tokens),
            "training": _price(row.training_usd_per_million_tokens),
            "as of": row.as_of,
            "ends": row.end_of_life,
            "source": row.source,
        }
        for row in prices.hosted
    ]
    gpus = [
        {
            "gpu": row.gpu,
            "rent low": _price(row.rent_low_usd_per_hour),
            "rent high": _price(row.rent_high_usd_per_hour),
            "purchase": _price(row.purchase_usd),
            "watts": row.power_watts,
            "as of": row.as_of,
            "source": row.source,
        }
        for row in prices.gpus
    ]
    emit_table(hosted, HOSTED_COLUMNS, as_json=False, empty="no hosted models")
    print()  # noqa: T201
    emit_table(gpus, GPU_COLUMNS, as_json=False, empty="no GPUs")
    print(f"\nsha256 {prices.sha256}")  # noqa: T201


@app.command("check")
def check_prices(context: typer.Context, as_json: AsJson = False) -> None:
    """Says which prices are too old, end soon, or have ended."""
    box: CommandContext = context.obj
    prices = load_prices(box.settings)
    lines = warnings((*prices.hosted, *prices.gpus), datetime.date.today())
    result = {"warnings": lines, "sha256": prices.sha256, "files": [str(path) for path in prices.files]}
    emit(result, "\n".join(lines) or "all prices hold", as_json=as_json)


@app.command("import")
def import_prices(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="LiteLLM's price map (JSON).")],
    as_of: Annotated[str, typer.Option(help="When the map was fetched: 2026-11 or 2026-11-23.")],
    source: Annotated[str, typer.Option(help="Where it is from, with its version.")],
    model: Annotated[list[str] | None, typer.Option("--model", help="Only this one; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Takes prices of hosted models out of LiteLLM's price map into your own price file, row by row."""
    box: CommandContext = context.obj
    own = own_file(box.settings)
    imported = read_litellm_map(file, model or [], as_of=as_of, source=source)
    present = read_price_file(own) if own.exists() else PriceFile()
    write_price_file(own, merged(present, imported.file))
    if imported.left_out:
        talk(f"left out, without a price for tokens in chats or embeddings: {len(imported.left_out)} rows")
    names = [row.model for row in imported.file.hosted]
    result = {"file": str(own), "imported": names, "left_out": list(imported.left_out)}
    emit(result, f"{len(names)} prices in {own}", as_json=as_json)


def _price(value: float | None) -> str:
    return "unpriced" if value is None else f"${value:g}"
