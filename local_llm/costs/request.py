"""What a hosted model charges for tokens."""

from dataclasses import dataclass

from local_llm.costs.units import TOKENS_PER_MILLION


@dataclass(frozen=True)
class TokenPrices:
    """US dollars a million tokens. `cached_input` None: the vendor has no lower price for it."""

    input_usd_per_million_tokens: float
    output_usd_per_million_tokens: float
    cached_input_usd_per_million_tokens: float | None = None


def hosted_usd(
    prices: TokenPrices, *, input_tokens: float, output_tokens: float, cached_tokens: float = 0.0
) -> float:
    """Tokens x price / 10^6. `cached_tokens` are those of `input_tokens` that the vendor had in its cache.

    Raises: ValueError for negative counts, or more cached tokens than there are.
    """
    if min(input_tokens, output_tokens, cached_tokens) < 0 or cached_tokens > input_tokens:
        raise ValueError(f"tokens: {input_tokens} in, {cached_tokens} of them cached, {output_tokens} out")
    cached_price = prices.cached_input_usd_per_million_tokens
    if cached_price is None:
        cached_price = prices.input_usd_per_million_tokens
    usd = (input_tokens - cached_tokens) * prices.input_usd_per_million_tokens
    usd += cached_tokens * cached_price + output_tokens * prices.output_usd_per_million_tokens
    return usd / TOKENS_PER_MILLION
