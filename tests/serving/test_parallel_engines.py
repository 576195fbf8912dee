"""Engines of several processes, and of several machines, with vLLM itself: the same answers as one process gives.

Processors stand for GPUs, and processes with addresses of their own for machines.
"""

import os
import shlex
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.hardware import gpu_name
from local_llm.models import Model, ModelStore
from local_llm.permissions import local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import open_state
from serving import engine, engine_layout
from serving.gateway import create_app
from serving.readiness import HOLDS_SECONDS

from .real_engines import (
    ANSWER_TOKENS,
    PROMPT,
    TINY,
    RealEngine,
    end,
    greedy,
    started,
    write_tiny,
    write_tiny_adapter,
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(gpu_name() is not None, reason="stands processors in for GPUs; there are GPUs here"),
]

TUNED = f"ft:{TINY}:local:parallel:abcd1234"
BASIC: dict[str, Any] = {
    "engine.model": TINY, "engine.max_model_tokens": 128, "engine.dtype": "float32", "engine.kv_cache_gib": 1,
    "engine.max_loras": 2, "engine.max_lora_rank": 8, "engine.max_num_seqs": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def settings_of(home: Path, **changes: Any) -> Settings:
    engine_changes = {f"engine.{name}": value for name, value in changes.items()}
    return load_settings(environment={"LOCAL_LLM_HOME": str(home)}, overrides=BASIC | engine_changes)


def import_tiny(home: Path, tiny: Path) -> Model:
    return ModelStore(settings_of(home).place.ensure().models).import_folder(tiny, name=TINY)


def line_of(settings: Settings, model: Model, socket_path: Path) -> list[str]:
    engine_layout.require_layout(settings.engine, model)
    return engine.command(settings, model, socket_path)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def on_a_port(stack: ExitStack, settings: Settings, line: list[str], log: Path) -> RealEngine:
    """As it would be started here, but for the port: an engine elsewhere."""
    port, place = free_port(), line.index("--uds")
    line = [*line[:place], "--host", "127.0.0.1", "--port", str(port), *line[place + 2 :]]
    process = stack.enter_context(started(line, engine.environment(settings), log))
    return RealEngine(process, log, f"http://127.0.0.1:{port}")


def on_two_machines(stack: ExitStack, settings: Settings, line: list[str], folder: Path) -> RealEngine:
    """The second runs what we tell people to run there."""
    told = engine_layout.line_elsewhere(line, settings.engine, 1).replace("INTERFACE", "lo")
    theirs = {**os.environ, "PATH": f"{vllm_command(folder)}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    stack.enter_context(started(["env", *shlex.split(told)], theirs, folder / "second.log"))
    return on_a_port(stack, settings, line, folder / "first.log")


def vllm_command(folder: Path) -> Path:
    """A folder with the command `vllm`. The CPU build has it under another name, and it asks for its version."""
    named = folder / "bin" / "vllm-0.32.0.dist-info"
    named.mkdir(parents=True)
    (named / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    program = folder / "bin" / "vllm"
    program.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{named.parent}:$PYTHONPATH"\n'
        f'exec {sys.executable} -m vllm.entrypoints.cli.main "$@"\n'
    )
    program.chmod(0o755)
    return named.parent


def publish(settings: Settings, adapter: Path) -> None:
    state = open_state(settings.place)
    AdapterRegistry(settings, state).publish(
        adapter,
        base=ModelStore(settings.place.models).get(TINY),
        name=TUNED,
        project_id=local_admin(state.local_project_id()).project_id,
        run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}),
    )
    state.close()


def asked(gateway: TestClient, model: str) -> tuple[int, list[int] | None]:
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True,
    }  # fmt: skip
    answer = gateway.post("/v1/completions", json=body)
    return answer.status_code, answer.json()["choices"][0]["token_ids"] if answer.is_success else None


def test_two_machines_and_two_copies_answer_as_one_process_and_one_engine_survives_the_other(
    tiny: Path, tmp_path: Path
) -> None:
    """Once, because each start takes most of a minute: on two machines, each layer is held together; of two copies,
    each is asked; both engines are behind one gateway, and load its adapter; then one is killed."""
    home, adapter = tmp_path / "home", write_tiny_adapter(tmp_path / "adapter")
    model = import_tiny(home, tiny)
    plain, tuned = greedy(tiny), greedy(tiny, adapter)
    assert plain != tuned
    meeting = ["--master-port", str(free_port())]
    apart = settings_of(home, gpus=2, hosts=["127.0.0.1", "127.0.0.2"], arguments=meeting)
    copies = settings_of(home, data_parallel=2)
    with ExitStack() as stack:
        split = on_two_machines(stack, apart, line_of(apart, model, tmp_path), tmp_path)
        copied = on_a_port(stack, copies, line_of(copies, model, tmp_path), tmp_path / "copied.log")
        for one in (split, copied):
            one.wait()
        assert split.ask() == plain
        assert [copied.ask() for _ in range(4)] == [plain] * 4

        settings = settings_of(home, urls=[split.base_url, copied.base_url])
        publish(settings, adapter)
        app = create_app(settings)
        with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False) as gateway:
            with ThreadPoolExecutor(8) as people:
                answers = list(people.map(lambda number: asked(gateway, (TINY, TUNED)[number % 2]), range(16)))
            assert answers == [(200, plain), (200, tuned)] * 8
            for one in (split, copied):
                assert TUNED in one.models()
                assert one.ask(TUNED) == tuned

            end(copied.process)
            time.sleep(HOLDS_SECONDS)
            for _ in range(4):  # the first may be the one that finds out
                asked(gateway, TINY)
            assert [asked(gateway, name) for name in (TINY, TUNED)] == [(200, plain), (200, tuned)]
            assert gateway.get("/ready").json()["engines"] == ["up", "down"]
