"""A view on the disk: whole or not there, whatever the moment of a power cut.

`current.json` names the one folder that counts, with the SHA-256 of each of its files. A snapshot is written
beside the one before, and the pointer is moved last; what no pointer names is swept by the next save.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.errors import IntegrityError
from local_llm.fileio import read_json, sha256_of, staged_directory, write_json
from local_llm.identifiers import new_id

FORMAT = 1
POINTER = "current.json"


@dataclass(frozen=True)
class Snapshot:
    """facts: what the writer noted beside the files."""

    folder: Path
    facts: dict[str, Any]


@contextmanager
def written_snapshot(root: Path, facts: dict[str, Any]) -> Iterator[Path]:
    """Yields an empty folder; on success its files are the snapshot of `root`, on error the one before stays.

    `facts` (JSON) may be filled until the end of the block.
    """
    root.mkdir(parents=True, exist_ok=True)
    name = new_id("snapshot-")
    with staged_directory(root / name) as folder:
        yield folder
        hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    pointer = {"format": FORMAT, "snapshot": name, "sha256": hashes, "facts": facts}
    write_json(root / POINTER, {"pointer": pointer, "sha256": _digest(pointer)})
    _sweep(root, keep=name)


def read_snapshot(root: Path) -> Snapshot | None:
    """None where none was ever finished.

    Raises: IntegrityError if it is of another format or its files are not those that were written.
    """
    if not (root / POINTER).exists():
        return None
    try:
        written = read_json(root / POINTER)
        pointer, digest = written["pointer"], written["sha256"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise IntegrityError(f"{root / POINTER} cannot be read: {error}") from error
    if _digest(pointer) != digest or pointer["format"] != FORMAT:
        raise IntegrityError(f"{root / POINTER} is not what was written, or not of format {FORMAT}")
    folder = root / pointer["snapshot"]
    _verify(folder, pointer["sha256"])
    return Snapshot(folder, pointer["facts"])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _verify(folder: Path, hashes: dict[str, str]) -> None:
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != expected:
            raise IntegrityError(f"{path} is missing or not the file that was written")


def _sweep(root: Path, keep: str) -> None:
    for path in root.iterdir():
        if path.is_dir() and path.name != keep and path.name.startswith((".staging-", "snapshot-")):
            shutil.rmtree(path, ignore_errors=True)
