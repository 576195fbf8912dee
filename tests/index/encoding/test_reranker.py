"""Cross-encoders: recognised by their folder, and scored as transformers scores them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.encoding.reranker import Reranker
from local_llm.models import ModelStore, kind_of_folder, read_manifest

MakeModel = Callable[..., Path]

QUERY = "When does the ferry leave?"
TEXTS = ["The ferry leaves at seven.", "Bread needs salt.", "x " * 600]


def test_a_classifier_with_one_label_is_a_reranker_and_with_two_is_not(make_model: MakeModel) -> None:
    assert read_manifest(make_model("cross", labels=1)).kind == "reranker"
    assert read_manifest(make_model("classes", labels=2)).kind == "encoder"
    assert read_manifest(make_model("plain")).kind == "encoder"


def test_scores_are_the_models_own_in_the_order_of_the_texts(make_model: MakeModel) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = make_model("cross", labels=1)
    scores = Reranker(path, "cpu").scores(QUERY, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True).eval()
    expected = []
    for text in TEXTS:
        inputs = tokenizer(QUERY, text, return_tensors="pt", truncation="longest_first", max_length=512)
        with torch.inference_mode():
            expected.append(float(torch.sigmoid(model(**inputs).logits[0, 0])))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert len(set(np.argsort(scores).tolist())) == 3


def test_nothing_to_score_is_no_scores(make_model: MakeModel) -> None:
    assert Reranker(make_model("cross", labels=1), "cpu").scores(QUERY, []).shape == (0,)


def test_a_cross_encoder_saved_by_sentence_transformers_is_a_reranker(
    make_model: MakeModel, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    path = make_model("cross", labels=1)
    sentence_transformers.CrossEncoder(str(path), device="cpu", local_files_only=True).save_pretrained(
        str(tmp_path / "saved")
    )
    assert kind_of_folder(tmp_path / "saved") == "reranker"
    copied = ModelStore(tmp_path / "models").import_folder(tmp_path / "saved", name="saved").path
    before, after = (Reranker(one, "cpu").scores(QUERY, TEXTS) for one in (path, copied))
    np.testing.assert_allclose(before, after, atol=1e-6)
