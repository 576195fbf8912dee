"""int8: made once, measured, kept only if it ranks as well, and made again when it was deleted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.encoding import converted
from index.encoding.encoder import Encoder
from index.encoding.pool import EncoderPool
from local_llm.embedded import ENCODER
from local_llm.encoder_recipe import fingerprint_of
from local_llm.errors import ConflictError, SettingsError

MakeModel = Callable[..., Path]

openvino = pytest.importorskip("openvino")

TEXTS = ["Rain fell on the mill.", "The patient was given two tablets.", "x"] + ["Error E31: restart the Hub."] * 40


@pytest.fixture(scope="module")
def path(home: Path) -> Path:
    return home / "models" / ENCODER.name


@pytest.fixture(scope="module")
def derived(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the embedded encoder converted."""
    folder = tmp_path_factory.mktemp("derived")
    check = converted.convert_once(path, folder)
    assert check.kept, check.reason
    return folder


def test_the_embedded_encoder_keeps_its_ranking_in_int8(path: Path, derived: Path) -> None:
    check = converted.stored_check(path, derived)
    assert check is not None
    assert check.loss is not None
    assert check.rank_loss is not None
    assert max(check.loss, check.rank_loss) <= converted.MOST_LOSS
    assert converted.precision_for(path, "auto", "cpu", derived) == "int8"
    assert converted.precision_for(path, "float32", "cpu", derived) == "float32"


def test_int8_vectors_lie_near_those_of_float32_and_do_not_depend_on_the_batch(path: Path, derived: Path) -> None:
    encoder = Encoder(path, "cpu", "int8", derived)
    vectors, exact = encoder.encode_documents(TEXTS), Encoder(path, "cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    # Least for the one letter, as with any text so short; .998 for sentences.
    assert np.sum(vectors * exact, axis=1).min() > 0.95
    alone = np.concatenate([encoder.encode_documents([text]) for text in TEXTS[:4]])
    assert np.sum(vectors[:4] * alone, axis=1).min() > 0.999
    assert encoder.fingerprint == fingerprint_of(path, "int8")
    assert (encoder.dimension, encoder.max_tokens) == (384, 254)


def test_what_was_deleted_or_cut_short_is_not_taken_for_whole(path: Path, derived: Path, tmp_path: Path) -> None:
    shutil.copytree(derived, tmp_path / "derived")
    folder = converted.folder_of(path, tmp_path / "derived")
    with (folder / "model.bin").open("r+b") as handle:
        handle.truncate(1000)
    assert converted.stored_check(path, tmp_path / "derived") is None
    shutil.rmtree(folder)
    assert converted.stored_check(path, tmp_path / "derived") is None


def test_an_encoder_whose_ranking_suffers_stays_in_float32_and_says_why(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """A small Bert of random weights, made worse: channels far above the others ruin the scales."""
    path = ruined(make_model)
    check = converted.convert_once(path, tmp_path / "derived")
    assert not check.kept
    assert "at most 0.5 % is allowed" in check.reason
    assert sorted(file.name for file in converted.folder_of(path, tmp_path / "derived").iterdir()) == ["check.json"]
    assert converted.stored_check(path, tmp_path / "derived") == check
    assert converted.precision_for(path, "auto", "cpu", tmp_path / "derived") == "float32"
    for ask in (
        lambda: converted.precision_for(path, "int8", "cpu", tmp_path / "derived"),
        lambda: Encoder(path, "cpu", "int8", tmp_path / "derived"),
    ):
        with pytest.raises(ConflictError, match=r"at most 0\.5 % is allowed"):
            ask()


def ruined(make_model: MakeModel) -> Path:
    import torch
    from transformers import BertModel

    from local_llm.models import ModelStore

    path = make_model("ruined")
    model = BertModel.from_pretrained(path, local_files_only=True)
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.self.value.weight[::7] *= 300
            layer.intermediate.dense.weight[::5] *= 300
    model.save_pretrained(path)
    (path / "manifest.json").unlink()
    store = ModelStore(path.parent)
    return store.import_folder(path, name="ruined-2").path


def test_an_encoder_that_cannot_be_converted_stays_in_float32_and_says_why(
    make_model: MakeModel, tmp_path: Path
) -> None:
    path = make_model("broken")
    (path / "model.safetensors").write_bytes(b"no tensors")
    check = converted.convert_once(path, tmp_path / "derived")
    assert not check.kept
    assert check.reason.startswith("it cannot be converted: ")
    assert json.loads((converted.folder_of(path, tmp_path / "derived") / "check.json").read_text())["kept"] is False


def test_on_a_gpu_auto_is_bfloat16_and_int8_is_refused(path: Path, tmp_path: Path) -> None:
    assert converted.precision_for(path, "auto", "cuda", tmp_path) == "bfloat16"
    with pytest.raises(SettingsError, match="for the CPU"):
        converted.precision_for(path, "int8", "cuda", tmp_path)


def test_the_pool_keeps_the_encoders_used_last(path: Path, derived: Path, make_model: MakeModel) -> None:
    pool = EncoderPool("cpu", derived, most=2)
    whole, rounded = pool.get(path, "float32"), pool.get(path, "int8")
    assert pool.get(path, "float32") is whole
    third = pool.get(make_model("tiny"), "float32")
    assert pool.loaded() == [whole, third]
    assert pool.get(path, "int8") is not rounded


def test_ndcg_by_hand() -> None:
    # Order 2, 0, 1; gains 0, 3, 1 at discounts 1, 1/log2(3), 1/2: (3 x 0.63093 + 1 x 0.5) / (3 + 0.63093).
    scores, gains = np.array([[2.0, 1.0, 3.0]], np.float32), np.array([[3.0, 1.0, 0.0]], np.float32)
    second = 0.6309297535714575
    assert converted.ndcg(scores, gains) == pytest.approx((3 * second + 0.5) / (3 + second), abs=1e-9)
