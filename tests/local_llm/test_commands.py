"""Commands as people and machines run them: exit codes, JSON on stdout, one message on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_llm.models import ModelStore
from local_llm.settings import Settings

from ..handmade_adapters import lora, write_adapter, write_base


@pytest.fixture
def run(settings: Settings):
    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home)}
        line = [sys.executable, "-m", "local_llm", *arguments]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run_command


@pytest.fixture
def base(settings: Settings, tmp_path: Path) -> str:
    folder = write_base(tmp_path / "tiny")
    ModelStore(settings.place.ensure().models).import_folder(folder, name="tiny")
    return "tiny"


def adapter_folder(tmp_path: Path, **changes: Any) -> Path:
    return write_adapter(tmp_path / "adapter", **changes)


def assert_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_model_folder_is_imported_listed_and_verified(run, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
    assert json.loads(run("models", "import", str(folder), "--licence", "MIT", "--json").stdout)["kind"] == "base"
    (row,) = json.loads(run("models", "list", "--json").stdout)
    assert (row["name"], row["licence"]) == ("mine", "MIT")
    assert run("models", "verify").returncode == 0
    (settings.place.models / "mine" / "config.json").write_text("{}")
    assert_error(run("models", "verify"), "config.json does not match its hash", "import it again")


def test_an_adapter_trained_elsewhere_gets_a_name(run, base: str, tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path)
    done = run("models", "import", str(folder), "--base", base, "--suffix", "pirate", "--json")
    name = json.loads(done.stdout)["name"]
    assert name.startswith("ft:tiny:local:pirate:")
    listed = {row["name"]: row for row in json.loads(run("models", "list", "--json").stdout)}
    assert (listed[name]["kind"], listed[name]["source"]) == ("adapter", "imported")


@pytest.mark.parametrize("named", ["tiny", "/home/ana/models/tiny", "someone/tiny"])
def test_the_base_is_the_one_that_the_adapter_names(run, base: str, tmp_path: Path, named: str) -> None:
    folder = adapter_folder(tmp_path, base_model_name_or_path=named)
    assert json.loads(run("models", "import", str(folder), "--json").stdout)["base"] == "tiny"


@pytest.mark.parametrize("named", [None, "", "nothing-like-it", 7])
def test_an_adapter_that_names_no_base_here_is_taken_for_the_engines(
    run, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: object
) -> None:
    folder = adapter_folder(tmp_path, base_model_name_or_path=named)
    assert_error(run("models", "import", str(folder)), "no model 'SmolLM2-135M-Instruct'")
    monkeypatch.setenv("LOCAL_LLM_ENGINE__MODEL", "tiny")
    assert json.loads(run("models", "import", str(folder), "--json").stdout)["base"] == "tiny"


def test_an_adapter_of_another_base_is_refused_and_nothing_is_left(
    run, base: str, tmp_path: Path, settings: Settings
) -> None:
    folder = write_adapter(tmp_path / "adapter", lora("model.layers.0.self_attn.q_proj", 4096, 4096))
    done = run("models", "import", str(folder), "--base", base)
    assert_error(done, "does not fit tiny", "4096 to 4096; expected 8 to 8", "--base NAME")
    assert [row["kind"] for row in json.loads(run("models", "list", "--json").stdout)] == ["base"]
    assert list(settings.place.adapters.iterdir()) == []


def test_a_licence_is_the_one_told_else_that_of_the_folders_manifest(
    run, settings: Settings, base, tmp_path
) -> None:
    run("models", "import", str(write_base(tmp_path / "one")), "--licence", "MIT")
    carried = settings.place.models / "one"
    run("models", "import", str(carried), "--name", "two")
    run("models", "import", str(carried), "--name", "three", "--licence", "other")
    licences = {row["name"]: row["licence"] for row in json.loads(run("models", "list", "--json").stdout)}
    assert licences == {"tiny": "unknown", "one": "MIT", "two": "MIT", "three": "other"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r": 4096}, "its rank is 4096"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
    ],
)
def test_an_adapter_that_could_not_be_served_is_refused(run, base: str, tmp_path: Path, changes, reason) -> None:
    done = run("models", "import", str(adapter_folder(tmp_path, **changes)), "--base", base)
    assert_error(done, "cannot be served", reason)
    kinds = [row["kind"] for row in json.loads(run("models", "list", "--json").stdout)]
    assert kinds == ["base"]


def test_what_holds_no_model_is_told(run, tmp_path: Path) -> None:
    assert_error(run("models", "import", str(tmp_path / "nowhere")), "is not a folder")
    assert_error(run("models", "import", str(tmp_path)), "holds no model", "config.json")
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    assert_error(run("models", "import", str(tmp_path / "broken.gguf")), "broken.gguf")


def test_profiles_and_keys_from_the_shell(run) -> None:
    assert run("profiles", "set", "plain", "--strategy", "base").returncode == 0
    assert json.loads(run("profiles", "list", "--json").stdout)[0]["name"] == "plain"
    assert run("profiles", "remove", "plain").returncode == 0
    assert_error(run("profiles", "remove", "plain"), "no profile 'plain'", "local-llm profiles list")
    assert_error(run("profiles", "set", "x", "--strategy", "rag"), "needs a collection")
    assert_error(run("profiles", "set", "x", "--strategy", "base", "--rewrite"), "retrieves nothing")
    made = json.loads(run("keys", "create", "ana", "--principal", "group:support", "--json").stdout)
    assert made["secret"].startswith("sk-local-")
    (listed,) = json.loads(run("keys", "list", "--json").stdout)
    assert made["secret"] not in json.dumps(listed)
    assert run("keys", "revoke", made["id"]).returncode == 0


def test_asking_without_a_server_says_how_to_start_one(run) -> None:
    assert_error(run("ask", "Hello?"), "no server answers", "python -m serving")


def test_doctor_says_what_is_missing(run) -> None:
    done = run("doctor", "--json")
    rows = {row["check"]: row["result"] for row in json.loads(done.stdout)}
    assert "SmolLM2-135M-Instruct" in rows["missing models"]
    assert "not running" in rows["server"]


def test_wrong_usage_exits_with_2(run) -> None:
    assert run("profiles", "set").returncode == 2
    assert run("no-such-command").returncode == 2
