"""The engine on more than one GPU, and on more than one machine: how vLLM is told, and what cannot be.

Source of the rules: vLLM 0.32, config/parallel.py, config/model.py (verify_with_parallel_config),
distributed/utils.py (get_pp_indices), model_executor/models/llama.py.
"""

import importlib.util
import os
import shlex
from pathlib import Path
from typing import Any

from local_llm.engine_settings import EngineSettings
from local_llm.errors import SettingsError
from local_llm.fileio import read_json
from local_llm.hardware import gpu_name, gpus, this_hardware
from local_llm.models import Model
from serving.engine_arguments import Option
from serving.interfaces import interface_of

# Where the workers of all machines meet; the first machine listens there (vLLM's --master-port).
MEETING_PORT = 29501

# What a worker on a CPU takes beside its weights and cache; seen with vLLM 0.32.0: 0.8 GiB.
WORKER_GIB = 0.8

NUMA_NODES = Path("/sys/devices/system/node")


def options(engine: EngineSettings) -> list[Option]:
    """Only what differs from one GPU of one machine."""
    sizes = {
        "--tensor-parallel-size": engine.gpus,
        "--pipeline-parallel-size": engine.pipeline_parallel,
        "--data-parallel-size": engine.data_parallel,
    }
    found: list[Option] = [(name, str(size)) for name, size in sizes.items() if size > 1]
    if engine.ray:
        found.append(("--distributed-executor-backend", "ray"))
    elif engine.hosts:
        found += _meeting(engine, 0)
    return found


def environment(engine: EngineSettings) -> dict[str, str]:
    """What the workers need to find each other, and on a CPU to share its cores."""
    found = dict[str, str]()
    if engine.hosts:
        interface = interface_of(engine.hosts[0]) or ""  # require_layout() told if there is none
        found |= {
            "VLLM_HOST_IP": engine.hosts[0],
            "GLOO_SOCKET_IFNAME": interface,
            "NCCL_SOCKET_IFNAME": interface,
        }
    if engine.gpus_here > 1 and gpu_name() is None:
        found |= _shared_cores(engine.gpus_here)
    return found


def require_layout(engine: EngineSettings, model: Model) -> None:
    """Raises: SettingsError for what vLLM would only tell in its log after a minute, or never."""
    _require_hosts(engine)
    _require_ray(engine)
    _require_gpus(engine)
    _require_divisible(engine, model)


def line_elsewhere(line: list[str], engine: EngineSettings, number: int) -> str:
    """What is run on the machine `hosts[number]` for the engine that `line` starts here: the same vLLM with the
    same options, without a server.
    """
    skipped, kept = {"--uds", "--node-rank"}, list[str]()
    words = iter(line[line.index("-m") + 2 :])
    for word in words:
        if word in skipped:
            next(words)
        elif word == "--model":
            kept = [next(words), *kept]
        else:
            kept.append(word)
    variables = ["HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", f"VLLM_HOST_IP={engine.hosts[number]}"]
    variables += ["GLOO_SOCKET_IFNAME=INTERFACE", "NCCL_SOCKET_IFNAME=INTERFACE"]
    if gpu_name() is None:
        variables.append(f"VLLM_CPU_KVCACHE_SPACE={engine.kv_cache_gib}")
    return shlex.join([*variables, "vllm", "serve", *kept, "--headless", "--node-rank", str(number)])


def more_gib(engine: EngineSettings, weights_gib: float) -> float:
    """What its workers on a CPU take beside their caches, more than a single one would."""
    return weights_gib * (engine.data_parallel - 1) + WORKER_GIB * (engine.gpus_here - 1)


def _meeting(engine: EngineSettings, number: int) -> list[Option]:
    return [
        ("--nnodes", str(len(engine.hosts))),
        ("--node-rank", str(number)),
        ("--master-addr", engine.hosts[0]),
        ("--master-port", str(MEETING_PORT)),
    ]


def _require_hosts(engine: EngineSettings) -> None:
    if not engine.hosts:
        return
    problem, hint = None, "see docs/engines.md, Several machines"
    if len(engine.hosts) == 1:
        problem = f"engine.hosts names one machine, {engine.hosts[0]}; expected this one and others"
    elif engine.data_parallel > 1:
        problem = "engine.data_parallel copies the model on this machine only, and engine.hosts names others"
        hint = "start an engine on each machine, and name them in engine.urls"
    elif engine.all_gpus % len(engine.hosts):
        problem = f"{engine.all_gpus} GPUs are no whole number for each of {len(engine.hosts)} engine.hosts"
        hint = "change engine.gpus or engine.pipeline_parallel: their product is the number of GPUs"
    elif interface_of(engine.hosts[0]) is None:
        problem = f"engine.hosts: this machine has no address {engine.hosts[0]}"
        hint = "put this machine's own address first (ip address)"
    elif not engine.ray and "auto" in (engine.max_loras, engine.max_lora_rank):
        problem = "with engine.hosts, engine.max_loras and engine.max_lora_rank must be numbers"
        hint = "for instance 4 and 16: the engine's parts on the other machines are told the same by hand"
    if problem:
        raise SettingsError(problem, hint=hint)


def _require_ray(engine: EngineSettings) -> None:
    if not engine.ray:
        return
    problem, hint = None, "see docs/engines.md, Several machines"
    if not engine.hosts:
        problem = "engine.ray places workers on the machines of engine.hosts, which names none"
    elif gpu_name() is None:
        problem = "engine.ray needs a GPU: vLLM places no CPU workers by Ray"
        hint = "unset engine.ray; engine.hosts alone works on CPUs, too"
    elif importlib.util.find_spec("ray") is None:
        problem = "engine.ray is set, but Ray is not installed here"
        hint = "scripts/install_ray, here and on each of engine.hosts"
    if problem:
        raise SettingsError(problem, hint=hint)


def _require_gpus(engine: EngineSettings) -> None:
    """On a CPU its workers are processes, of which there may be any number."""
    if gpu_name() is None and engine.pipeline_parallel > 1:
        # Where adapters are served it never makes room for what one group hands to the next, and ends at the first
        # request: v1/worker/cpu_model_runner.py (warming_up_model), gpu_model_runner.py
        # (sync_and_gather_intermediate_tensors).
        raise SettingsError(
            f"engine.pipeline_parallel is {engine.pipeline_parallel}, but vLLM does that on GPUs only",
            hint="set engine.gpus instead: so many processes hold each layer together, on a CPU, too",
        )
    there = len(gpus())
    if there and engine.gpus_here > there and not engine.ray:
        sizes = f"{engine.gpus} x {engine.pipeline_parallel} x {engine.data_parallel}"
        raise SettingsError(
            f"the engine is to take {engine.gpus_here} GPUs of this machine, which has {there} (engine.gpus x "
            f"engine.pipeline_parallel x engine.data_parallel: {sizes})",
            hint="lower one of them, or name more machines in engine.hosts",
        )


def _require_divisible(engine: EngineSettings, model: Model) -> None:
    config = _text_config(model)
    heads, layers = config.get("num_attention_heads"), config.get("num_hidden_layers")
    key_heads = config.get("num_key_value_heads") or heads
    across, stages = engine.gpus, engine.pipeline_parallel
    problem = None
    if heads and heads % across:
        problem = f"{heads} attention heads, which engine.gpus = {across} does not divide"
    elif key_heads and key_heads % across and across % key_heads:
        problem = f"{key_heads} key-value heads: engine.gpus = {across} is neither a divisor nor a multiple"
    elif layers and layers < stages:
        problem = f"{layers} layers, fewer than engine.pipeline_parallel = {stages}"
    if problem:
        hint = "lower it; what is left of the GPUs can hold copies: engine.data_parallel"
        raise SettingsError(f"{model.name} has {problem}", hint=hint)


def _text_config(model: Model) -> dict[str, Any]:
    file = model.path / "config.json"
    config: dict[str, Any] = read_json(file) if file.is_file() else {}
    return config.get("text_config", config)


def _shared_cores(workers: int) -> dict[str, str]:
    """vLLM binds each worker to a NUMA node of its own, and ends where there are fewer
    (utils/ompmultiprocessing.py). Unbound, each takes all cores unless told how many."""
    if workers <= _numa_nodes():
        return {}
    threads = str(max(this_hardware().cores // workers, 1))
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}


def _numa_nodes() -> int:
    return max(len(list(NUMA_NODES.glob("node[0-9]*"))), 1)
