"""Clients that come back by themselves when they are told to: their users notice nothing."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import BASE
from .real_gateway import CHAT, Running, engine_at, running, wait_for
from .slow_engine import SlowEngine

HELD_SECONDS = 0.8


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine(pieces=8, pause_seconds=HELD_SECONDS / 8)


@pytest.fixture
def server(tmp_path: Path, engine: SlowEngine) -> Iterator[Running]:
    """One answer at a time, and nobody may wait for it."""
    with (
        running(tmp_path, server__max_running_requests=1, server__max_waiting_requests=0) as made,
        engine_at(made.settings.place.socket("engine"), engine.answer),
    ):
        yield made


@pytest.fixture
def somebody(server: Running, engine: SlowEngine) -> Iterator[openai.OpenAI]:
    """Is being answered; refused once, others have to come back."""
    client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0)
    thread = threading.Thread(target=lambda: client.chat.completions.create(**CHAT))
    thread.start()
    wait_for(lambda: engine.running == 1)
    yield client
    thread.join()


def by_openai(url: str) -> Any:
    return openai.OpenAI(api_key="none", base_url=url).chat.completions.create(**CHAT).choices[0].message.content


def by_openai_async(url: str) -> Any:
    async def ask() -> Any:
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:
            return (await client.chat.completions.create(**CHAT)).choices[0].message.content

    return asyncio.run(ask())


def by_langchain(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=BASE, base_url=url, api_key="none").invoke("Hello").content


def by_litellm(url: str) -> Any:
    import litellm

    answer = litellm.completion(
        model=f"openai/{BASE}", messages=CHAT["messages"], api_base=url, api_key="none", max_retries=2
    )
    return answer.choices[0].message.content


@pytest.mark.parametrize("ask", [by_openai, by_openai_async, by_langchain, by_litellm])
def test_a_client_that_was_one_too_many_comes_back_when_it_is_told_to(
    server: Running, engine: SlowEngine, somebody: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it fetches prices when it is imported
    with pytest.raises(openai.RateLimitError) as refused:
        somebody.chat.completions.create(**CHAT)
    assert refused.value.response.headers["retry-after"] == "1"
    began = time.monotonic()
    assert ask(f"{server.url}/v1").startswith("Aye.")
    assert time.monotonic() - began >= 1, "sooner than it was told to"
    assert engine.begun == 2
