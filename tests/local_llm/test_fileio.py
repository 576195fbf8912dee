from pathlib import Path

import pytest

from local_llm.errors import LockedError
from local_llm.fileio import remove_staging, staged_directory, staged_file, write_file
from local_llm.home import SOCKET_PATH_BYTES, Home
from local_llm.locks import exclusive_lock


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_file_that_breaks_off_leaves_nothing_and_the_old_one_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), staged_file(path) as handle:
        handle.write(b"half" + (tmp_path / "missing").read_bytes())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_file_that_is_not_to_be_replaced_is_not(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(FileExistsError), staged_file(path, replace=False):
        path.write_bytes(b"somebody else's")
    assert path.read_bytes() == b"somebody else's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged_directory(tmp_path / "a") as staging:
        (staging / "half").write_text((tmp_path / "missing").read_text())
    assert list(tmp_path.iterdir()) == []
    with staged_directory(tmp_path / "a") as staging:
        (staging / "whole").write_text("x")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "whole").exists()


def test_a_published_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(FileExistsError), staged_directory(tmp_path / "a") as staging:
        (staging / "other").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".staging-dead").mkdir()
    (tmp_path / ".staging-dead" / "half").touch()
    remove_staging(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_held_lock_names_its_holder_and_a_dead_holders_lock_is_free(tmp_path: Path) -> None:
    path = tmp_path / "l.lock"
    path.write_text("process 999999 (left by a killed process)\n")
    with exclusive_lock(path, "the index"), pytest.raises(LockedError, match="held by process"):  # noqa: SIM117
        with exclusive_lock(path, "the index"):
            pass
    with exclusive_lock(path, "the index"):
        pass


def test_a_deep_home_still_has_sockets(tmp_path: Path) -> None:
    home = Home(tmp_path / ("d" * 60) / ("e" * 60))
    assert len(str(home.socket("engine"))) <= SOCKET_PATH_BYTES
    assert home.socket("engine") == home.socket("engine")
    assert home.socket("engine") != Home(tmp_path / ("d" * 60) / ("f" * 60)).socket("engine")
