"""A gateway that is killed loses no answer of a batch and gives none twice; several share the batches."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from local_llm.models import ModelStore
from local_llm.settings import Settings
from serving.answering.events import TokenUsage
from serving.batches.journal import Entry

from ..handmade_adapters import write_base
from .conftest import BASE
from .recording_engine import running
from .telling_engine import TellingEngine
from .test_batches import create, line, read, wait

REPOSITORY = Path(__file__).parents[2]
LINES = 400
AT_ONCE = 8  # that batches may have with the engine
DEADLINE_SECONDS = 120


@pytest.fixture
def listener(settings: Settings, tmp_path: Path) -> Iterator[socket.socket]:
    ModelStore(settings.place.ensure().models).import_folder(write_base(tmp_path / "model"), name=BASE)
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@contextmanager
def gateway(settings: Settings, listener: socket.socket) -> Iterator["subprocess.Popen[bytes]"]:
    """A gateway process of its own, killed when the block ends if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.gateway", "--fd", str(listener.fileno())],
        cwd=REPOSITORY,
        env={
            **os.environ, "LOCAL_LLM_HOME": str(settings.home),
            "LOCAL_LLM_SERVER__MAX_RUNNING_REQUESTS": str(2 * AT_ONCE),
        },
        pass_fds=(listener.fileno(),),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def client_of(listener: socket.socket) -> openai.OpenAI:
    port = listener.getsockname()[1]
    return openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=3, timeout=60)


@pytest.mark.slow
def test_a_killed_gateway_loses_no_answer_and_gives_none_twice(settings: Settings, listener: socket.socket) -> None:
    engine, client = TellingEngine(), client_of(listener)
    engine.pause_seconds = 0.05
    killed = 0
    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        with gateway(settings, listener):
            made = create(client, [line(f"r{n}", f"question {n}") for n in range(LINES)])
            for part in (1, 2):
                wait_for_answers(engine, LINES * part // 4)
                if part == 1:
                    told = client.batches.retrieve(made.id).request_counts
        killed += 1
        assert told is not None
        asked_before = len(engine.asked)
        assert asked_before < LINES
        with gateway(settings, listener):  # killed once more, on the way
            wait_for_answers(engine, LINES * 3 // 4)
        killed += 1
        with gateway(settings, listener):
            batch = wait(client, made)
            lines = read(client, batch.output_file_id)
    assert batch.status == "completed"
    assert [one["custom_id"] for one in lines] == [f"r{n}" for n in range(LINES)]
    assert batch.request_counts is not None
    assert batch.request_counts.completed == LINES
    counts = engine.counts()
    assert set(counts) == {f"question {n}" for n in range(LINES)}
    # Only what was in flight at a kill was asked again.
    assert counts.total() - LINES <= killed * AT_ONCE
    assert list(settings.place.batches.iterdir()) == []


@pytest.mark.slow
def test_a_gateway_that_is_told_to_stop_leaves_its_batches_to_others_at_once(
    settings: Settings, listener: socket.socket
) -> None:
    engine, client = TellingEngine(), client_of(listener)
    engine.pause_seconds = 0.05
    with (
        running(engine, settings.place.socket("engine")),  # type: ignore[arg-type]
        gateway(settings, listener) as first,
    ):
        made = create(client, [line(f"r{n}", f"question {n}") for n in range(LINES)])
        with gateway(settings, listener):
            wait_for_answers(engine, LINES // 4)
            # They share what there is: the one that does not hold the batch leaves it alone.
            assert len(engine.asked) == len(engine.counts())
            first.send_signal(signal.SIGTERM)
            first.wait(30)
            batch = wait(client, made)
    assert batch.status == "completed"
    assert engine.counts().total() - LINES <= AT_ONCE


def test_a_line_cut_off_by_a_kill_is_asked_again(settings: Settings, listener: socket.socket) -> None:
    """And one that a holder thought dead wrote late changes nothing."""
    engine, client = TellingEngine(), client_of(listener)
    engine.fail = {"second": [503] * 1000}
    with running(engine, settings.place.socket("engine")):  # type: ignore[arg-type]
        with gateway(settings, listener):
            made = create(client, [line("a", "first"), line("b", "second")])
            wait(
                client, made, lambda batch: batch.request_counts is not None and batch.request_counts.completed == 1
            )
        (journal,) = (settings.place.batches / made.id).iterdir()
        with journal.open("ab") as handle:
            handle.write(Entry(2, True, TokenUsage(), b'{"custom_id": "b", "response": 1}').record()[:-7])
        late = json.dumps({"custom_id": "a", "late": True}).encode()
        (journal.parent / "zzz.journal").write_bytes(Entry(1, True, TokenUsage(), late).record())
        engine.fail = {}
        with gateway(settings, listener):
            batch = wait(client, made)
            lines = read(client, batch.output_file_id)
    assert [one["custom_id"] for one in lines] == ["a", "b"]
    assert all(one["response"]["status_code"] == 200 for one in lines)


def wait_for_answers(engine: TellingEngine, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(engine.asked) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
