"""A row of the comparison for a hosted model: tokens by the prices of the price file."""

import datetime
from dataclasses import dataclass

from local_llm.costs.evidence import Evidence
from local_llm.costs.figure import Figure, exactly, refuse_negative
from local_llm.costs.prices import HostedModel, Prices, batched
from local_llm.costs.request import hosted_usd
from local_llm.costs.row import Asked, Row, Told, Unknown, needed_data, whole
from local_llm.costs.units import TOKENS_PER_MILLION
from local_llm.errors import NotFoundError
from local_llm.profiles import RETRIEVING, TUNED, Strategy

UNEVALUATED = (
    "not evaluated: run local-llm evaluate with --endpoint or --recorded, named as in the price list, or hand it "
    "on with --evidence"
)


@dataclass(frozen=True)
class HostedOffer:
    """A model, itself once fine-tuned, and what encodes documents. None: the vendor has none, or no price is known.

    `usd_per_month` is what the vendor takes whatever is asked: for the storage of vectors, say. `batch`: answers
    and vectors are asked for in files, which may take hours.
    """

    base: HostedModel | None
    tuned: HostedModel | None
    encoder: HostedModel | None
    today: datetime.date
    training_usd_per_million_tokens: float | None = None
    training_tokens: float | None = None
    indexing_tokens: float | None = None
    usd_per_month: float = 0.0
    batch: bool = False

    def __post_init__(self) -> None:
        refuse_negative(
            training_usd_per_million_tokens=self.training_usd_per_million_tokens,
            training_tokens=self.training_tokens,
            indexing_tokens=self.indexing_tokens,
            hosted_usd_per_month=self.usd_per_month,
        )

    @property
    def name(self) -> str:
        found = self.base or self.tuned
        return "" if found is None else found.model


def offer_of(
    prices: Prices,
    name: str,
    *,
    encoder: str | None,
    today: datetime.date,
    training_usd_per_million_tokens: float | None = None,
    training_tokens: float | None = None,
    indexing_tokens: float | None = None,
    usd_per_month: float = 0.0,
    batch: bool = False,
) -> HostedOffer:
    """By the name of either the base or the fine-tuned model.

    Raises: NotFoundError for a name without a row.
    """
    row = prices.model(name)
    base = prices.base_of(name)
    tuned = row if base is not None else None
    if base is None:
        base, tuned = row, _row(prices, row.fine_tuned_model)
    return HostedOffer(
        base=base,
        tuned=tuned,
        encoder=_row(prices, encoder),
        today=today,
        training_usd_per_million_tokens=training_usd_per_million_tokens,
        training_tokens=training_tokens,
        indexing_tokens=indexing_tokens,
        usd_per_month=usd_per_month,
        batch=batch,
    )


def hosted_row(strategy: Strategy, asked: Asked, offer: HostedOffer, evidence: Evidence) -> Row:
    told = Told()
    per_query = told.noting("per query", _per_query(strategy, asked, offer))
    set_up = told.noting("set-up", _set_up(strategy, offer, evidence, 1.0))
    update = told.noting("update", _set_up(strategy, offer, evidence, asked.share_of_documents(evidence)))
    evaluated = evidence.answer(strategy, offer.name)
    if evaluated is None and offer.tuned is not None:
        evaluated = evidence.answer(strategy, offer.tuned.model)
    latency = None if offer.batch else told.latency(evaluated, UNEVALUATED)
    if offer.batch:
        told.note("latency", "a batch is answered within hours")
    return Row(
        strategy=strategy,
        where=offer.name,
        set_up_usd=set_up,
        usd_per_query=per_query,
        latency_seconds=latency,
        accepted_rate=told.accepted(evaluated, UNEVALUATED),
        update_usd=update,
        data_needed=needed_data(strategy, evidence),
        cites=strategy in RETRIEVING,
        usd_per_month=told.noting("month", _month(asked, per_query, update, offer)),
        month=None,
        missing=told.missing,
    )


def usd_per_request(model: HostedModel, asked: Asked, strategy: Strategy) -> float:
    traffic = asked.traffic_of(strategy)
    return hosted_usd(
        model.token_prices,
        input_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        cached_tokens=traffic.cached_tokens,
    )


def _per_query(strategy: Strategy, asked: Asked, offer: HostedOffer) -> Figure | Unknown:
    tuned = strategy in TUNED
    model = offer.tuned if tuned else offer.base
    if model is None or model.output_usd_per_million_tokens is None:
        return Unknown((f"unpriced: no price of {offer.name} {'fine-tuned' if tuned else ''}".strip(),))
    priced = batched(model) if offer.batch else model
    if priced is None:
        return Unknown((f"unpriced: no price of {model.model} in batches",))
    return exactly(usd_per_request(priced, asked, strategy), "listed", f"{model.model}, {model.as_of}")


def _month(asked: Asked, per_query: Figure | None, update: Figure | None, offer: HostedOffer) -> Figure | Unknown:
    if per_query is None:
        return Unknown(("unpriced, as its queries are",))
    queries = per_query.times(asked.queries_per_month)
    if asked.updates_per_month == 0:
        return queries.plus(exactly(offer.usd_per_month, "listed", ""))
    if update is None:
        return Unknown(("unpriced, as its updates are",))
    return queries.plus(update.times(asked.updates_per_month)).plus(exactly(offer.usd_per_month, "listed", ""))


def _set_up(strategy: Strategy, offer: HostedOffer, evidence: Evidence, share: float) -> Figure | Unknown:
    parts: list[Figure | Unknown] = []
    if strategy in TUNED:
        parts.append(_training(offer, evidence))
    if strategy in RETRIEVING:
        parts.append(_indexing(offer, evidence, share))
    return whole(parts)


def _training(offer: HostedOffer, evidence: Evidence) -> Figure | Unknown:
    """Tokens of the file in every epoch x price: what a hosted API bills."""
    if offer.tuned is None:
        return Unknown((f"unpriced: no price of {offer.name} fine-tuned",))
    closed = offer.tuned.no_new_training_after
    if closed is not None and closed < offer.today:
        return Unknown((f"{offer.tuned.model} cannot be trained any more since {closed}",))
    price = offer.tuned.training_usd_per_million_tokens
    if offer.training_usd_per_million_tokens is not None:
        price = offer.training_usd_per_million_tokens
    if price is None:
        return Unknown(("unpriced: sources disagree on training; set cost.hosted_training_usd_per_million_tokens",))
    tokens = _tokens(offer.training_tokens, None if evidence.training is None else evidence.training.tokens)
    if tokens is None:
        return Unknown(("how many tokens are trained is not known; train once here, or set --training-tokens",))
    return exactly(tokens / TOKENS_PER_MILLION * price, "listed", f"{tokens:,.0f} tokens trained")


def _indexing(offer: HostedOffer, evidence: Evidence, share: float) -> Figure | Unknown:
    if offer.encoder is None:
        return Unknown(("unpriced: no price of an embedding model; set --hosted-encoder",))
    tokens = _tokens(offer.indexing_tokens, None if evidence.indexing is None else evidence.indexing.tokens)
    if tokens is None:
        return Unknown(("how many tokens are encoded is not known; index once here, or set --indexing-tokens",))
    priced = batched(offer.encoder) if offer.batch else offer.encoder
    if priced is None:
        return Unknown((f"unpriced: no price of {offer.encoder.model} in batches",))
    price = priced.input_usd_per_million_tokens
    return exactly(
        share * tokens / TOKENS_PER_MILLION * price, "listed", f"{offer.encoder.model}, {offer.encoder.as_of}"
    )


def _tokens(given: float | None, measured: int | None) -> float | None:
    return given if given is not None else measured


def _row(prices: Prices, name: str | None) -> HostedModel | None:
    """None where the file has no such row: unpriced, and told as that."""
    if name is None:
        return None
    try:
        return prices.model(name)
    except NotFoundError:
        return None
