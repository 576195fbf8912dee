"""A client that leaves while it is answered frees the engine within a second, and nothing is kept of it."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import httpx
import openai
import pytest
import uvicorn
from sqlalchemy import func, select

from local_llm.models import ModelStore
from local_llm.settings import Settings
from local_llm.state import ResponseRow, State
from serving.gateway import create_app

from ..handmade_adapters import write_base
from .conftest import BASE
from .recording_engine import SmallEngine, running
from .replies import Reply


@pytest.fixture
def engine(settings: Settings) -> Iterator[SmallEngine]:
    small = SmallEngine()
    small.reply = Reply("word " * 200, pause_seconds=0.05)
    with running(small, settings.place.ensure().socket("engine")):
        yield small


@pytest.fixture
def url(settings: Settings, state: State, engine: SmallEngine, tmp_path: Path) -> Iterator[str]:
    """The gateway as it runs: behind a socket, on uvicorn."""
    ModelStore(settings.place.models).import_folder(write_base(tmp_path / "model"), name=BASE)
    config = uvicorn.Config(create_app(settings), loop="uvloop", http="httptools", log_level="warning")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started, seconds=10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join()


def wait_for(holds: Callable[[], bool], *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stream_that_is_left_is_over_and_not_kept(url: str, engine: SmallEngine, state: State) -> None:
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    with client.responses.create(model=BASE, input="Go", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        assert engine.answering == 1
    wait_for(lambda: engine.answering == 0, seconds=1)
    assert kept(state) == 0


def test_an_answer_that_nobody_waits_for_is_over_and_not_kept(url: str, engine: SmallEngine, state: State) -> None:
    engine.reply = Reply("late", pause_seconds=30)
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0, timeout=httpx.Timeout(0.5))
    with pytest.raises(openai.APITimeoutError):
        client.responses.create(model=BASE, input="Go")
    wait_for(lambda: engine.answering == 0, seconds=1)
    assert kept(state) == 0


def test_events_are_sent_as_they_come(url: str, engine: SmallEngine, state: State) -> None:
    engine.reply = Reply("word " * 20, pause_seconds=0.05)
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    started = time.monotonic()
    came = []
    for event in client.responses.create(model=BASE, input="Go", stream=True):
        if event.type == "response.output_text.delta":
            came.append(time.monotonic() - started)
    assert came[0] < came[-1] / 2
    assert len(came) == 20
    assert kept(state) == 1


def kept(state: State) -> int:
    with state.reading() as session:
        return session.scalar(select(func.count()).select_from(ResponseRow)) or 0
