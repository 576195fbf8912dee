"""An adapter merged into its base: a model of its own, compared with what it came from before it is published."""

import gc
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from local_llm.errors import ConflictError, InsufficientMemoryError, IntegrityError, InvalidInputError
from local_llm.fileio import read_json, staged_directory, write_json
from local_llm.fitting import changes_embeddings
from local_llm.hardware import available_memory_gib
from local_llm.identifiers import now
from local_llm.models import MANIFEST, Manifest, Model, record_files
from local_llm.tensors import model_tensors
from training.examples.labels import load_tokenizer
from training.lora import merge, with_adapter
from training.quiet import quiet_libraries

Report = Callable[[int, int, str], None]  # done and total stages, and the one that begins

Dtype = Literal["bf16", "fp16", "fp32"]
TORCH_NAMES: dict[Dtype, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

# Words, numbers, code and several scripts: a hundred tokens or so, each with a distribution over the vocabulary.
PROBE = (
    "The quick brown fox jumps over 13 lazy dogs; 2 + 2 = 4.\n"
    "Réponse : « voilà ». Ответ. 答えは四十二です。\n"
    '{"key": [1, 2.5, null]}\ndef f(x):\n    return x ** 2\n'
)
# How far the logits may be from those of base and adapter, as a share of their spread (see `difference`); both are
# computed in fp32, so what is left is the order of additions and the rounding of the weights to `dtype`. Seen with
# SmolLM2-135M and a rank-8 adapter: 5e-6, 2e-3 and 2e-2; without the adapter, or with half its scale, 0.5 and more.
TOLERANCES: dict[Dtype, float] = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 6e-2}

WEIGHT_BYTES = 4  # everything is computed in fp32
OVERHEAD_GIB = 1.5  # torch and transformers, and the logits
LICENCE_FILES = ("LICEN[CS]E*", "NOTICE*", "USE_POLICY*")
STAGES = ("loading the base and the adapter", "merging", "writing", "reading it back and comparing")


@dataclass(frozen=True)
class Merged:
    path: Path
    dtype: Dtype
    difference: float  # of the logits as read back, as a share of their spread
    tolerance: float


def export_merged(
    base: Model, adapter: Path, output: Path, *, source: str, dtype: Dtype = "bf16", report: Report
) -> Merged:
    """Writes base plus adapter to the new folder `output`: safetensors, configuration, tokenizer, and a manifest by
    which `models import` checks it. Works in the computer's memory, not the GPU's: the engine may hold that.

    Raises: ConflictError if `output` is there; InvalidInputError for a quantised base; InsufficientMemoryError;
        IntegrityError if the logits are not those of base and adapter. Nothing is left then.
    """
    _refuse_unmergeable(base, output)
    with quiet_libraries():
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        _tell(report, 0)
        tokenizer = load_tokenizer(base.path)
        adapted = with_adapter(_load(base.path, untied=changes_embeddings(adapter)), adapter)
        expected = _logits(adapted, tokenizer)
        _tell(report, 1)
        model = merge(adapted)
        _refuse_difference(difference(expected, _logits(model, tokenizer)), "fp32", "in memory")
        _tell(report, 2)
        with staged_directory(output) as staging:
            _write(model, tokenizer, base.path, staging, dtype)
            del adapted, model
            gc.collect()
            _tell(report, 3)
            found = difference(expected, _logits(_load(staging), tokenizer))
            _refuse_difference(found, dtype, "as written")
            _write_manifest(staging, output.name, source, base.manifest.licence)
    report(len(STAGES), len(STAGES), "")
    return Merged(output, dtype, found, TOLERANCES[dtype])


def difference(expected: Any, found: Any) -> float:
    """How far logits [positions, vocabulary] are apart: the norm of the difference over that of the expected ones,
    each position's mean taken off, because a softmax does not see it.
    """
    centred = expected - expected.mean(-1, keepdim=True)
    change = found - expected
    return float((change - change.mean(-1, keepdim=True)).norm() / centred.norm())


def _refuse_unmergeable(base: Model, output: Path) -> None:
    if output.exists():
        raise ConflictError(f"{output} is already there", hint="choose another --output")
    if "quantization_config" in read_json(base.path / "config.json"):
        raise InvalidInputError(
            f"{base.name} is quantised; an adapter can be merged into plain weights only",
            hint="import the unquantised model and train on that",
        )
    parameters = sum(tensor.elements for tensor in model_tensors(base.path).values())
    needed, available = parameters * WEIGHT_BYTES / 1024**3 + OVERHEAD_GIB, available_memory_gib()
    if needed > available:
        raise InsufficientMemoryError(
            f"merging into {base.name} needs about {needed:.1f} GiB of memory, but {available:.1f} are available",
            hint="free memory, or merge on a larger machine",
        )


def _load(folder: Path, *, untied: bool = False) -> Any:
    """The model in fp32. `untied`: with an output layer of its own where the embeddings serve as one, since an
    update merged into shared weights would change both."""
    model = _from_pretrained(folder)
    embeddings = model.get_input_embeddings().weight
    if not untied or model.get_output_embeddings().weight is not embeddings:
        return model
    del model
    model = _from_pretrained(folder, tie_word_embeddings=False)
    model.get_output_embeddings().weight.data.copy_(embeddings.data)
    return model


def _from_pretrained(folder: Path, **changes: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **changes
    ).eval()


def _logits(model: Any, tokenizer: Any) -> Any:
    import torch

    tokens = torch.tensor([tokenizer(PROBE, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        return model(input_ids=tokens, use_cache=False).logits[0].float().clone()


def _refuse_difference(found: float, dtype: Dtype, where: str) -> None:
    tolerance = TOLERANCES[dtype]
    if not found <= tolerance:  # NaN too
        raise IntegrityError(
            f"the merged model {where} ({dtype}) does not answer as base and adapter do: its logits differ by "
            f"{found:.2g} of their spread; expected at most {tolerance:g}",
            hint="try --dtype fp32, or serve the adapter on its base",
        )


def _write(model: Any, tokenizer: Any, base: Path, folder: Path, dtype: Dtype) -> None:
    import torch

    vars(model.config).pop("auto_map", None)  # names code of the base's that is not brought along
    model.to(getattr(torch, TORCH_NAMES[dtype])).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for pattern in LICENCE_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _write_manifest(folder: Path, name: str, source: str, licence: str) -> None:
    manifest = Manifest(name, "base", source, licence, now(), record_files(folder))
    write_json(folder / MANIFEST, asdict(manifest))


def _tell(report: Report, stage: int) -> None:
    report(stage, len(STAGES), STAGES[stage])
