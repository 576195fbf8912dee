"""The parts in their order: what must hold first, then what is measured, by worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from acceptance import lines
from acceptance.bench import Figures
from acceptance.children import Target
from acceptance.lines import Line

Kind = Literal["machine", "must hold", "measured"]
# Figures of a part's runs that told any, by their names.
Judge = Callable[[Mapping[str, Figures]], Sequence[Line]]

PRODUCT = ("torch", "transformers", "pydantic_settings", "sqlalchemy")
TRAINING = (*PRODUCT, "peft", "trl", "datasets", "accelerate")
SEARCHING = ("torch", "numpy", "faiss")
ENCODING = (*PRODUCT, "sentence_transformers")
SERVING = (*PRODUCT, "peft", "vllm", "fastapi", "uvicorn", "uvloop", "httptools", "httpx")


@dataclass(frozen=True)
class Run:
    name: str
    target: Target
    limit_seconds: float


@dataclass(frozen=True)
class Part:
    """`in_small`: whether the small mode has it unasked; by name it has all."""

    name: str
    kind: Kind
    proves: str
    runs: tuple[Run, ...]
    judge: Judge = lines.nothing
    in_small: bool = True

    @property
    def packages(self) -> list[str]:
        return sorted({package for run in self.runs for package in run.target.packages})


def _one(name: str, function: str, packages: Sequence[str], limit_seconds: float, **options: object) -> Run:
    return Run(name, Target(f"acceptance.{function}", packages, options), limit_seconds)


def _training(name: str, packages: Sequence[str] = TRAINING, limit_seconds: float = 240, **options: object) -> Run:
    return _one(name, "measured.training:measure", packages, limit_seconds, **options)


def _search(rows: int, small: bool) -> Run:
    # Named by what is asked for; the small mode has a thousandth of it.
    return _one(
        f"{rows // 1_000_000}M", "measured.search:run", SEARCHING, 420, rows=rows // 1000 if small else rows
    )


MACHINE = Part(
    "machine", "machine", "what is here, and what its memory and arithmetic can do at best",
    (_one("machine", "machine:run", ("torch",), 120),),
)  # fmt: skip


def parts(*, small: bool) -> tuple[Part, ...]:
    """All but MACHINE, which every call begins with."""
    four_bits = (*TRAINING, "bitsandbytes")
    return (
        Part("learning", "must hold", "the loss falls",
             (_one("learning", "correct.training:learns", TRAINING, 240),)),
        Part("resuming", "must hold", "a resumed run ends where an uninterrupted one ends",
             (_one("resuming", "correct.training:resumes", TRAINING, 240),)),
        Part("batches", "must hold", "a batch of 8 trains as 8 batches of 1 added up",
             (_one("batches", "correct.training:batches", TRAINING, 240),)),
        Part("search", "must hold", "what is found on the device is what NumPy finds, with every filter",
             (_one("search", "correct.search:run", SEARCHING, 120),)),
        Part("four-bits", "must hold", "a base in 4 bits trains, and its adapter loads",
             (_one("four-bits", "correct.four_bits:run", four_bits, 240),)),
        Part("served-adapter", "must hold", "an adapter served is that adapter in transformers",
             (_one("served-adapter", "correct.served:run", (*TRAINING, *SERVING), 420),), in_small=False),
        Part("lora", "measured", "LoRA at the shape of Llama-3-8B, bf16, sequences of 4,096, against plain TRL",
             (_one(lines.MODEL, "models:make_decoder", PRODUCT, 300, shape="least" if small else "llama-3-8b"),
              _training("ours", by="ours"), _training("plain TRL", by="trl")), lines.training),
        Part("qlora", "measured", "the same with the base in 4 bits",
             (_training("ours", four_bits, by="ours", quantization="4bit"),
              _training("plain TRL", four_bits, by="trl", quantization="4bit")), lines.training),
        Part("exact-search", "measured", "exact search of 1, 5 and 10 million rows of 768 numbers in fp16",
             tuple(_search(rows, small) for rows in (1_000_000, 5_000_000, 10_000_000)), lines.search),
        Part("encoder", "measured", "passages a second at the shape of bge-base, against sentence-transformers",
             (_one("encoder", "measured.encoder:run", ENCODING, 180),), lines.encoder),
        Part("engine", "measured", "vLLM with 0 to 8 adapters, the gateway before it, a new adapter, a restart",
             (_one("engine", "measured.serving:run", SERVING, 900),), lines.serving, in_small=False),
        Part("lora-mixed", "measured", "LoRA on rows of many lengths, against plain TRL",
             (_training("ours", by="ours", rows="mixed"), _training("plain TRL", by="trl", rows="mixed")),
             lines.training),
        Part("lora-tried", "measured", "LoRA with other choices than ours: what each is worth",
             (_training("ours", by="ours"), _training("recomputed", by="ours", activations="recomputed"),
              _training("compiled", by="ours", layers="compiled")), lines.tried, in_small=False),
    )  # fmt: skip
