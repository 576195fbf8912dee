"""How vLLM is started: what it is told, what of the device is its own, and who decides."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_llm.adapters import Published
from local_llm.errors import SettingsError
from local_llm.models import Manifest, Model
from local_llm.settings import load_settings
from serving import engine
from serving.tool_parsers import tool_parser_of

MODEL = Model(Path("/m"), Manifest("m", "base", "test", "MIT", 0, {}))


DRIVER = """#!/bin/sh
case "$*" in *memory.total*) echo '{mib} MiB';; *) echo 'NVIDIA H100 80GB HBM3';; esac
"""


def started(**overrides: Any) -> tuple[list[str], dict[str, str]]:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": "/h"}, overrides={f"gpu.{k}": v for k, v in overrides.items()}
    )
    return engine.command(settings, MODEL, Path("/s")), engine.environment(settings)


def line_of(published: Published = engine.NOTHING, **overrides: Any) -> list[str]:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": "/h"}, overrides={f"engine.{k}": v for k, v in overrides.items()}
    )
    return engine.command(settings, MODEL, Path("/s"), published)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box whose driver shows a GPU."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text(DRIVER.format(mib=81559))
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def option(line: list[str], name: str) -> str | None:
    return line[line.index(name) + 1] if name in line else None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("sharing", "share"), [("split", "0.5"), ("stop", "0.85")])
def test_on_a_gpu_the_engine_leaves_training_its_share(sharing: str, share: str) -> None:
    line, environment = started(sharing=sharing)
    assert option(line, "--gpu-memory-utilization") == share
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.usefixtures("gpu")
def test_with_devices_of_its_own_it_takes_its_whole_share_of_them() -> None:
    line, environment = started(sharing="separate", engine_devices="0,1", training_devices="2")
    assert option(line, "--gpu-memory-utilization") == "0.85"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_engine_that_stops_for_jobs_finishes_its_answers() -> None:
    assert option(started(sharing="stop")[0], "--shutdown-timeout") == "10"
    assert option(started()[0], "--shutdown-timeout") is None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("mib", "changes", "share"),
    [
        (8 * 1024, {}, "0.4"),  # 1 - 2 GiB / 8 GiB - training's 0.35
        (8 * 1024, {"gpu.sharing": "stop"}, "0.75"),
        (8 * 1024, {"gpu.sharing": "stop", "gpu.encoder_memory_gib": 4}, "0.5"),
        (8 * 1024, {"gpu.sharing": "stop", "index.device": "cpu"}, "0.85"),  # nobody else is there
        (80 * 1024, {"gpu.sharing": "stop"}, "0.85"),  # what is left anyway is enough
    ],
)
def test_on_a_small_gpu_the_engine_leaves_the_encoder_its_memory(
    tmp_path: Path, mib: int, changes: dict[str, Any], share: str
) -> None:
    (tmp_path / "nvidia-smi").write_text(DRIVER.format(mib=mib))
    settings = load_settings(environment={"LOCAL_LLM_HOME": "/h"}, overrides=changes)
    assert option(engine.command(settings, MODEL, Path("/s")), "--gpu-memory-utilization") == share


def test_a_driver_that_does_not_know_its_memory_is_no_obstacle(gpu: None, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '[N/A]'\n")
    assert option(started(sharing="stop")[0], "--gpu-memory-utilization") == "0.85"


@pytest.mark.parametrize(
    ("count", "rank", "loras", "served"),
    [(0, 0, "4", "16"), (1, 8, "4", "16"), (6, 17, "6", "32"), (100, 300, "8", "320"), (1, 512, "4", "512")],
)
def test_what_is_published_decides_how_many_adapters_of_which_rank(
    count: int, rank: int, loras: str, served: str
) -> None:
    line = line_of(Published(count, rank))
    assert (option(line, "--max-loras"), option(line, "--max-lora-rank")) == (loras, served)
    assert option(line, "--max-cpu-loras") == "32"


def test_what_is_trained_by_default_is_served_without_another_start() -> None:
    """With training.rank above 16 every fine-tuned model got 409 until the server was started again."""
    settings = load_settings(environment={"LOCAL_LLM_HOME": "/h"}, overrides={"training.rank": 48})
    line = engine.command(settings, MODEL, Path("/s"), Published(1, 8))
    assert option(line, "--max-lora-rank") == "64"


def test_numbers_that_are_given_hold() -> None:
    line = line_of(Published(9, 64), max_loras=40, max_lora_rank=8)
    assert [option(line, name) for name in ("--max-loras", "--max-cpu-loras", "--max-lora-rank")] == [
        "40",
        "40",
        "8",
    ]


EVERYTHING = {
    "max_num_seqs": 7, "gpus": 2, "dtype": "float16", "quantization": "fp8", "chat_template": "/t.jinja",
    "tool_parser": "hermes", "reasoning_parser": "qwen3", "max_model_tokens": 99,
}  # fmt: skip
# vLLM's own reading of a command line, without starting anything.
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
read = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:]))
assert read["tool_call_parser"] in ToolParserManager.list_registered()
assert read["reasoning_parser"] in ReasoningParserManager.list_registered()
print(json.dumps(read, default=str))
"""


@pytest.mark.engine
def test_vllm_reads_the_command_line_as_it_is_meant() -> None:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": "/h"},
        overrides={f"engine.{name}": value for name, value in EVERYTHING.items()} | {"gpu.sharing": "stop"},
    )
    line = engine.command(settings, MODEL, Path("/s"), Published(6, 64))[3:]
    parsed = subprocess.run(
        [sys.executable, "-c", PARSE, *line], env=engine.environment(settings), capture_output=True, check=True
    )
    read = json.loads(parsed.stdout.splitlines()[-1])
    expected = {
        "model": "/m", "served_model_name": ["m"], "uds": "/s", "max_model_len": 99, "max_num_seqs": 7,
        "tensor_parallel_size": 2, "dtype": "float16", "quantization": "fp8", "chat_template": "/t.jinja",
        "enable_auto_tool_choice": True, "tool_call_parser": "hermes", "tool_strict_level": "parameter",
        "reasoning_parser": "qwen3",
        "enable_lora": True, "max_loras": 6, "max_cpu_loras": 32, "max_lora_rank": 64, "shutdown_timeout": 10,
        "enforce_eager": True, "allowed_media_domains": ["none.invalid"], "scheduling_policy": "priority",
        "enable_prompt_tokens_details": True, "disable_uvicorn_access_log": True,
        "enable_force_include_usage": False,
    }  # fmt: skip
    assert {name: read[name] for name in expected} == expected


def test_every_setting_reaches_the_engine() -> None:
    line = line_of(**EVERYTHING)
    for name, value in (
        ("--max-num-seqs", "7"),
        ("--tensor-parallel-size", "2"),
        ("--dtype", "float16"),
        ("--quantization", "fp8"),
        ("--chat-template", "/t.jinja"),
        ("--tool-call-parser", "hermes"),
        ("--reasoning-parser", "qwen3"),
        ("--max-model-len", "99"),
    ):
        assert option(line, name) == value
    assert "--enable-auto-tool-choice" in line


def test_what_is_not_set_is_left_to_the_engine() -> None:
    line = line_of()
    for name in (
        "--max-num-seqs", "--tensor-parallel-size", "--dtype", "--quantization", "--chat-template",
        "--reasoning-parser", "--enable-force-include-usage",
    ):  # fmt: skip
        assert name not in line


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ("{{ '<tool_call>' }}", "hermes"),
        ("{{ '<tool_call><function=' + name }}", "qwen3_coder"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("{{ '<|python_tag|>' }}", "llama3_json"),
        ("{{ message['content'] }}", "hermes"),  # it knows no tools: what must be called is still called
    ],
)
def test_the_chat_template_tells_how_tool_calls_are_read(tmp_path: Path, template: str, parser: str) -> None:
    for name, text in (
        ("chat_template.jinja", template),
        ("tokenizer_config.json", json.dumps({"chat_template": template})),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "tool_use", "template": template}]})),
    ):
        folder = tmp_path / f"{name}-{len(text)}"
        folder.mkdir()
        (folder / name).write_text(text)
        assert tool_parser_of(folder, None) == parser
    given = tmp_path / "given.jinja"
    given.write_text(template)
    assert tool_parser_of(Path("/nowhere"), given) == parser


def test_tools_can_be_switched_off() -> None:
    assert "--enable-auto-tool-choice" in line_of()
    assert not {"--enable-auto-tool-choice", "--tool-call-parser"} & set(line_of(tool_parser="none"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--max-loras", "2"], "--max-loras"),
        (["--max_loras=2"], "--max-loras"),
        (["--no-enable-lora"], "--enable-lora"),
        (["--no-enforce-eager"], "--enforce-eager"),
        (["-tp", "4"], "--tensor-parallel-size"),
        (["-q=awq"], "--quantization"),
        (["--tool-call-parser", "llama3_json"], "--tool-call-parser"),
    ],
)
def test_what_the_user_gives_wins_and_is_said_once(given: list[str], name: str) -> None:
    others = {"gpus": 2, "quantization": "fp8", "tool_parser": "hermes"}
    line, plain = line_of(arguments=given, **others), line_of(**others)
    assert line[-len(given) :] == given
    rest = line[: -len(given)]
    assert name not in rest
    assert name in plain
    values = 0 if name in ("--enable-lora", "--enforce-eager") else 1
    assert len(rest) == len(plain) - 1 - values


@pytest.mark.parametrize(
    "given", [["--uds", "/x"], ["--model=x"], ["--served_model_name", "x"], ["--api-key", "k"]]
)
def test_what_only_we_can_know_is_refused(given: list[str]) -> None:
    settings = load_settings(environment={"LOCAL_LLM_HOME": "/h"}, overrides={"engine.arguments": given})
    with pytest.raises(SettingsError, match=r"engine\.arguments: --"):
        engine.require_sound(settings.engine)


def test_a_chat_template_that_is_not_there_is_refused(tmp_path: Path) -> None:
    settings = load_settings(
        environment={"LOCAL_LLM_HOME": "/h"}, overrides={"engine.chat_template": tmp_path / "t.jinja"}
    )
    with pytest.raises(SettingsError, match=r"there is no file .*t\.jinja"):
        engine.require_sound(settings.engine)
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    engine.require_sound(settings.engine)
