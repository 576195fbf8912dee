"""The article's ranges held against what they could follow from.

The article that this project makes real gives ranges of cost and latency for fine-tuning, RAG and both, and not
what they were reckoned from. Here each is taken back to the inputs that give it, at the prices of the price file.
"""

from dataclasses import dataclass
from typing import Literal

from local_llm.costs.figure import refuse_not_positive
from local_llm.costs.prices import Prices
from local_llm.costs.request import TokenPrices, hosted_usd
from local_llm.costs.units import TOKENS_PER_MILLION
from local_llm.errors import InvalidInputError

# Of the models that the article names.
TUNED, BASE, ENCODER = "ft:gpt-4o-mini-2024-07-18", "gpt-4o-mini", "text-embedding-3-small"
PASSAGES = 5  # the article's k
# The longest passages that usual encoders read (bge); ours are shorter.
LONG_PASSAGE_TOKENS = 512

# only from: inputs give it, but not those that the article names. cannot: no input that prices or lengths are.
Verdict = Literal["follows", "only from", "cannot"]


@dataclass(frozen=True)
class Range:
    low: float
    high: float

    def plus(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)


# US dollars, and milliseconds.
TRAINING_RUN_USD = Range(25, 100)
TUNING_SET_UP_USD = Range(25, 500)
RAG_SET_UP_USD = Range(50, 200)
HYBRID_SET_UP_USD = Range(75, 700)
TUNED_QUERY_USD = Range(0.0001, 0.003)
RAG_QUERY_USD = Range(0.003, 0.015)
HYBRID_QUERY_USD = Range(0.003, 0.02)
TUNED_LATENCY_MS = Range(200, 500)
RAG_LATENCY_MS = Range(500, 2000)
HYBRID_LATENCY_MS = Range(600, 2500)


@dataclass(frozen=True)
class Checked:
    factor: str
    range: str
    verdict: Verdict
    because: str


def tokens_for(usd: float, *, usd_per_million_tokens: float) -> float:
    """usd / price x 10^6.

    Raises: InvalidInputError for a price of zero.
    """
    refuse_not_positive(usd_per_million_tokens=usd_per_million_tokens)
    return usd / usd_per_million_tokens * TOKENS_PER_MILLION


def context_tokens_for(usd: float, prices: TokenPrices, *, input_tokens: float, output_tokens: float) -> float:
    """Tokens of passages that bring a question of `input_tokens` with its answer to `usd`.

    (usd - usd of question and answer) / price of input x 10^6.

    Raises: InvalidInputError if question and answer alone cost more.
    """
    bare = hosted_usd(prices, input_tokens=input_tokens, output_tokens=output_tokens)
    if bare > usd:
        raise InvalidInputError(
            f"question and answer alone cost ${bare:.6f}, more than ${usd:g}",
            hint="set --input-tokens and --output-tokens lower",
        )
    return tokens_for(usd - bare, usd_per_million_tokens=prices.input_usd_per_million_tokens)


def check_article(
    prices: Prices, *, input_tokens: float, output_tokens: float, training_usd_per_million_tokens: float | None
) -> list[Checked]:
    """Each range with what it follows from. `input_tokens` of the question, without passages.

    Raises: InvalidInputError where question and answer alone are beyond the article's ranges.
    """
    refuse_not_positive(input_tokens=input_tokens, output_tokens=output_tokens)
    lengths = (input_tokens, output_tokens)
    return [
        _training(training_usd_per_million_tokens),
        _indexing(prices),
        _sum("set-up, hybrid", HYBRID_SET_UP_USD, TUNING_SET_UP_USD, RAG_SET_UP_USD, "$"),
        _tuned_query(prices, *lengths),
        _rag_query(prices, *lengths),
        _sum("a query, hybrid", HYBRID_QUERY_USD, TUNED_QUERY_USD, RAG_QUERY_USD, "$"),
        *_updates(prices),
        *_latencies(),
    ]


def _training(price: float | None) -> Checked:
    shown = "$25-100 a run, up to $500+"
    if price is None:
        because = "sources disagree on the price of training: set cost.hosted_training_usd_per_million_tokens"
        return Checked("set-up, fine-tuning", shown, "cannot", because)
    low, high = (tokens_for(usd, usd_per_million_tokens=price) for usd in (25, 100))
    because = f"{_millions(low)} to {_millions(high)} tokens in all epochs, at ${price:g} a million, give $25-100"
    return Checked("set-up, fine-tuning", shown, "follows", because)


def _indexing(prices: Prices) -> Checked:
    price = prices.model(ENCODER).input_usd_per_million_tokens
    low, high = (tokens_for(usd, usd_per_million_tokens=price) for usd in (RAG_SET_UP_USD.low, RAG_SET_UP_USD.high))
    because = f"{_millions(low)} to {_millions(high)} tokens encoded by {ENCODER}; a million costs ${price:g}"
    return Checked("set-up, RAG", "$50-200", "only from", because)


def _tuned_query(prices: Prices, input_tokens: float, output_tokens: float) -> Checked:
    one = hosted_usd(prices.model(TUNED).token_prices, input_tokens=input_tokens, output_tokens=output_tokens)
    if one == 0:
        return Checked(
            "a query, fine-tuning", "$0.0001-0.003", "cannot", f"{TUNED} costs nothing in the price file"
        )
    spans = " to ".join(
        f"{input_tokens * usd / one:,.0f} in and {output_tokens * usd / one:,.0f} out"
        for usd in (TUNED_QUERY_USD.low, TUNED_QUERY_USD.high)
    )
    because = f"{spans} by {TUNED}; {input_tokens:g} in and {output_tokens:g} out cost ${one:.6f}"
    return Checked("a query, fine-tuning", "$0.0001-0.003", "follows", because)


def _rag_query(prices: Prices, input_tokens: float, output_tokens: float) -> Checked:
    model = prices.model(BASE).token_prices
    low, high = (
        context_tokens_for(usd, model, input_tokens=input_tokens, output_tokens=output_tokens)
        for usd in (RAG_QUERY_USD.low, RAG_QUERY_USD.high)
    )
    usual = hosted_usd(
        model, input_tokens=input_tokens + PASSAGES * LONG_PASSAGE_TOKENS, output_tokens=output_tokens
    )
    because = (
        f"{low:,.0f} to {high:,.0f} tokens of context by {BASE}, {low / PASSAGES:,.0f} to {high / PASSAGES:,.0f} "
        f"for each of {PASSAGES} passages; {PASSAGES} of {LONG_PASSAGE_TOKENS} tokens cost ${usual:.6f} a query"
    )
    verdict: Verdict = "follows" if usual >= RAG_QUERY_USD.low else "only from"
    return Checked("a query, RAG", "$0.003-0.015", verdict, because)


def _updates(prices: Prices) -> list[Checked]:
    price = prices.model(ENCODER).input_usd_per_million_tokens
    return [
        Checked("update, fine-tuning", "$25-500 a retrain", "follows", "the set-up once more"),
        Checked(
            "update, RAG",
            "$0",
            "only from",
            f"documents too few to count: a million tokens encoded cost ${price:g}",
        ),
        Checked("update, hybrid", "$25-500 + indexing", "follows", "the sum of both"),
    ]


def _latencies() -> list[Checked]:
    alone = "no price or length gives a latency: it is measured, on a model and a machine that are not named"
    both = TUNED_LATENCY_MS.plus(RAG_LATENCY_MS)
    return [
        Checked("latency, fine-tuning", "200-500 ms", "cannot", alone),
        Checked("latency, RAG", "500-2,000 ms", "cannot", alone),
        Checked(
            "latency, hybrid",
            "600-2,500 ms",
            "cannot",
            f"{alone}; its ends beside the sums of the others': {HYBRID_LATENCY_MS.low:g} and {both.low:g}, "
            f"{HYBRID_LATENCY_MS.high:g} and {both.high:g}",
        ),
    ]


def _sum(factor: str, shown: Range, one: Range, other: Range, unit: str) -> Checked:
    both = one.plus(other)
    because = f"fine-tuning and RAG together are {unit}{both.low:g} to {unit}{both.high:g}, told to one digit"
    same = _one_digit(both.low) == _one_digit(shown.low) and _one_digit(both.high) == _one_digit(shown.high)
    return Checked(factor, f"{unit}{shown.low:g}-{shown.high:g}", "follows" if same else "cannot", because)


def _one_digit(value: float) -> float:
    return float(f"{value:.0e}")


def _millions(tokens: float) -> str:
    return f"{tokens / TOKENS_PER_MILLION:,.1f} million"
