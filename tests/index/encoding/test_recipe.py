"""A folder's own files decide how it is used: pooling, prompts, precision, and so its fingerprint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.encoding.encoder import Encoder
from index.encoding.openvino_graph import OpenVINOModel, convert
from index.encoding.torch_model import load
from local_llm.embedded import ENCODER
from local_llm.encoder_recipe import BGE_QUERY_PROMPT, fingerprint_of, precision_bound_to, recipe_of
from local_llm.models import ModelStore

MakeModel = Callable[..., Path]

TEXTS = [
    "Rain fell on the mill all night.",
    "bread",
    "The ferry leaves at seven, and at nine when the tide is low.",
]


def by_hand(path: Path, texts: list[str], pooling: str) -> np.ndarray:
    """Each text alone through transformers' own model: nothing is padded, nothing is batched."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModel.from_pretrained(path, local_files_only=True).eval()
    rows = []
    for text in texts:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        row = states[0] if pooling == "cls" else states.mean(dim=0)
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


def test_a_plain_bge_folder_gives_the_normalised_first_state(make_model: MakeModel) -> None:
    path = make_model("bge-tiny-en-v1.5")
    vectors = Encoder(path, "cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(vectors, by_hand(path, TEXTS, "cls"), atol=1e-5)
    assert np.abs(vectors - by_hand(path, TEXTS, "mean")).max() > 0.01


def test_a_plain_bge_folder_puts_the_instruction_before_queries_only(make_model: MakeModel) -> None:
    path = make_model("bge-tiny-en-v1.5")
    queries = Encoder(path, "cpu").encode_queries(TEXTS)
    np.testing.assert_allclose(
        queries, by_hand(path, [BGE_QUERY_PROMPT + text for text in TEXTS], "cls"), atol=1e-5
    )


def test_another_plain_folder_gives_the_normalised_mean(make_model: MakeModel) -> None:
    path = make_model("tiny")
    encoder = Encoder(path, "cpu")
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), by_hand(path, TEXTS, "mean"), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), by_hand(path, TEXTS, "mean"), atol=1e-5)


@pytest.mark.parametrize(("name", "pooling"), [("bge-tiny-en-v1.5", "cls"), ("tiny", "mean")])
def test_the_int8_graph_pools_as_the_folder_says(
    make_model: MakeModel, tmp_path: Path, name: str, pooling: str
) -> None:
    pytest.importorskip("openvino")
    path = make_model(name)
    folder = tmp_path / "graph"
    folder.mkdir()
    convert(load(path, recipe_of(path), "cpu"), folder, TEXTS)
    graph = OpenVINOModel(folder)
    vectors = graph.encode(TEXTS, "", graph.tokenizer.read(TEXTS).ids)
    other = "mean" if pooling == "cls" else "cls"
    like = np.sum(vectors * by_hand(path, TEXTS, pooling), axis=1)
    assert like.min() > 0.98
    assert like.min() > np.sum(vectors * by_hand(path, TEXTS, other), axis=1).max()


def test_a_folder_with_modules_is_used_as_they_say(make_model: MakeModel, tmp_path: Path) -> None:
    plain = make_model("bge-tiny-en-v1.5")
    model = load(plain, recipe_of(plain), "cpu")
    model.prompts = {"query": "ask: ", "document": "tell: "}
    model.save(str(tmp_path / "whole"))
    path = ModelStore(tmp_path / "models").import_folder(tmp_path / "whole", name="whole").path
    encoder = Encoder(path, "cpu")
    assert encoder.recipe.pooling is None
    expected = by_hand(plain, ["tell: " + text for text in TEXTS], "cls")
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected, atol=1e-5)
    expected = by_hand(plain, ["ask: " + text for text in TEXTS], "cls")
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)


def test_bfloat16_is_near_float32_and_normalised(make_model: MakeModel) -> None:
    path = make_model("bge-tiny-en-v1.5")
    vectors = Encoder(path, "cpu", "bfloat16").encode_documents(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    likeness = np.sum(vectors * by_hand(path, TEXTS, "cls"), axis=1)
    assert 0.99 < likeness.min() <= likeness.max() < 1 - 1e-7


def test_each_precision_has_a_fingerprint_of_its_own(home: Path) -> None:
    path = home / "models" / ENCODER.name
    prints = {precision: fingerprint_of(path, precision) for precision in ("float32", "bfloat16", "int8")}
    assert len(set(prints.values())) == 3
    assert {name: precision_bound_to(path, value) for name, value in prints.items()} == {
        name: name for name in prints
    }
    assert precision_bound_to(path, "0" * 64) is None


def test_collections_of_before_precisions_keep_their_fingerprint(home: Path) -> None:
    """float32 was the only one: what they are bound to must not have moved."""
    path = home / "models" / ENCODER.name
    assert fingerprint_of(path) == fingerprint_of(path, "float32") == Encoder(path, "cpu").fingerprint
