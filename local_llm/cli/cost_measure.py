"""local-llm cost measure: what the running server can do, for what its tokens cost."""

import asyncio
import os
from typing import Annotated

import typer

from local_llm import ledger
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, talk
from local_llm.cli.serving import server_trust, server_url
from local_llm.costs.measure import Measured, measure
from local_llm.errors import InvalidInputError
from local_llm.hardware import this_hardware


def measure_throughput(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="`base` or an `ft:` name; profiles search, which is not measured.")
    ] = "base",
    seconds: Annotated[float, typer.Option(help="Length of each run; there are about ten.")] = 30.0,
    concurrency: Annotated[int, typer.Option(help="Most requests at once that are tried.")] = 256,
    prompt_words: Annotated[int, typer.Option(help="Words of the longest prompt.")] = 1024,
    answer_tokens: Annotated[int, typer.Option(help="Tokens of the longest answer.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Loads the running server until more requests bring no more tokens, and notes its throughput in the ledger.

    Nothing else should use the server meanwhile. What comes out holds for this hardware and model only.
    """
    box: CommandContext = context.obj
    if box.settings.engine.urls:
        raise InvalidInputError(
            "the engines of this server run elsewhere: what they do says nothing of this machine",
            hint="measure on the machine of the engine, without engine.urls",
        )
    found = asyncio.run(_measure(box, model, seconds, concurrency, prompt_words, answer_tokens))
    facts = {
        **found.facts(),
        "model": box.settings.engine.model if model == "base" else model,
        "is_adapter": model.startswith("ft:"),
        "gpus": box.settings.engine.all_gpus,
    }
    run_id = ledger.record(box.state, box.caller.project_id, "throughput", facts)
    emit({"id": run_id, **facts}, _told(found, run_id), as_json=as_json)


async def _measure(
    box: CommandContext, model: str, seconds: float, concurrency: int, prompt_words: int, answer_tokens: int
) -> Measured:
    import openai

    async with openai.AsyncOpenAI(
        base_url=server_url(box.settings) + "/v1",
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        max_retries=0,  # a question asked twice would be counted once
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False, verify=server_trust(box.settings)),
    ) as client:
        return await measure(
            client,
            model,
            seconds=seconds,
            highest_concurrency=concurrency,
            prompt_words=prompt_words,
            answer_tokens=answer_tokens,
            tell=talk,
        )


def _told(found: Measured, run_id: str) -> str:
    throughput = found.throughput
    prefill = throughput.seconds_per_prefill_token
    reading = "too fast to be seen" if prefill == 0 else f"{1 / prefill:,.1f} tokens/s"
    return (
        f"saturated at {found.concurrency} requests at once on {this_hardware()}\n"
        f"prefill alone: {reading}; decode alone: {1 / throughput.seconds_per_decode_token:,.1f} tokens/s\n"
        f"noted as {run_id}"
    )
