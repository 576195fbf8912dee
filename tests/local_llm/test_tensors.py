"""A damaged weights file is known from its header."""

import json
import struct
from pathlib import Path

import pytest

from local_llm.errors import InvalidInputError
from local_llm.tensors import INDEX, model_tensors, read_tensors

from ..handmade_adapters import HIDDEN, VOCABULARY, base_tensors, write_base, zeros


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base") / "model.safetensors"


def test_names_types_and_shapes_are_read(file: Path) -> None:
    tensors = read_tensors(file)
    assert set(tensors) == set(base_tensors())
    embeddings = tensors["model.embed_tokens.weight"]
    assert (embeddings.dtype, embeddings.shape) == ("F32", (VOCABULARY, HIDDEN))
    assert embeddings.elements == VOCABULARY * HIDDEN


def test_shards_are_read_by_their_index_and_nothing_else_is(file: Path) -> None:
    folder = file.parent
    file.rename(folder / "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    write_base(folder / "other", tensors={"x": zeros(1)}).joinpath("model.safetensors").rename(
        folder / "consolidated.safetensors"
    )
    assert set(model_tensors(folder)) == set(base_tensors())


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InvalidInputError, match="no weights in safetensors"):
        model_tensors(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidInputError, match="no whole safetensors file"):
        read_tensors(file)


def with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 a pickle in a zip file, as torch writes it",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"\xff\xff",
        with_header([]),
        with_header({"a": 1}),
        with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(5)),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        with_header({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, bytes(4)),
        with_header(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            bytes(12),
        ),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    with pytest.raises(InvalidInputError, match="no whole safetensors file"):
        read_tensors(file)
