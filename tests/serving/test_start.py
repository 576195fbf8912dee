"""`python -m serving` on a box that is not fit for it: one message with what mends it, and nothing left behind."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from local_llm.locks import exclusive_lock
from local_llm.models import ModelStore
from local_llm.settings import Settings

REPOSITORY = Path(__file__).parent.parent.parent


def serve(settings: Settings, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home), **variables}
    return subprocess.run(
        [sys.executable, "-m", "serving", *options],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def models(settings: Settings, tmp_path: Path) -> None:
    store = ModelStore(settings.place.ensure().models)
    for name, file, value in (
        ("SmolLM2-135M-Instruct", "config.json", {"architectures": ["LlamaForCausalLM"]}),
        ("all-MiniLM-L6-v2", "modules.json", []),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_text(json.dumps(value))
        store.import_folder(folder, name=name)


def assert_told(done: subprocess.CompletedProcess[str], message: str, mend: str) -> None:
    assert done.returncode == 1
    error, hint = [line for line in done.stderr.splitlines() if line.startswith(("error:", "  try:"))]
    assert message in error
    assert mend in hint
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_missing_model_says_how_to_import_it(settings: Settings) -> None:
    assert_told(serve(settings), "there is no model 'all-MiniLM-L6-v2'", "local-llm models import")
    assert not (settings.place.run / "server.json").exists()


def test_a_damaged_model_is_refused(settings: Settings, models: None) -> None:
    (settings.place.models / "SmolLM2-135M-Instruct" / "config.json").write_text("{}")
    assert_told(serve(settings), "config.json does not match its hash", "import it again")


def test_a_port_in_use_names_the_port(settings: Settings, models: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_told(serve(settings, "--port", port), f"port {port}", "--port")


def test_an_address_beyond_loopback_needs_a_key(settings: Settings, models: None) -> None:
    assert_told(serve(settings, "--host", "0.0.0.0", "--port", "0"), "loopback only", "local-llm keys create")


def test_too_little_memory_says_what_would_fit(settings: Settings, models: None) -> None:
    done = serve(settings, LOCAL_LLM_ENGINE__KV_CACHE_GIB="100000")
    assert_told(done, "100000 key-value cache", "engine.kv_cache_gib")


def test_wrong_settings_are_all_told(settings: Settings) -> None:
    done = serve(settings, "--port", "http", LOCAL_LLM_ENGINE__MAX_LORAS="many")
    assert_told(done, "server.port = 'http'", "docs/settings.md")
    assert "engine.max_loras = 'many'" in done.stderr


def test_a_device_that_cannot_be_shared_as_asked_is_told(settings: Settings, models: None) -> None:
    done = serve(settings, "--port", "0", LOCAL_LLM_GPU__TRAINING_MEMORY_SHARE="0.8")
    assert_told(done, "leaves the engine 0.05 of the GPU's memory", "gpu.training_memory_share")
    done = serve(settings, "--port", "0", LOCAL_LLM_GPU__SHARING="separate")
    assert_told(done, "gpu.engine_devices names no device", "gpu.engine_devices")


def test_engine_settings_that_cannot_be_are_told(settings: Settings, models: None) -> None:
    done = serve(settings, "--port", "0", LOCAL_LLM_ENGINE__ARGUMENTS="['--uds', 'x.sock']")
    assert_told(done, "engine.arguments: --uds", "the gateway reaches the engine there")
    done = serve(settings, "--port", "0", LOCAL_LLM_ENGINE__CHAT_TEMPLATE="/nowhere.jinja")
    assert_told(done, "engine.chat_template: there is no file /nowhere.jinja", "Jinja")


def test_a_second_server_on_the_same_home_is_refused(settings: Settings, models: None) -> None:
    with exclusive_lock(settings.place.run / "server.lock", "the server"):
        assert_told(serve(settings, "--port", "0"), f"held by process {os.getpid()}", "stop that process")


@pytest.mark.engine
def test_an_engine_that_cannot_start_ends_the_server_with_its_last_words(settings: Settings, models: None) -> None:
    done = serve(settings, "--port", "0", LOCAL_LLM_ENGINE__ARGUMENTS="['--no-such-option']")
    assert_told(done, "the engine does not start", "engine.log")
    assert "no-such-option" in done.stderr
