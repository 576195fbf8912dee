"""Passages a second by the product's encoder, and by sentence-transformers, which sorts by length, in bf16."""

import statistics
from typing import Any

from acceptance import flops, models, texts, timing
from acceptance.bench import Bench, Figures, Note

# Tokens of a passage, and how many passages.
FULL = ((128, 8192), (512, 2048))
SMALL = ((16, 16), (64, 8))
# What the baseline is tried with; its best counts.
BATCH_SIZES, BATCH_SIZES_SMALL = (32, 128, 512), (8,)
WARM, TIMES = 1, 3
SEED = 7


def run(bench: Bench, note: Note) -> Figures:
    from index.encoding.encoder import Encoder
    from index.encoding.torch_model import load
    from local_llm.encoder_recipe import recipe_of
    from local_llm.models import ModelStore

    shape = "bge-least" if bench.small else "bge-base"
    store = ModelStore(bench.work / "store")
    model = store.find(shape) or store.import_folder(models.encoder(bench, shape), name=shape)
    precision: Any = "float32" if bench.small else "bfloat16"
    ours = Encoder(model.path, bench.device, precision)
    plain = load(model.path, recipe_of(model.path, precision), bench.device)
    sizes, peak = models.encoder_sizes(shape), float(bench.machine["peak_operations_per_second"])
    figures: Figures = {"shape": shape, "precision": precision, "lengths": []}
    for tokens, count in SMALL if bench.small else FULL:
        passages = texts.texts_of(tokens, count, models.encoder_vocabulary(bench), SEED)
        seconds = _seconds(lambda p=passages: ours.encode_documents(p), bench)
        baseline = {
            size: count / _seconds(lambda p=passages, s=size: _plainly(plain, p, s), bench)
            for size in (BATCH_SIZES_SMALL if bench.small else BATCH_SIZES)
        }
        floor = flops.encoding(sizes, [tokens] * count) / peak
        figures["lengths"].append(
            {
                "tokens": tokens,
                "passages": count,
                "tokens_read": ours.encode(passages[:1], "document").tokens[0],
                "passages_per_second": count / seconds,
                "seconds_per_thousand": 1e3 * seconds / count,
                "floor_seconds_per_thousand": 1e3 * floor / count,
                "utilisation": floor / seconds,
                "baseline_passages_per_second": baseline,
                "over_baseline": count / seconds / max(baseline.values()),
            }
        )
        note(figures)
    return figures


def _plainly(model: Any, passages: list[str], batch_size: int) -> Any:
    return model.encode(passages, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)


def _seconds(work: Any, bench: Bench) -> float:
    return statistics.median(timing.seconds_of(work, bench.device, warm=WARM, times=TIMES))
