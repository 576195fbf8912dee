"""Several GPUs and several machines: what vLLM is told, and what is refused before it starts."""

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import SettingsError
from local_llm.models import Manifest, Model
from local_llm.settings import Settings, load_settings
from serving import engine, engine_layout
from serving.interfaces import interface_of

from .test_start import assert_told, serve

HOSTS = ["127.0.0.1", "10.11.12.13"]
NUMBERS = {"max_loras": 4, "max_lora_rank": 16}
DRIVER = """#!/bin/sh
case "$*" in
*memory.total,*) for n in {numbers}; do echo "$n, NVIDIA H100 80GB HBM3, 81559, 0, 0, 30, 70"; done ;;
*memory.total*) echo '81559 MiB' ;;
*) echo 'NVIDIA H100 80GB HBM3' ;;
esac
"""


def settings_of(**changes: Any) -> Settings:
    return load_settings(
        environment={"LOCAL_LLM_HOME": "/h"}, overrides={f"engine.{name}": value for name, value in changes.items()}
    )


def model_at(folder: Path, **config: Any) -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    return Model(folder, Manifest("m", "base", "test", "MIT", 0, {}))


def line_of(settings: Settings) -> list[str]:
    return engine.command(settings, Model(Path("/m"), Manifest("m", "base", "test", "MIT", 0, {})), Path("/s"))


def options_of(settings: Settings) -> dict[str, str]:
    line = line_of(settings)
    return {name: line[line.index(name) + 1] for name in line if name in MEANT}


MEANT = {
    "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "--nnodes", "--node-rank",
    "--master-addr", "--master-port", "--distributed-executor-backend",
}  # fmt: skip


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(DRIVER.format(numbers="0 1 2 3"))
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_one_gpu_of_one_machine_is_told_nothing_of_it() -> None:
    settings = settings_of()
    assert options_of(settings) == {}
    assert engine.environment(settings)["VLLM_HOST_IP"] == "127.0.0.1"
    assert (settings.engine.all_gpus, settings.engine.gpus_here) == (1, 1)


def test_sizes_reach_vllm_and_their_product_is_what_is_paid_for() -> None:
    settings = settings_of(gpus=2, pipeline_parallel=3, data_parallel=4)
    assert options_of(settings) == {
        "--tensor-parallel-size": "2", "--pipeline-parallel-size": "3", "--data-parallel-size": "4",
    }  # fmt: skip
    assert settings.engine.all_gpus == 24


def test_workers_of_several_machines_meet_at_the_first() -> None:
    settings = settings_of(gpus=2, pipeline_parallel=2, hosts=HOSTS, **NUMBERS)
    meeting = {"--nnodes": "2", "--node-rank": "0", "--master-addr": "127.0.0.1", "--master-port": "29501"}
    assert options_of(settings) == {"--tensor-parallel-size": "2", "--pipeline-parallel-size": "2"} | meeting
    environment = engine.environment(settings)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        assert environment[name] == "lo"
    assert (settings.engine.all_gpus, settings.engine.gpus_here) == (4, 2)


def test_ray_needs_no_meeting() -> None:
    found = options_of(settings_of(gpus=2, hosts=HOSTS, ray=True))
    assert found == {"--tensor-parallel-size": "2", "--distributed-executor-backend": "ray"}


def test_the_line_for_another_machine_says_the_same_but_for_its_place() -> None:
    settings = settings_of(gpus=2, hosts=HOSTS, reasoning_parser="a b", **NUMBERS)
    line = line_of(settings)
    told = shlex.split(engine_layout.line_elsewhere(line, settings.engine, 1))
    assert "VLLM_HOST_IP=10.11.12.13" in told
    theirs = told[told.index("vllm") :]
    assert theirs[:3] == ["vllm", "serve", "/m"]
    assert theirs[-3:] == ["--headless", "--node-rank", "1"]
    ours = line[3:]
    for word in ("--model", "/m", "--uds", "/s", "--node-rank", "0"):
        ours.remove(word)
    assert theirs[3:-3] == ours


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 3}, "m has 8 attention heads, which engine.gpus = 3 does not divide"),
        ({"gpus": 8, "heads": 24, "key_heads": 6}, "6 key-value heads: engine.gpus = 8 is neither"),
        ({"pipeline_parallel": 2}, "engine.pipeline_parallel is 2, but vLLM does that on GPUs only"),
        ({"hosts": ["127.0.0.1"]}, "names one machine"),
        ({"hosts": HOSTS, "gpus": 2, "data_parallel": 2, **NUMBERS}, "on this machine only"),
        ({"hosts": HOSTS, "gpus": 1, **NUMBERS}, "1 GPUs are no whole number for each of 2"),
        ({"hosts": HOSTS[::-1], "gpus": 2, **NUMBERS}, "this machine has no address 10.11.12.13"),
        ({"hosts": HOSTS, "gpus": 2, "max_loras": 4}, "must be numbers"),
        ({"ray": True}, "which names none"),
        ({"ray": True, "hosts": HOSTS, "gpus": 2}, "engine.ray needs a GPU"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    heads, key_heads = changes.pop("heads", 8), changes.pop("key_heads", 2)
    model = model_at(tmp_path, num_attention_heads=heads, num_key_value_heads=key_heads, num_hidden_layers=4)
    with pytest.raises(SettingsError) as refused:
        engine_layout.require_layout(settings_of(**changes).engine, model)
    assert message in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    "changes",
    [{}, {"gpus": 4}, {"gpus": 8}, {"gpus": 2, "data_parallel": 9}, {"gpus": 2, "hosts": HOSTS, **NUMBERS}],
)
def test_what_can_be_is_let_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    for config in ({"num_attention_heads": 8, "num_hidden_layers": 4}, {}):
        engine_layout.require_layout(settings_of(**changes).engine, model_at(tmp_path, **config))


@pytest.mark.usefixtures("four_gpus")
def test_gpus_are_counted_on_this_machine_alone(tmp_path: Path) -> None:
    model = model_at(tmp_path, text_config={"num_attention_heads": 8, "num_hidden_layers": 4})
    with pytest.raises(SettingsError, match="take 8 GPUs of this machine, which has 4"):
        engine_layout.require_layout(settings_of(gpus=2, pipeline_parallel=2, data_parallel=2).engine, model)
    with pytest.raises(SettingsError, match="4 layers, fewer than"):
        engine_layout.require_layout(settings_of(pipeline_parallel=8, hosts=HOSTS, **NUMBERS).engine, model)
    for changes in ({"gpus": 4}, {"gpus": 4, "pipeline_parallel": 2, "hosts": HOSTS, **NUMBERS}):
        engine_layout.require_layout(settings_of(**changes).engine, model)


@pytest.mark.usefixtures("four_gpus")
def test_without_ray_it_cannot_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    settings = settings_of(ray=True, hosts=HOSTS, gpus=2)
    with pytest.raises(SettingsError, match="Ray is not installed here"):
        engine_layout.require_layout(settings.engine, model_at(tmp_path))


def test_workers_on_a_processor_share_its_cores_and_need_their_memory() -> None:
    alone, several = settings_of(), settings_of(gpus=64)
    assert "VLLM_CPU_OMP_THREADS_BIND" not in engine_layout.environment(alone.engine)
    assert engine_layout.environment(several.engine)["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    copies = settings_of(data_parallel=3).engine
    assert engine_layout.more_gib(copies, 2.0) == pytest.approx(2 * 2.0 + 2 * 0.8)
    assert engine_layout.more_gib(alone.engine, 2.0) == 0


def test_a_server_says_what_is_wrong_and_how_to_mend_it(settings: Settings, tmp_path: Path) -> None:
    from .running_server import import_models

    import_models(settings, tmp_path)
    wrong = serve(settings, LOCAL_LLM_ENGINE__HOSTS="['192.0.2.99', '192.0.2.98']", LOCAL_LLM_ENGINE__GPUS="2")
    assert_told(wrong, "this machine has no address 192.0.2.99", "put this machine's own address first")


@pytest.mark.parametrize("hosts", [["gpu1"], ["10.0.0.1", "10.0.0.1"], ["10.0.0"]])
def test_hosts_are_addresses_each_once(hosts: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"engine\.hosts"):
        settings_of(hosts=hosts)


def test_an_interface_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.77") is None
    assert interface_of("2001:db8::77") is None
    if "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text():
        assert interface_of("::1") == "lo"
    assert interface_of("127.0.0.1") in dict(map(reversed, socket.if_nameindex()))


# What docs/engines.md says of the CPU build; where it changes, the refusals may go.
PROOF = """
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
import inspect
assert not CpuPlatform.ray_device_key  # v1/executor/ray_utils.py then says "does not support ray"
assert "CompilationMode.NONE:\\n            return" in inspect.getsource(CPUModelRunner.warming_up_model)
"""


@pytest.mark.engine
def test_vllm_on_a_processor_still_has_no_ray_and_no_room_between_groups_of_layers() -> None:
    done = subprocess.run([sys.executable, "-c", PROOF], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
