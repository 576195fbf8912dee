"""How vLLM is started: its command line and environment, derived from our settings."""

import sys
from pathlib import Path

from local_llm import device, offline
from local_llm.errors import InsufficientMemoryError
from local_llm.hardware import available_memory_gib, gpu_name
from local_llm.models import Model
from local_llm.settings import EngineSettings, Settings

# vLLM's own server by its module: the distribution of the CPU build is not named `vllm`, and the `vllm`
# command asks for the version of a distribution of that name.
MODULE = "vllm.entrypoints.launchers.api_server.entry"

# Three processes each import torch and transformers; seen with vLLM 0.32.0: 2.3 GiB together.
OVERHEAD_GIB = 2.5

# What a stopping engine has to finish its answers; it must be gone before the supervisor's patience is.
DRAIN_SECONDS = 10


def command(settings: Settings, model: Model, socket: Path) -> list[str]:
    engine = settings.engine
    line = [
        *(sys.executable, "-m", MODULE),
        *("--model", str(model.path)),
        *("--served-model-name", model.name),
        *("--uds", str(socket)),
        *("--max-model-len", str(engine.max_model_tokens)),
        "--enable-lora",
        *("--max-loras", str(engine.max_loras)),
        *("--max-cpu-loras", str(max(engine.max_cpu_loras, engine.max_loras))),
        *("--max-lora-rank", str(engine.max_lora_rank)),
        "--enable-prompt-tokens-details",
        *("--scheduling-policy", "priority"),  # batches wait for whoever waits for an answer
        "--disable-uvicorn-access-log",
        # An image's address would let a client reach into the inner network: no host is allowed.
        *("--allowed-media-domains", "none.invalid"),
    ]
    if settings.gpu.sharing == "stop":
        # Answers begun when a job comes are finished; without it they would be broken off.
        line += ["--shutdown-timeout", str(DRAIN_SECONDS)]
    if gpu_name():
        line += ["--gpu-memory-utilization", str(device.engine_memory_share(settings))]
    else:
        # Compiling takes longer than it saves on a small model without Triton.
        line += ["--enforce-eager"]
    return [*line, *engine.arguments]


def environment(settings: Settings) -> dict[str, str]:
    """The engine's own: offline, its devices, adapters loadable at run time, memory for the cache on a CPU."""
    return {
        **offline.environment(),
        **device.engine_environment(settings),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine.kv_cache_gib),
        **settings.engine.environment,
    }


def require_memory(settings: EngineSettings, model: Model) -> None:
    """Raises: InsufficientMemoryError if the CPU engine would not fit. On a GPU vLLM itself checks."""
    if gpu_name():
        return
    weights = model.manifest.bytes / 1024**3
    needed = weights + settings.kv_cache_gib + OVERHEAD_GIB
    available = available_memory_gib()
    if needed > available:
        room = int(available - weights - OVERHEAD_GIB)
        hint = (
            f"set engine.kv_cache_gib to {room} or less" if room >= 1 else "serve a smaller model, or free memory"
        )
        raise InsufficientMemoryError(
            f"the engine needs about {needed:.1f} GiB ({weights:.1f} weights, {settings.kv_cache_gib} key-value "
            f"cache, {OVERHEAD_GIB} processes), but {available:.1f} GiB are available",
            hint=hint,
        )
