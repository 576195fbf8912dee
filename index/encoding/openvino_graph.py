"""An encoder as one int8 graph: the home of OpenVINO.

Weights are rounded per output channel, inputs of a layer per tensor, with a scale fixed beforehand by calibration:
a text's vector does not depend on the texts in its batch. Before rounding, a layer's input channels are evened out
at the expense of its weights (Source: Xiao et al., 2023, "SmoothQuant"). Everything but the products of linear
layers stays in floating point.

The graph is read by OpenVINO's PyTorch frontend directly: `openvino.convert_model` reports its use to a server.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.encoding.tokens import TextTokenizer, padded
from local_llm.fileio import read_json, write_json

Floats = NDArray[np.float32]

GRAPH, FACTS, TOKENIZER = "model.xml", "facts.json", "tokenizer.json"
# How much of a channel's range moves into the weights. Of 0, 0.5 and 0.8 on all-MiniLM-L6-v2 the last kept the
# vectors nearest to those of float32 (cosines .993, .987, .998).
SMOOTHING = 0.8
LEVELS = 256


class OpenVINOModel:
    """An int8 graph that `convert` wrote into `folder`. Loads neither torch nor transformers."""

    def __init__(self, folder: Path):
        import openvino

        facts = read_json(folder / FACTS)
        self.dimension = int(facts["dimension"])
        self.tokenizer = TextTokenizer((folder / TOKENIZER).read_text(encoding="utf-8"), facts["max_tokens"])
        self._pad_id = int(facts["pad_id"])
        options = {
            "INFERENCE_NUM_THREADS": _threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, two processes on one machine would share a core and leave another idle.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = openvino.Core().compile_model(str(folder / GRAPH), "CPU", options)
        self._request = compiled.create_infer_request()

    def encode(self, _texts: Sequence[str], _prompt: str, ids: Sequence[Sequence[int]]) -> Floats:
        """One batch, prompts already among the ids. Returns: float32 [texts, dimension]."""
        tokens, mask = padded(ids, self._pad_id)
        return np.array(self._request.infer({"input_ids": tokens, "attention_mask": mask})[0], np.float32)


def convert(model: Any, folder: Path, calibration: Iterable[str]) -> None:
    """Writes a SentenceTransformer on the CPU into `folder` as an int8 graph with its tokenizer.

    Raises: whatever torch or OpenVINO raise for a model that they cannot trace.
    """
    import openvino

    tokenizer = TextTokenizer(model.tokenizer.backend_tokenizer.to_str(), model.max_seq_length)
    with warnings.catch_warnings():
        # Of branches that tracing takes one way: what came of it is measured before it is used.
        warnings.simplefilter("ignore")
        graph = _traced(model)
    _quantize(graph, [_feed([ids]) for ids in tokenizer.read(list(calibration)).ids])
    openvino.save_model(graph, str(folder / GRAPH), compress_to_fp16=False)
    (folder / TOKENIZER).write_text(model.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    facts = {
        "dimension": int(model.get_embedding_dimension()),
        "max_tokens": int(model.max_seq_length),
        "pad_id": int(model.tokenizer.pad_token_id or 0),
        "openvino": openvino.__version__,
    }
    write_json(folder / FACTS, facts)


def _traced(model: Any) -> Any:
    import openvino
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    class Pipeline(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps = torch.nn.ModuleList(model)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            for step in self.steps:
                features = step(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], p=2, dim=1)

    # Two rows and a padded end: a trace must see the mask at work.
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    example = {"input_ids": torch.arange(18).reshape(2, 9) % model.tokenizer.vocab_size, "attention_mask": mask}
    with torch.inference_mode():
        decoder = TorchScriptPythonDecoder(Pipeline().eval(), example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    graph = frontend.convert(frontend.load(decoder))
    for parameter in graph.get_parameters():
        parameter.set_partial_shape(openvino.PartialShape([-1, -1]))
        parameter.set_element_type(openvino.Type.i64)
    graph.validate_nodes_and_infer_types()
    return graph


def _quantize(graph: Any, feeds: Sequence[dict[str, Any]]) -> None:
    groups = _linear_layers(graph)
    for (source, layers), (low, high) in zip(groups, _ranges(graph, groups, feeds), strict=True):
        _round_layers(source, layers, low, high)
    graph.validate_nodes_and_infer_types()


def _linear_layers(graph: Any) -> list[tuple[Any, list[Any]]]:
    """Products with a constant matrix, those of one input together: (input, products)."""
    groups: dict[tuple[str, int], tuple[Any, list[Any]]] = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _matrix_node(node) is not None:
            source = node.input_value(0)
            key = (source.get_node().get_friendly_name(), source.get_index())
            groups.setdefault(key, (source, []))[1].append(node)
    return list(groups.values())


def _matrix_node(product: Any) -> Any | None:
    node = product.input_value(1).get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    inputs = product.input_value(0).get_partial_shape().rank
    constant = node.get_type_name() == "Constant" and len(node.shape) == 2
    return node if constant and inputs.is_static and inputs.get_length() >= 2 else None


def _matrix(product: Any) -> Floats:
    """float32 [outputs, inputs]"""
    node = _matrix_node(product)
    assert node is not None
    data = np.asarray(node.data, dtype=np.float32)
    return data if product.get_attributes()["transpose_b"] else data.T


def _ranges(graph: Any, groups: list[tuple[Any, list[Any]]], feeds: Sequence[dict[str, Any]]) -> list[Any]:
    """For each group: least and greatest value of each input channel over all feeds."""
    import openvino
    from openvino import opset13 as ops

    watched = []
    for source, _ in groups:
        rows = ops.constant(np.arange(source.get_partial_shape().rank.get_length() - 1))
        watched += [ops.result(ops.reduce_min(source, rows)), ops.result(ops.reduce_max(source, rows))]
    observed = openvino.Model(watched, graph.get_parameters(), "calibration")
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": _threads()}
    compiled = openvino.Core().compile_model(observed, "CPU", options)
    seen = [[np.array(compiled_output) for compiled_output in compiled(feed).values()] for feed in feeds]
    return [
        (np.min([one[2 * at] for one in seen], axis=0), np.max([one[2 * at + 1] for one in seen], axis=0))
        for at in range(len(groups))
    ]


def _round_layers(source: Any, layers: list[Any], low: Floats, high: Floats) -> None:
    from openvino import opset13 as ops

    matrices = [_matrix(layer) for layer in layers]
    smoothing = _smoothing(np.maximum(np.abs(low), np.abs(high)), matrices)
    least, greatest = _grid(float((low / smoothing).min()), float((high / smoothing).max()))
    bounds = [ops.constant(np.array(value, np.float32)) for value in (least, greatest)]
    evened = ops.multiply(source, ops.constant((1 / smoothing).astype(np.float32)))
    rounded = ops.fake_quantize(evened, *bounds, *bounds, LEVELS)
    for layer, matrix in zip(layers, matrices, strict=True):
        weights, scale = _int8(matrix * smoothing)
        restored = ops.multiply(ops.convert(ops.constant(weights), "f32"), ops.constant(scale))
        product = ops.matmul(rounded, restored, False, True)
        layer.output(0).replace(product.output(0))


def _smoothing(reach: Floats, matrices: list[Floats]) -> Floats:
    """By what each input channel is divided, and the weights of that channel multiplied."""
    weights = np.max([np.abs(matrix).max(axis=0) for matrix in matrices], axis=0)
    scale = np.maximum(reach, 1e-5) ** SMOOTHING / np.maximum(weights, 1e-5) ** (1 - SMOOTHING)
    return np.clip(scale, 1e-4, 1e4)


def _grid(low: float, high: float) -> tuple[float, float]:
    """The range widened so that 0 lies on one of its levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / (LEVELS - 1), 1e-12)
    below = round(-low / step)
    return -below * step, (LEVELS - 1 - below) * step


def _int8(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Weights in -127..127 and the scale of each output channel, [outputs, 1]."""
    scale = np.maximum(np.abs(matrix).max(axis=1, keepdims=True) / 127, 1e-12).astype(np.float32)
    return np.clip(np.round(matrix / scale), -127, 127).astype(np.int8), scale


def _feed(ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    tokens, mask = padded(ids, 0)
    return {"input_ids": tokens, "attention_mask": mask}


def _threads() -> int:
    """As many as torch would take: OMP_NUM_THREADS, else the cores that are ours."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    return int(named) if named.isdigit() and int(named) else len(os.sched_getaffinity(0))
