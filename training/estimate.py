"""What a training run will take, before it is begun: steps, memory, hours and money."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from local_llm.costs.units import SECONDS_PER_HOUR, TOKENS_PER_MILLION
from local_llm.hardware import Hardware, this_hardware
from local_llm.models import ModelStore
from local_llm.servable import refuse_unservable_plan
from local_llm.settings import Quantization, Settings
from local_llm.state import LedgerEntry, State
from training.base_model import compute_precision, hidden_size
from training.examples.data import read_training_file
from training.examples.labels import PreferenceRow, Row, build_preference_rows, build_rows, load_tokenizer
from training.hyperparameters import Hyperparameters, Method, Resolved
from training.model_shape import ModelShape
from training.quiet import quiet_libraries

# Of one trained parameter, all in fp32: itself, its gradient, and Adam's two moments.
ADAPTER_BYTES = 4 + 4 + 4 + 4
# NF4 with double quantisation: 4 bits a weight, 8 bits a block of 64, 32 bits a 256 of those blocks.
# Source: Dettmers et al. 2023, "QLoRA", section 3.
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
# Kept for the way back. Source: measured with torch 2.13, PEFT 0.21 and TRL 1.16 on a CPU, on models of Llama's
# shape (hidden size 512, inner size 1,024 and 3,072, 4 and 12 layers, 2,048 tokens, bf16 and fp32): each layer kept
# 27 to 29 bytes a token and hidden feature, and its feed-forward part four tensors of the inner size, as SwiGLU and
# the adapter of its last matrix need them; fused attention keeps no scores. SmolLM2-135M took what this adds up to,
# within 3 %.
HIDDEN_BYTES = 28
INNER_TENSORS = 4
# Each logit, in bf16 or fp32, with all that the loss, its gradient and TRL's metrics make of it: measured likewise.
LOGIT_BYTES = 32


@dataclass(frozen=True)
class Plan:
    """What would be trained."""

    file: Path
    model: str
    hyperparameters: Hyperparameters
    rank: int
    quantization: Quantization


@dataclass(frozen=True)
class Counts:
    """What a training file comes to, once through it."""

    examples: int
    tokens: int
    trained_tokens: int
    longest_tokens: int  # of what passes through the model at once: of preferences both conversations of a pair

    @classmethod
    def of(cls, rows: Sequence[Row] | Sequence[PreferenceRow], method: Method = "supervised") -> "Counts":
        together = 2 if method == "dpo" else 1
        return cls(
            len(rows),
            sum(row.tokens for row in rows),
            sum(row.trained_tokens for row in rows),
            together * max(row.longest_tokens for row in rows),
        )


@dataclass(frozen=True)
class Memory:
    """An estimate, in bytes, of what training holds at its fullest, apart from the libraries themselves."""

    weights_bytes: int
    adapter_bytes: int
    activations_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.adapter_bytes + self.activations_bytes


@dataclass(frozen=True)
class Speed:
    """Measured on this very hardware with this base: tokens through the model, padding not counted."""

    tokens_per_second: float
    job_id: str


@dataclass(frozen=True)
class Bill:
    """None: not known. Hours are those of the training loop, without loading model and file."""

    hours: float | None
    here_usd: float | None
    hosted_usd: float | None


@dataclass(frozen=True)
class Estimate:
    model: str
    method: str
    rank: int
    quantization: Quantization
    precision: str  # of the weights: "bf16" or "fp32"
    counts: Counts
    resolved: Resolved
    steps: int
    trainable_parameters: int
    memory: Memory
    speed: Speed | None
    bill: Bill

    @property
    def tokens(self) -> int:
        """Through the model in all epochs."""
        return self.counts.tokens * self.resolved.n_epochs

    def to_json(self) -> dict[str, Any]:
        memory = {**asdict(self.memory), "total_bytes": self.memory.total_bytes}
        return {**asdict(self), "tokens": self.tokens, "memory": memory}


def estimate(settings: Settings, state: State, project_id: str, plan: Plan) -> Estimate:
    """Reads and tokenises the file, reads the headers of the base's files, and looks the speed up in the ledger.

    Raises: TrainingDataError, InvalidInputError, ModelNotFoundError: what a run would raise, before it is begun.
    """
    data = read_training_file(plan.file, method=None)
    base = ModelStore(settings.place.models).get(plan.model, "base")
    refuse_unservable_plan(base.path, rank=plan.rank, max_rank=settings.engine.largest_lora_rank)
    tokenizer = load_tokenizer(base.path)
    build: Any = build_preference_rows if data.method == "dpo" else build_rows
    rows = build(
        tokenizer,
        data.examples,
        max_tokens=settings.training.max_tokens,
        shown_as=plan.file.name,
        over_long=settings.training.over_long,
    )
    counts = Counts.of(rows, data.method)
    asked = plan.hyperparameters.for_method(data.method)
    resolved = asked.resolve(counts.examples, hidden_size(base.path))
    shape, precision = ModelShape.read(base.path), _precision_here()
    speed = measured_speed(
        state, project_id, plan, data.method, base_sha256=base.manifest.sha256, hardware=this_hardware()
    )
    return Estimate(
        model=base.name,
        method=data.method,
        rank=plan.rank,
        quantization=plan.quantization,
        precision=precision,
        counts=counts,
        resolved=resolved,
        steps=total_steps(counts, resolved),
        trainable_parameters=shape.lora_parameters(plan.rank),
        memory=memory_needed(
            shape,
            counts,
            rank=plan.rank,
            batch_size=resolved.batch_size,
            micro_batch_tokens=settings.training.micro_batch_tokens,
            weight_bytes=2 if precision == "bf16" else 4,
            quantization=plan.quantization,
        ),
        speed=speed,
        bill=bill(
            counts.tokens * resolved.n_epochs,
            speed,
            machine_usd_per_hour=settings.cost.machine_usd_per_hour,
            hosted_usd_per_million_tokens=settings.cost.hosted_training_usd_per_million_tokens,
        ),
    )


def total_steps(counts: Counts, resolved: Resolved) -> int:
    """The last batch of an epoch may be short."""
    return resolved.n_epochs * math.ceil(counts.examples / resolved.batch_size)


def memory_needed(
    shape: ModelShape,
    counts: Counts,
    *,
    rank: int,
    batch_size: int,
    micro_batch_tokens: int,
    weight_bytes: int,
    quantization: Quantization = "none",
) -> Memory:
    """Weights + adapter with gradients and Adam's moments + activations of one micro-batch: an estimate.

    `weight_bytes` w is 2 for bf16 and 4 for fp32. With T padded tokens a micro-batch, L layers, hidden size h,
    inner size i and vocabulary V, activations are T L (28 h + 4 w i) + 32 T V. Where a single example is longer
    than a micro-batch should be, layers are computed again: T (w L h + 28 h + 4 w i) + 32 T V. The constants name
    their sources. Other kinds of layers, and kernels that fuse the loss, differ.
    """
    tokens = min(max(counts.longest_tokens, micro_batch_tokens), batch_size * counts.longest_tokens)
    layer = HIDDEN_BYTES * shape.hidden_size + INNER_TENSORS * weight_bytes * shape.inner_size
    if counts.longest_tokens > micro_batch_tokens:
        layers = layer + shape.layers * shape.hidden_size * weight_bytes
    else:
        layers = layer * shape.layers
    return Memory(
        weights_bytes=_weights_bytes(shape, weight_bytes, quantization),
        adapter_bytes=ADAPTER_BYTES * shape.lora_parameters(rank),
        activations_bytes=tokens * (layers + LOGIT_BYTES * shape.vocabulary),
    )


def measured_speed(
    state: State, project_id: str, plan: Plan, method: Method, *, base_sha256: str, hardware: Hardware
) -> Speed | None:
    """The rate of the newest job that trained this base in the same way on such hardware; None: there was none."""
    with state.reading() as session:
        query = select(LedgerEntry).where(LedgerEntry.project_id == project_id, LedgerEntry.kind == "training")
        entries = session.scalars(query.order_by(LedgerEntry.created_at.desc(), LedgerEntry.id)).all()
    for entry in entries:
        facts = entry.facts
        if (
            facts.get("base_sha256") == base_sha256
            and _same_way(facts, plan, method)
            and _alike(entry.hardware, hardware)
        ):
            return Speed(facts["tokens"] / facts["loop_seconds"], facts["job_id"])
    return None


def bill(
    tokens: int, speed: Speed | None, *, machine_usd_per_hour: float, hosted_usd_per_million_tokens: float | None
) -> Bill:
    """What `tokens` through the model, all epochs together, cost here and on the hosted API, which bills each."""
    hours = None if speed is None else tokens / speed.tokens_per_second / SECONDS_PER_HOUR
    price = hosted_usd_per_million_tokens
    return Bill(
        hours=hours,
        here_usd=None if hours is None else hours * machine_usd_per_hour,
        hosted_usd=None if price is None else tokens / TOKENS_PER_MILLION * price,
    )


def _weights_bytes(shape: ModelShape, weight_bytes: int, quantization: Quantization) -> int:
    if quantization == "none":
        return shape.parameters * weight_bytes
    return round(shape.linear_parameters * NF4_BYTES + (shape.parameters - shape.linear_parameters) * weight_bytes)


def _same_way(facts: dict[str, Any], plan: Plan, method: Method) -> bool:
    way = (facts.get("method", "supervised"), facts.get("quantization", "none"))
    return way == (method, plan.quantization) and facts["loop_seconds"] > 0


def _alike(there: dict[str, Any], here: Hardware) -> bool:
    """Memory is left out: the kernel reports a little more or less of it from start to start."""
    return (there["device"], there["name"], there["cores"]) == (here.device, here.name, here.cores)


def _precision_here() -> str:
    with quiet_libraries():
        return compute_precision()
