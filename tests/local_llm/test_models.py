import json
import os
from pathlib import Path

import pytest

from local_llm.errors import ConflictError, IntegrityError, InvalidInputError, ModelNotFoundError
from local_llm.models import ModelStore, verify


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    root = tmp_path / "models"
    root.mkdir()
    return ModelStore(root)


def test_an_imported_model_is_found_with_its_manifest(store: ModelStore, source: Path) -> None:
    store.import_folder(source, name="tiny", licence="MIT")
    model = store.get("tiny", "base")
    assert (model.manifest.kind, model.manifest.licence, model.manifest.bytes) == (
        "base",
        "MIT",
        len(b"weights") + 39,
    )
    assert set(model.manifest.files) == {"config.json", "model.safetensors"}
    assert [found.name for found in store.list()] == ["tiny"]


def test_changed_bytes_are_refused_at_the_next_use(store: ModelStore, source: Path) -> None:
    path = store.import_folder(source, name="tiny").path / "model.safetensors"
    store.get("tiny")
    path.write_bytes(b"weighty")
    with pytest.raises(IntegrityError, match=r"model\.safetensors does not match"):
        store.get("tiny")


def test_a_change_that_keeps_size_and_time_is_found_by_a_thorough_look(store: ModelStore, source: Path) -> None:
    model = store.import_folder(source, name="tiny")
    store.get("tiny")
    path = model.path / "model.safetensors"
    times = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(IntegrityError):
        verify(model, thorough=True)


def test_a_missing_file_is_named(store: ModelStore, source: Path) -> None:
    (store.import_folder(source, name="tiny").path / "model.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"model\.safetensors is missing"):
        store.get("tiny")


def test_a_file_that_does_not_match_its_manifest_is_not_imported(store: ModelStore, source: Path) -> None:
    exported = store.import_folder(source, name="tiny").path
    (exported / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(IntegrityError, match="refused"):
        store.import_folder(exported, name="again")
    assert [model.name for model in store.list()] == ["tiny"]
    assert not list(store.root.glob(".staging-*"))


def test_a_failed_import_leaves_nothing(store: ModelStore) -> None:
    def write(target: Path) -> None:
        (target / "half").write_bytes(b"x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.publish(write, name="half", kind="base", licence="MIT", origin="test")
    assert store.list() == []
    assert not (store.root / "half").exists()


def test_a_model_is_immutable_once_published(store: ModelStore, source: Path) -> None:
    store.import_folder(source, name="tiny")
    with pytest.raises(ConflictError):
        store.import_folder(source, name="tiny")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 200])
def test_a_name_that_is_a_path_is_refused(store: ModelStore, source: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        store.import_folder(source, name=name)
    with pytest.raises(ModelNotFoundError):
        store.get(name)


def test_a_folder_without_a_model_says_what_is_missing(store: ModelStore, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        store.import_folder(empty, name="empty")


def test_a_model_of_another_kind_is_refused(store: ModelStore, source: Path) -> None:
    store.import_folder(source, name="tiny")
    with pytest.raises(InvalidInputError, match="expected encoder"):
        store.get("tiny", "encoder")
