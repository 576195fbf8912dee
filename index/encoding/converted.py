"""int8 encoders, made once from the imported ones, measured against them, and kept only if they rank as well.

They lie in HOME/derived/ and may be deleted at any time: they are made again.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.encoding import openvino_graph, torch_model
from index.encoding.probe import Probe, calibration_texts, probe
from local_llm.encoder_recipe import Precision, fingerprint_of, recipe_of
from local_llm.errors import ConflictError, SettingsError
from local_llm.fileio import read_json, remove_staging, staged_directory, write_json
from local_llm.hardware import gpu_name
from local_llm.locks import exclusive_lock

Vectors = NDArray[np.float32]
Setting = Literal["auto", "float32", "int8"]

CHECK = "check.json"
# Of nDCG@10, relative.
MOST_LOSS = 0.005
DEPTH = 10
BATCH = 32
CALIBRATION_WORDS = 60


@dataclass(frozen=True)
class Check:
    """What came of converting an encoder. Losses are relative, of nDCG@10; None if there was nothing to measure.

    `loss` is against the probe's right answers, `rank_loss` against the order in which float32 ranks its passages.
    `files` are those of the graph, with their bytes.
    """

    kept: bool
    reason: str
    loss: float | None = None
    rank_loss: float | None = None
    seconds: float = 0.0
    files: dict[str, int] = field(default_factory=dict)


def precision_for(path: Path, setting: Setting, device: str, derived: Path) -> Precision:
    """The precision that a setting means for this encoder here; converts it if that was not done yet.

    Raises: SettingsError for int8 on a GPU; ConflictError if int8 was asked for and does not hold the scores.
    """
    if setting == "float32":
        return "float32"
    if _on_gpu(device) and setting == "auto":
        return "bfloat16"
    if _on_gpu(device):
        raise SettingsError(
            "index.precision = 'int8' is for the CPU", hint='set index.precision = "auto", or index.device = "cpu"'
        )
    check = convert_once(path, derived)
    if check.kept:
        return "int8"
    if setting == "int8":
        raise ConflictError(f"{path.name} has no int8 form: {check.reason}", hint='set index.precision = "auto"')
    return "float32"


def int8_is_wanted(setting: Setting, device: str) -> bool:
    return setting != "float32" and not _on_gpu(device)


def _on_gpu(device: str) -> bool:
    return device == "cuda" or (device == "auto" and gpu_name() is not None)


def stored_check(path: Path, derived: Path) -> Check | None:
    """None if the encoder was not converted yet, or what came of it was deleted."""
    folder = folder_of(path, derived)
    try:
        check = Check(**read_json(folder / CHECK))
        whole = all((folder / name).stat().st_size == size for name, size in check.files.items())
    except (OSError, ValueError, TypeError):
        return None
    return check if whole else None


def convert_once(path: Path, derived: Path, talk: Callable[[str], None] | None = None) -> Check:
    """What is stored, else the encoder is converted and measured: about a minute for a small one on one core."""
    check = stored_check(path, derived)
    if check is not None:
        return check
    if find_spec("openvino") is None:
        # Not stored: it may be installed tomorrow.
        return Check(kept=False, reason="the package openvino is not installed")
    with exclusive_lock(derived / ".lock", "converting an encoder", wait=True):
        check = stored_check(path, derived)
        if check is None:
            if talk is not None:
                talk(f"converting {path.name} to int8 and measuring what it loses ...")
            remove_staging(derived)
            shutil.rmtree(folder_of(path, derived), ignore_errors=True)
            check = _publish(path, folder_of(path, derived))
    return check


def folder_of(path: Path, derived: Path) -> Path:
    """Named after what it is made of: the encoder's files, pooling, prompts and how it is quantized."""
    return derived / f"encoder-{fingerprint_of(path, 'int8')[:32]}"


def _publish(path: Path, folder: Path) -> Check:
    with staged_directory(folder) as staging:
        check = _convert(path, staging)
        if not check.kept:
            for file in list(staging.iterdir()):
                file.unlink()
        write_json(staging / CHECK, asdict(check))
    return check


def _convert(path: Path, staging: Path) -> Check:
    started = perf_counter()
    recipe = recipe_of(path)
    try:
        original = torch_model.TorchModel(path, recipe, "cpu")
        words = calibration_words(original.model.tokenizer.get_vocab())
        openvino_graph.convert(original.model, staging, calibration_texts(words, CALIBRATION_WORDS))
        converted = openvino_graph.OpenVINOModel(staging)
        loss, rank_loss = losses(
            *(_probe_vectors(model, recipe.query_prompt, recipe.document_prompt) for model in (original, converted))
        )
    except Exception as error:
        # Any model may be imported, and tracing it can fail in as many ways as there are models.
        return Check(kept=False, reason=f"it cannot be converted: {type(error).__name__}: {str(error)[:300]}")
    kept = max(loss, rank_loss) <= MOST_LOSS
    told = f"{100 * loss:.2f} % of nDCG@10 lost, {100 * rank_loss:.2f} % against the order of float32"
    reason = told if kept else f"{told}; at most {100 * MOST_LOSS:.1f} % is allowed"
    files = {file.name: file.stat().st_size for file in staging.iterdir()} if kept else {}
    return Check(kept, reason, round(loss, 6), round(rank_loss, 6), round(perf_counter() - started, 1), files)


def calibration_words(vocabulary: dict[str, int]) -> list[str]:
    """Whole words of a vocabulary, in the order of their ids."""
    plain = [word.lstrip("▁Ġ") for word in sorted(vocabulary, key=lambda word: vocabulary[word])]
    return [word for word in plain if word.isalpha()] or ["the"]


def losses(exact: tuple[Vectors, Vectors], rounded: tuple[Vectors, Vectors]) -> tuple[float, float]:
    """Relative losses of nDCG@10: against the right answers, and against float32's order.

    Each side gives the vectors of its questions and of its passages.
    """
    scores, others = exact[0] @ exact[1].T, rounded[0] @ rounded[1].T
    gold = np.zeros_like(scores)
    for question, answer in enumerate(probe().answers):
        gold[question, answer] = 1
    true_score, true_other = ndcg(scores, gold), ndcg(others, gold)
    loss = (true_score - true_other) / true_score if true_score else 0.0
    return loss, 1 - ndcg(others, graded(scores))


def graded(scores: Vectors) -> Vectors:
    """Relevances [questions, passages] after float32's own scores: by how much one of the first ten stands out
    above the eleventh; 0 for the rest. Two passages of nearly one score may change places at little cost."""
    eleventh = np.sort(scores, axis=1)[:, -DEPTH - 1, None]
    return np.maximum(scores - eleventh, 0)


def ndcg(scores: Vectors, relevances: Vectors) -> float:
    """Mean nDCG@10 with linear gains. Source: Järvelin & Kekäläinen, 2002."""
    depth = min(DEPTH, scores.shape[1])
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    reached = np.take_along_axis(relevances, order, axis=1) @ discounts
    best = -np.sort(-relevances, axis=1)[:, :depth] @ discounts
    return float(np.mean(reached / np.where(best > 0, best, 1)))


def _probe_vectors(
    model: torch_model.TorchModel | openvino_graph.OpenVINOModel, query_prompt: str, document_prompt: str
) -> tuple[Vectors, Vectors]:
    known: Probe = probe()
    return _all(model, known.questions, query_prompt), _all(model, known.passages, document_prompt)


def _all(
    model: torch_model.TorchModel | openvino_graph.OpenVINOModel, texts: Sequence[str], prompt: str
) -> Vectors:
    ids = model.tokenizer.read([prompt + text for text in texts]).ids
    batches = [
        model.encode(texts[start : start + BATCH], prompt, ids[start : start + BATCH])
        for start in range(0, len(texts), BATCH)
    ]
    vectors = np.concatenate(batches)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
