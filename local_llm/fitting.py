"""Whether an adapter's tensors belong to a base: the same modules, the same sizes, and none that vLLM leaves out.

Source: vLLM 0.32, lora/utils.py (names of tensors) and the `embedding_modules` of its models.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.fileio import read_json
from local_llm.servable import WEIGHTS
from local_llm.tensors import FLOATS, Tensor, model_tensors, read_tensors

SHOWN_REASONS = 5

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings")
HEAD = "lm_head"
EMBEDDINGS_AND_HEAD = frozenset(
    f"{name}ForCausalLM"
    for name in (
        "Apertus", "Ernie4_5", "Exaone4", "FalconH1", "Granite", "GraniteMoe", "GraniteMoeHybrid",
        "GraniteMoeShared", "HyperCLOVAX", "InternLM3", "Jamba", "Lfm2", "Lfm2Moe", "Llama", "Llama4", "MiniCPM",
        "Mixtral", "Nemotron", "NemotronH", "Phi3", "PhiMoE", "Qwen3", "Qwen3Moe", "Qwen3_5", "Qwen3_5Moe", "Solar",
    )
)  # fmt: skip
EMBEDDINGS_ONLY = frozenset(("CohereForCausalLM", "Cohere2ForCausalLM"))
# vLLM leaves LoRA on what sees and hears out, unless told otherwise.
TOWERS = re.compile(r"(^|\.)(vision|visual|audio|multi_modal_projector|connector)")

# Experts stacked into one tensor, as PEFT adapts them: vLLM takes that where it stacks them too.
STACKED_EXPERTS = re.compile(r"\.experts(\.base_layer)?$")
STACKS_EXPERTS = (
    "GptOssForCausalLM", "Qwen3_5MoeForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"
)  # fmt: skip

# PEFT puts `base_model.model.` before the names of the model's own modules.
TENSOR_NAME = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?:lora_(?P<part>[AB])\.weight|lora_embedding_(?P<row_part>[AB]))"
)
# The base's embeddings, which PEFT saves beside an adapter that changes them; vLLM passes them over.
SAVED_BASE = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")


@dataclass
class Pair:
    """The two matrices of one adapted module: A is [rank, in], B is [out, rank]."""

    embedding: bool = False  # A is looked up by token, not multiplied
    parts: dict[str, Tensor] = field(default_factory=dict)


def refuse_misfit(folder: Path, config: dict[str, Any], base: Path) -> None:
    """Compares an adapter's tensors with those of the base in the folder `base`, by names and shapes.

    Raises: InvalidInputError if they do not belong together, or vLLM would not apply all of them.
    """
    pairs, reasons = _pairs(read_tensors(folder / WEIGHTS))
    weights = BaseWeights.read(base)
    ranks = {config["r"], *(config.get("rank_pattern") or {}).values()}
    for module, pair in sorted(pairs.items()):
        reasons += _pair_reasons(module, pair, ranks) or weights.reasons(module, pair)
    if not pairs:
        reasons.append("it holds no LoRA weights")
    if reasons:
        more = f"; and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
        raise InvalidInputError(
            f"the adapter in {folder} does not fit {base.name}: {'; '.join(reasons[:SHOWN_REASONS])}{more}",
            hint="give the base model that it was trained on: --base NAME",
        )


def changes_embeddings(folder: Path) -> bool:
    """Whether the adapter in `folder` changes the embeddings or the output layer, which may share their weights."""
    pairs, _ = _pairs(read_tensors(folder / WEIGHTS))
    return any(module.rpartition(".")[2] in (*EMBEDDINGS, HEAD) for module in pairs)


@dataclass(frozen=True)
class BaseWeights:
    """The modules of a base model, by the names that PEFT and its file may both use."""

    architecture: str
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> "BaseWeights":
        architectures = read_json(folder / "config.json").get("architectures") or ["unknown"]
        return cls(architectures[0], {_core(name): tensor for name, tensor in model_tensors(folder).items()})

    def reasons(self, module: str, pair: Pair) -> list[str]:
        """Why an adapter of this module would not be applied to this base."""
        name = _core(module)
        last = name.rpartition(".")[2]
        if TOWERS.search(name):
            return [f"{module} is outside the language model, where the engine applies no adapter"]
        if last in (*EMBEDDINGS, HEAD) and not self._takes(last):
            return [f"the engine applies no adapter to {last} of {self.architecture}"]
        if STACKED_EXPERTS.search(name):
            stacks = self.architecture in STACKS_EXPERTS
            return [] if stacks else [f"{module} is a stack of experts, which the engine applies one by one"]
        if not self._has(name):
            return [f"{module} is no module of it"]
        expected, found = self._sizes(name, pair.embedding), _sizes_of(pair)
        if expected is not None and found != expected:
            return [f"{module} is {found[0]} to {found[1]}; expected {expected[0]} to {expected[1]}"]
        return []

    def _takes(self, embedding: str) -> bool:
        both = self.architecture in EMBEDDINGS_AND_HEAD
        return both or (embedding != HEAD and self.architecture in EMBEDDINGS_ONLY)

    def _has(self, name: str) -> bool:
        return self._weight(name) is not None or any(other.startswith(f"{name}.") for other in self.tensors)

    def _weight(self, name: str) -> Tensor | None:
        tensor = self.tensors.get(f"{name}.weight")
        if tensor is None and name == HEAD:  # tied: the file holds the embeddings once
            return next(
                (self.tensors[f"{one}.weight"] for one in EMBEDDINGS if f"{one}.weight" in self.tensors), None
            )
        return tensor

    def _sizes(self, name: str, embedding: bool) -> tuple[int, int] | None:
        """Features in and out; None where the weight is packed by a quantisation, and its shape says nothing."""
        tensor = self._weight(name)
        if tensor is None or tensor.dtype not in FLOATS or len(tensor.shape) != 2:
            return None
        rows, columns = tensor.shape
        return (rows, columns) if embedding else (columns, rows)


def _pairs(tensors: dict[str, Tensor]) -> tuple[dict[str, Pair], list[str]]:
    """The adapted modules, and the names that are none of LoRA's."""
    pairs: dict[str, Pair] = defaultdict(Pair)
    strange = []
    for name, tensor in tensors.items():
        if name.endswith(SAVED_BASE):
            continue
        found = TENSOR_NAME.fullmatch(name)
        if found is None:
            strange.append(f"{name} is no LoRA weight")
            continue
        pair = pairs[found["module"]]
        pair.embedding = found["row_part"] is not None
        pair.parts[found["part"] or found["row_part"]] = tensor
    return pairs, strange


def _pair_reasons(module: str, pair: Pair, ranks: set[int]) -> list[str]:
    """What is wrong with the two matrices by themselves."""
    if set(pair.parts) != {"A", "B"}:
        return [f"{module} has lora_{min(pair.parts)} only"]
    a, b = pair.parts["A"], pair.parts["B"]
    if not {a.dtype, b.dtype} <= set(FLOATS) or not len(a.shape) == len(b.shape) == 2:
        return [f"{module} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}; expected two float matrices"]
    if STACKED_EXPERTS.search(module):  # one adapter an expert, side by side
        return []
    if a.shape[0] != b.shape[1] or a.shape[0] not in ranks:
        expected = " or ".join(str(rank) for rank in sorted(ranks))
        return [f"{module} has the ranks {a.shape[0]} and {b.shape[1]}; its configuration says {expected}"]
    return []


def _sizes_of(pair: Pair) -> tuple[int, int]:
    """Features in and out."""
    return pair.parts["A"].shape[1], pair.parts["B"].shape[0]


def _core(name: str) -> str:
    """A name without `model.` and `language_model.`, which differ between a file and the model as loaded."""
    while (found := re.match(r"(?:model|language_model)\.", name)) is not None:
        name = name[found.end() :]
    return name
