"""The settings of vLLM, started here or elsewhere."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, field_validator

from local_llm.section import Section

# What vLLM 0.32 allows as the largest rank of adapters (config/lora.py).
LoraRank = Literal["auto", 1, 8, 16, 32, 64, 128, 256, 320, 512]
VLLM_LORA_RANKS: tuple[int, ...] = get_args(LoraRank)[1:]

# What is derived from what is there.
Auto = Literal["auto"]


def _number_if_digits(value: Any) -> Any:
    """Variables are text; a choice among numbers needs the number."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _whole_or_auto(value: Any) -> int | Auto:
    """Raises: ValueError."""
    if value == "auto":
        return "auto"
    number = _number_if_digits(value)
    if type(number) is not int or number < 1:
        raise ValueError("expected a whole number above 0, or 'auto'")
    return number


def _base_url(text: str) -> str:
    """Raises: ValueError saying what a base URL is."""
    expected = "expected http://HOST:PORT or https://HOST:PORT, a path after it where a proxy asks for one"
    try:
        url = urlsplit(text)
        port = url.port
        (url.hostname or "").encode("idna")
    except ValueError:
        raise ValueError(expected) from None
    extra = url.query or url.fragment or url.username or url.password or port == 0
    if url.scheme not in ("http", "https") or not url.hostname or extra or not text.isprintable() or " " in text:
        raise ValueError(f"{expected}; a key goes into engine.api_key_file")
    return text.rstrip("/")


class EngineSettings(Section):
    """[engine]: vLLM. Its own options are documented with vLLM; `arguments` reaches all of them."""

    urls: list[str] = Field(
        default_factory=list,
        description=(
            "Engines elsewhere that serve `model`, as `https://HOST:PORT`; none is started here then, and the "
            "settings of a start do not count. See docs/engines.md."
        ),
    )
    api_key_file: Path | None = Field(
        None, description="With `urls`: file holding the key that those engines ask for."
    )
    ca_file: Path | None = Field(
        None, description="With `urls`: certificates (PEM) that https is checked against, instead of the system's."
    )
    remote_adapters_path: str | None = Field(
        None, description="With `urls`: where those engines see our `adapters` folder. Default: where it is here."
    )
    model: str = Field("SmolLM2-135M-Instruct", description="Name of the base model in the model store.")
    max_model_tokens: int = Field(4096, gt=0, description="Longest prompt plus answer, in tokens.")
    max_num_seqs: int | None = Field(
        None, gt=0, description="Answers made at once; others wait in the engine. Default: vLLM's own."
    )
    gpus: int = Field(
        1,
        gt=0,
        description=(
            "GPUs that hold each layer together (vLLM's tensor parallel size). With the next two, the engine takes "
            "`gpus` x `pipeline_parallel` x `data_parallel` GPUs."
        ),
    )
    pipeline_parallel: int = Field(
        1, gt=0, description="Into how many groups the layers are cut, each on `gpus` GPUs of its own."
    )
    data_parallel: int = Field(1, gt=0, description="Copies of all that in one engine, which share its requests.")
    hosts: list[str] = Field(
        default_factory=list,
        description=(
            "Addresses of the machines whose GPUs the engine takes, this one first, the same number of each. "
            "Default: this one alone. See docs/engines.md."
        ),
    )
    ray: bool = Field(
        False, description="The engine's workers are placed by Ray, which already runs on its machines."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Type of the weights and of computing; `auto`: the model's own."
    )
    quantization: str | None = Field(
        None, description="How vLLM holds the weights, `fp8` for instance. Default: as the model's files say."
    )
    kv_cache_gib: int = Field(2, gt=0, description="Memory for the key-value cache on a CPU, in GiB.")
    gpu_memory_share: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Share of each GPU's memory the engine may take; gpu.encoder_memory_gib may lower it.",
    )
    max_loras: Annotated[int | Auto, PlainValidator(_whole_or_auto)] = Field(
        "auto",
        description="Different adapters that one batch may use. `auto`: as many as are published, from 4 to 8.",
    )
    max_cpu_loras: int = Field(32, gt=0, description="Adapters kept in memory, ready for use; at least max_loras.")
    max_lora_rank: Annotated[LoraRank, BeforeValidator(_number_if_digits)] = Field(
        "auto",
        description=(
            "Largest adapter rank served. vLLM pads every adapter to it: a high one costs speed. `auto`: the "
            "largest published when the engine starts, at least training.rank and 16. A number: larger ones are "
            "refused before training."
        ),
    )
    chat_template: Path | None = Field(None, description="File with a chat template in place of the model's own.")
    tool_parser: str = Field(
        "auto",
        description=(
            "vLLM's parser of this model's tool calls, `hermes` for instance. `auto`: by how its chat template "
            "writes them. `none`: requests with tools are refused."
        ),
    )
    reasoning_parser: str | None = Field(
        None, description="vLLM's parser of this model's reasoning, `qwen3` for instance."
    )
    start_timeout_seconds: float = Field(900, gt=0, description="Longest time a start may take.")
    health_interval_seconds: float = Field(
        10, gt=0, description="How often a running engine is asked whether it is well."
    )
    health_timeout_seconds: float = Field(20, gt=0, description="How long it may take to answer that.")
    health_failures: int = Field(
        3,
        gt=0,
        description=(
            "After so many questions in a row without an answer it hangs, and is ended and started again. vLLM's "
            "own supervisor allows 3 of 5 s; ours waits longer, for machines that are merely busy."
        ),
    )
    stall_seconds: float | None = Field(
        None,
        ge=0,
        description=(
            "Every minute it is asked for one token, before all others. Without it for so long it hangs, too; 0: "
            "it is not asked. Default: server.request_timeout_seconds and a minute, for on a slow machine a long "
            "prompt may hold all others up that long."
        ),
    )
    arguments: list[str] = Field(
        default_factory=list, description="More command-line arguments for vLLM; they win over what we derive."
    )
    environment: dict[str, str] = Field(default_factory=dict, description="More environment variables for vLLM.")

    @field_validator("urls")
    @classmethod
    def _base_urls(cls, urls: list[str]) -> list[str]:
        checked = [_base_url(url) for url in urls]
        if len(set(checked)) < len(checked):
            raise ValueError("expected each engine once")
        return checked

    @field_validator("hosts")
    @classmethod
    def _addresses(cls, hosts: list[str]) -> list[str]:
        checked = [str(ipaddress.ip_address(host)) for host in hosts]  # its error says what is no address
        if len(set(checked)) < len(checked):
            raise ValueError("expected each machine once")
        return checked

    @property
    def all_gpus(self) -> int:
        """What an hour of the engine costs is that of so many."""
        return self.gpus * self.pipeline_parallel * self.data_parallel

    @property
    def gpus_here(self) -> int:
        """Those of this machine, the first of `hosts`."""
        return self.all_gpus // max(len(self.hosts), 1)

    @property
    def largest_lora_rank(self) -> int:
        """What an adapter's rank may be at most to be published."""
        return VLLM_LORA_RANKS[-1] if self.max_lora_rank == "auto" else self.max_lora_rank
