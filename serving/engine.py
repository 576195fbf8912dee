"""How vLLM is started: its command line and environment, derived from our settings."""

import sys
from pathlib import Path

from local_llm import device, offline
from local_llm.adapters import Published
from local_llm.engine_settings import VLLM_LORA_RANKS, EngineSettings
from local_llm.errors import InsufficientMemoryError, SettingsError
from local_llm.hardware import available_memory_gib, gpu_memory_gib, gpu_name
from local_llm.models import Model
from local_llm.settings import Settings
from serving import engine_layout
from serving.engine_arguments import Option, merged, refuse_ours
from serving.tool_parsers import tool_parser_of

# vLLM's own server by its module: the distribution of the CPU build is not named `vllm`, and the `vllm`
# command asks for the version of a distribution of that name.
MODULE = "vllm.entrypoints.launchers.api_server.entry"

NOTHING = Published()

# Three processes each import torch and transformers; seen with vLLM 0.32.0: 2.3 GiB together.
OVERHEAD_GIB = 2.5

# vLLM takes memory for every slot, used or not: 4 let a few teams share a batch, and 8 of rank 64 take 2.4 GiB on a
# 7B model (all linear layers: 160 million numbers of two bytes each).
FEWEST_LORAS, MOST_LORAS = 4, 8
# vLLM's own default.
SMALLEST_LORA_RANK = 16

# Longer than the gateway keeps an idle connection (whereabouts.py). vLLM's own 5 s would have it close some just as
# they are used again, which is a failed request.
KEEP_ALIVE_SECONDS = 60

# What a stopping engine has to finish its answers; it must be gone before the supervisor's patience is.
DRAIN_SECONDS = 10


def command(settings: Settings, model: Model, socket: Path, published: Published = NOTHING) -> list[str]:
    """`published` is what there is to serve when it starts. What the user gives in engine.arguments wins."""
    derived = [
        *_identity(settings.engine, model, socket),
        *_adapters(settings, published),
        *_size(settings),
        *_speech(settings.engine, model),
    ]
    return [sys.executable, "-m", MODULE, *merged(derived, settings.engine.arguments)]


def require_sound(settings: EngineSettings) -> None:
    """Raises: SettingsError for what vLLM would only tell in its log, or not at all."""
    refuse_ours(settings.arguments)
    if settings.chat_template is not None and not settings.chat_template.is_file():
        raise SettingsError(
            f"engine.chat_template: there is no file {settings.chat_template}", hint="name a Jinja template"
        )


def _identity(engine: EngineSettings, model: Model, socket: Path) -> list[Option]:
    return [
        ("--model", str(model.path)),
        ("--served-model-name", model.name),
        ("--uds", str(socket)),
        ("--max-model-len", str(engine.max_model_tokens)),
        ("--enable-prompt-tokens-details",),
        ("--scheduling-policy", "priority"),  # batches wait for whoever waits for an answer
        ("--disable-uvicorn-access-log",),
        # An image's address would let a client reach into the inner network: no host is allowed.
        ("--allowed-media-domains", "none.invalid"),
    ]


def _adapters(settings: Settings, published: Published) -> list[Option]:
    engine, loras = settings.engine, max_loras(settings.engine, published)
    return [
        ("--enable-lora",),
        ("--max-loras", str(loras)),
        # vLLM refuses fewer than max_loras.
        ("--max-cpu-loras", str(max(engine.max_cpu_loras, loras))),
        ("--max-lora-rank", str(max_lora_rank(settings, published))),
    ]


def max_loras(engine: EngineSettings, published: Published) -> int:
    """Slots take memory whether they are used or not; adapters beyond them wait for each other."""
    if engine.max_loras != "auto":
        return engine.max_loras
    return min(max(published.count, FEWEST_LORAS), MOST_LORAS)


def max_lora_rank(settings: Settings, published: Published) -> int:
    """The smallest rank vLLM allows that holds every published adapter, and what is trained unless a job says
    otherwise: so those are served without another start."""
    if settings.engine.max_lora_rank != "auto":
        return settings.engine.max_lora_rank
    wanted = max(published.largest_rank, settings.training.rank, SMALLEST_LORA_RANK)
    return next((rank for rank in VLLM_LORA_RANKS if rank >= wanted), VLLM_LORA_RANKS[-1])


def _size(settings: Settings) -> list[Option]:
    """How much it takes of the device, and how fast it goes there."""
    engine, options = settings.engine, list[Option]()
    if engine.max_num_seqs is not None:
        options.append(("--max-num-seqs", str(engine.max_num_seqs)))
    if engine.dtype != "auto":
        options.append(("--dtype", engine.dtype))
    if engine.quantization is not None:
        options.append(("--quantization", engine.quantization))
    if settings.gpu.sharing == "stop":
        # Answers begun when a job comes are finished; without it they would be broken off.
        options.append(("--shutdown-timeout", str(DRAIN_SECONDS)))
    if gpu_name():
        share = device.engine_memory_share(settings, gpu_memory_gib())
        options.append(("--gpu-memory-utilization", str(share)))
    else:
        # Compiling takes longer than it saves on a small model without Triton.
        options.append(("--enforce-eager",))
    return [*options, *engine_layout.options(engine)]


def _speech(engine: EngineSettings, model: Model) -> list[Option]:
    """How chats become prompts, and answers become messages."""
    options = list[Option]()
    if engine.chat_template is not None:
        options.append(("--chat-template", str(engine.chat_template)))
    if engine.tool_parser != "none":
        derived = engine.tool_parser == "auto"
        parser = tool_parser_of(model.path, engine.chat_template) if derived else engine.tool_parser
        options += [
            ("--enable-auto-tool-choice",),
            ("--tool-call-parser", parser),
            # Small models write a call's arguments as they like unless their schema is enforced.
            ("--tool-strict-level", "parameter"),
        ]
    if engine.reasoning_parser is not None:
        options.append(("--reasoning-parser", engine.reasoning_parser))
    return options


def environment(settings: Settings) -> dict[str, str]:
    """The engine's own: offline, its devices, adapters loadable at run time, memory for the cache on a CPU."""
    return {
        **offline.environment(),
        **device.engine_environment(settings),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine.kv_cache_gib),
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_SECONDS),
        **engine_layout.environment(settings.engine),
        **settings.engine.environment,
    }


def require_memory(settings: EngineSettings, model: Model) -> None:
    """Raises: InsufficientMemoryError if the CPU engine would not fit. On a GPU vLLM itself checks."""
    if gpu_name():
        return
    weights = model.manifest.bytes / 1024**3
    # Each worker has a cache of its own.
    caches = settings.kv_cache_gib * settings.gpus_here
    rest = OVERHEAD_GIB + engine_layout.more_gib(settings, weights)
    needed = weights + caches + rest
    available = available_memory_gib()
    if needed > available:
        room = int((available - weights - rest) / settings.gpus_here)
        hint = (
            f"set engine.kv_cache_gib to {room} or less" if room >= 1 else "serve a smaller model, or free memory"
        )
        raise InsufficientMemoryError(
            f"the engine needs about {needed:.1f} GiB ({weights:.1f} weights, {caches} key-value "
            f"cache, {rest:.1f} processes), but {available:.1f} GiB are available",
            hint=hint,
        )
