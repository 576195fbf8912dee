"""The command line of a job's child: one process, or several that end together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from local_llm import offline
from local_llm.settings import Sharding, TrainingSettings
from training import launch
from training.launch import Launch
from training.trainer import GRACE_SECONDS

REPOSITORY = Path(__file__).parent.parent.parent
SHARDED, COPIED = Launch(processes=2, gpu=True, sharded=True), Launch(processes=2, gpu=False, sharded=False)
ARGUMENTS = ["--settings", "/s.toml", "run", "ftjob-1", "--lease", "trainer:1"]


def option(line: list[str], name: str) -> str:
    return line[line.index(name) + 1]


@pytest.mark.parametrize("gpu", [True, False])
def test_one_process_needs_no_launcher(gpu: bool) -> None:
    alone = Launch(processes=1, gpu=gpu, sharded=gpu)
    assert alone.command(ARGUMENTS) == [sys.executable, "-m", "training", *ARGUMENTS]
    assert alone.environment() == {}


@pytest.mark.parametrize(("sharded", "kind"), [(True, "FSDP"), (False, "MULTI_GPU")])
def test_several_are_launched_with_a_shipped_configuration(sharded: bool, kind: str) -> None:
    line = Launch(processes=4, gpu=True, sharded=sharded).command(ARGUMENTS)
    assert line[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert line[-len(ARGUMENTS) - 2 :] == ["-m", "training", *ARGUMENTS]
    assert option(line, "--num_processes") == "4"
    assert option(line, "--main_process_port") == "0"
    assert yaml.safe_load(Path(option(line, "--config_file")).read_text())["distributed_type"] == kind


def test_without_a_gpu_none_is_used_and_with_several_they_meet_on_loopback() -> None:
    assert COPIED.environment()["ACCELERATE_USE_CPU"] == "true"
    assert SHARDED.environment()["NCCL_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize(
    ("gpu", "sharding", "sharded"),
    [("H200", "auto", True), (None, "auto", False), ("H200", "none", False), (None, "full", True)],
)
def test_what_fits_on_each_gpu_need_not_be_sharded(
    gpu: str | None, sharding: Sharding, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "gpu_name", lambda: gpu)
    assert Launch.of(TrainingSettings(processes=2, sharding=sharding)) == Launch(2, gpu is not None, sharded)


def test_the_launcher_gives_up_on_its_processes_before_the_trainer_gives_up_on_it() -> None:
    assert float(SHARDED.environment()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < GRACE_SECONDS


@pytest.mark.parametrize(("rank", "main", "launched"), [(None, True, False), ("0", True, True), ("1", False, True)])
def test_only_the_first_process_writes(
    rank: str | None, main: bool, launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert (launch.is_main_process(), launch.is_launched()) == (main, launched)


def test_a_kill_is_known_from_the_status_or_from_the_launchers_words() -> None:
    words = b"  exitcode  : -9 (pid: 31623)  (SIGKILL)\n  traceback : Signal 9 (SIGKILL) received by PID 31623\n"
    assert launch.was_killed(-9, b"")
    assert launch.was_killed(1, words)
    assert not launch.was_killed(1, b"ValueError")
    assert not launch.was_killed(-15, b"")
    assert not launch.was_killed(0, words)


@pytest.mark.slow
def test_the_launcher_starts_as_many_as_asked_and_tells_of_a_kill(tmp_path: Path) -> None:
    """The launcher's own words on a kill, which was_killed() reads, may change with its version."""
    program = tmp_path / "training.py"  # found before the package, as the working folder comes first
    program.write_text(
        "import os, signal\n"
        "line = ' '.join(os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR'))\n"
        "os.write(1, f'{line}\\n'.encode())\n"  # in one piece: two processes write to one pipe
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        COPIED.command([]),
        cwd=tmp_path,
        env={**offline.environment(), **COPIED.environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert sorted(done.stdout.decode().splitlines()) == ["0 2 127.0.0.1", "1 2 127.0.0.1"]
    assert done.returncode == 1
    assert launch.was_killed(done.returncode, done.stderr)


@pytest.mark.slow
def test_the_shipped_configurations_are_what_the_launcher_understands() -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    assert load_config_from_file(str(launch.DDP)).distributed_type == DistributedType.MULTI_GPU
    sharded = load_config_from_file(str(launch.FSDP))
    assert sharded.distributed_type == DistributedType.FSDP
    assert sharded.fsdp_config["fsdp_version"] == 2


@pytest.mark.slow
def test_fsdp_options_reach_the_training_process() -> None:
    """Through the launcher's own parser and into accelerate's plugin, which refuses what it does not know."""
    program = """
import os, sys
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(sys.argv[1:]))
os.environ.update(prepare_multi_gpu_env(arguments))
from accelerate.utils import FullyShardedDataParallelPlugin
plugin = FullyShardedDataParallelPlugin()
print(arguments.use_fsdp, plugin.fsdp_version, plugin.reshard_after_forward, plugin.state_dict_type,
      plugin.auto_wrap_policy.__name__, plugin.cpu_ram_efficient_loading)
"""
    line = SHARDED.command(["run"])
    done = subprocess.run(
        [sys.executable, "-c", program, *line[3:]],
        env={**os.environ, "MASTER_PORT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = "True 2 True StateDictType.FULL_STATE_DICT transformer_auto_wrap_policy False"
    assert done.stdout.splitlines()[-1] == expected
