"""local-llm cost compare: the four strategies here and hosted."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from local_llm.cli import cost_inputs as given
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.cost_options import (
    EvidenceFile,
    ExtraOptions,
    HostedOptions,
    MachineOptions,
    RateOptions,
    RequestOptions,
    SetUpOptions,
)
from local_llm.cli.cost_tables import article_table, comparison_tables, usd
from local_llm.cli.option_groups import with_option_groups
from local_llm.cli.output import emit_json, talk
from local_llm.costs.article import Checked, check_article
from local_llm.costs.compare import Here, compare, speed_of
from local_llm.costs.hosted import HostedOffer, offer_of
from local_llm.costs.local import Traffic
from local_llm.costs.row import Asked, Row, Unknown
from local_llm.costs.throughput import usd_per_million_tokens
from local_llm.costs.units import HOURS_PER_MONTH
from local_llm.profiles import DEFAULT_K
from local_llm.settings import Settings

ENCODER = "text-embedding-3-small"


@with_option_groups
def compare_costs(
    context: typer.Context,
    queries_per_month: Annotated[float, typer.Option(help="Questions asked in a month.")],
    request: RequestOptions,
    hosted: HostedOptions,
    machine: MachineOptions,
    rates: RateOptions,
    set_up: SetUpOptions,
    extra: ExtraOptions,
    updates_per_month: Annotated[float, typer.Option(help="Retrainings, and changes of the documents.")] = 0.0,
    context_tokens: Annotated[
        float | None, typer.Option(help="Tokens of passages, for rag and hybrid; default: 5 of index.chunk_tokens.")
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(
            help="Share of the saturated throughput over all hours paid; default: whole machines, always on."
        ),
    ] = None,
    documents_per_update: Annotated[
        int | None, typer.Option(help="Documents that an update changes; default: all.")
    ] = None,
    hosted_encoder: Annotated[str, typer.Option(help="Hosted model that encodes documents.")] = ENCODER,
    hosted_usd_per_month: Annotated[float, typer.Option(help="What a host takes besides: for vectors, say.")] = 0.0,
    evidence: EvidenceFile = None,
    article: Annotated[
        bool, typer.Option("--article", help="Hold the article's ranges against these inputs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compares base, fine-tuning, RAG and both: set-up, a query, latency, an update and a month, here and hosted.

    Figures of this hardware come from the ledger, with the id of their run; what was not measured is assumed or
    unknown, and said to be.
    """
    box: CommandContext = context.obj
    found = given.inputs(box, machine, rates, evidence)
    passages = _context_tokens(box.settings) if context_tokens is None else context_tokens
    traffic = Traffic(request.input_tokens, request.output_tokens, passages, request.cached_tokens)
    asked = Asked(traffic, queries_per_month, updates_per_month, documents_per_update)
    here = Here(
        found.usd_per_hour,
        found.evidence,
        found.assumed_throughput,
        set_up.training_hours,
        set_up.indexing_hours,
        utilisation,
        extra.extras(),
    )
    models = given.hosted_models(found, hosted)
    training_price = box.settings.cost.hosted_training_usd_per_million_tokens
    offers = [
        offer_of(
            found.prices,
            model.model,
            encoder=hosted_encoder,
            today=found.today,
            training_usd_per_million_tokens=training_price,
            training_tokens=set_up.training_tokens,
            indexing_tokens=set_up.indexing_tokens,
            usd_per_month=hosted_usd_per_month,
            batch=hosted.batch,
        )
        for model in models
    ]
    rows = compare(asked, here, offers)
    checked = _checked(found, request, training_price) if article else []
    assumptions = [
        *_asked_lines(asked, here),
        *_token_lines(rows, here),
        *given.hour_assumptions(found),
        *given.batch_lines(hosted.batch),
        given.extras_line(here.extras),
    ]
    warnings = given.price_warnings(found, models)
    for line in warnings:
        talk(f"warning: {line}")
    if as_json:
        emit_json(_json(rows, found, assumptions, warnings, offers) | {"article": [asdict(one) for one in checked]})
        return
    comparison_tables(rows, found.evidence, assumptions)
    if article:
        article_table(checked)


def _checked(found: given.Inputs, request: RequestOptions, training_price: float | None) -> list[Checked]:
    return check_article(
        found.prices,
        input_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        training_usd_per_million_tokens=training_price,
    )


def _context_tokens(settings: Settings) -> float:
    return float(DEFAULT_K * settings.index.chunk_tokens)


def _asked_lines(asked: Asked, here: Here) -> list[str]:
    traffic = asked.traffic
    if here.utilisation is None:
        use = (
            f"whole machines around the clock ({HOURS_PER_MONTH:g} h a month); utilisation follows from the queries"
        )
    else:
        use = f"utilisation {here.utilisation:.0%} of the saturated throughput, over all hours paid"
    return [
        f"a query: {traffic.input_tokens:g} tokens in, {traffic.output_tokens:g} out, {traffic.context_tokens:g} "
        f"of passages for rag and hybrid, {traffic.cached_tokens:g} cached",
        f"a month: {asked.queries_per_month:,.10g} queries, {asked.updates_per_month:,.10g} updates, each a whole "
        f"retraining and {_documents(asked, here)}",
        use,
        f"hardware: {here.evidence.whereabouts.label}; figures of other hardware are not taken",
    ]


def _documents(asked: Asked, here: Here) -> str:
    count, measured = asked.documents(here.evidence), here.evidence.reindexing
    if asked.documents_per_update is None and measured is not None:
        return f"as many documents as were changed by {measured.run_id}: {count} (--documents-per-update)"
    return f"{'all' if count is None else count} documents"


def _token_lines(rows: list[Row], here: Here) -> list[str]:
    """What a million tokens cost here, those read and those written, with what they rest on."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        speed = speed_of(row.strategy, here)
        if row.month is None or row.month.utilisation == 0 or isinstance(speed, Unknown):
            continue
        hour, share = here.usd_per_hour.expected, row.month.utilisation
        read, written = (
            usd(usd_per_million_tokens(seconds, usd_per_hour=hour, utilisation=share))
            for seconds in (speed.throughput.seconds_per_prefill_token, speed.throughput.seconds_per_decode_token)
        )
        line = (
            f"a million tokens here at a utilisation of {share:.2%}: {read} read, {written} written "
            f"({'measured' if speed.measured else 'assumed'}: {speed.source})"
        )
        lines.setdefault(line, []).append(row.strategy)
    return [f"{', '.join(strategies)}: {line}" for line, strategies in lines.items()]


def _json(
    rows: list[Row],
    found: given.Inputs,
    assumptions: list[str],
    warnings: list[str],
    offers: list[HostedOffer],
) -> dict[str, Any]:
    return {
        "hardware": found.evidence.whereabouts.label,
        "usd_per_hour": asdict(found.usd_per_hour),
        "basis": found.basis,
        "prices_sha256": found.prices.sha256,
        "hosted": [offer.name for offer in offers],
        "rows": [asdict(row) for row in rows],
        "evaluated": [one.model_dump(mode="json") for one in found.evidence.newest_answers],
        "evaluated_on_other_hardware": [one.model_dump(mode="json") for one in found.evidence.elsewhere],
        "spent": [asdict(one) for one in found.evidence.spent],
        "assumptions": assumptions,
        "warnings": warnings,
    }
