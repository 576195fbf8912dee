"""What a compared system must do, and the list of them."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from index_bench.dataset import Dataset, Window

Efforts = tuple[int, ...]
LADDER: Efforts = (
    10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512,
    640, 768, 896, 1000,
)  # fmt: skip

NPROBES: Efforts = (
    1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256,
)  # fmt: skip


class Engine(Protocol):
    """One system with its store in one folder. Rows are known to it by their number in the data."""

    def __init__(self, folder: Path, **options: Any): ...

    def build(self, data: Dataset) -> None:
        """Everything stored durably, text and attributes too, and indexed. The folder is new."""
        ...

    def open(self) -> None: ...

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        """The ways in which it can search under a filter on `column`, each with its efforts, cheapest first."""
        ...

    def prepare(self, strategy: str, effort: int) -> None: ...

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        """query: float32 [384]. Returns: rows and scores of the ten nearest, best first, without their text."""
        ...

    def texts(self, rows: Sequence[int]) -> list[str]: ...

    def close(self) -> None: ...

    def processes(self) -> list[int]:
        """Processes that hold the store beside this one."""
        ...

    def disk_bytes(self) -> int: ...

    def versions(self) -> dict[str, str]: ...


# Each system under its name: module, class and options of its making. The first of a module is compared by default.
M32 = {"m": 32, "ef_construction": 100}
ENGINES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ours": ("index_bench.ours", "Ours", {}),
    "faiss": ("index_bench.faiss_bare", "BareFaiss", {"kind": "ivf"}),
    "faiss-hnsw": ("index_bench.faiss_bare", "BareFaiss", {"kind": "hnsw"}),
    "lancedb": ("index_bench.lance", "Lance", {"index": "hnsw_sq"}),
    "lancedb-ivf-flat": ("index_bench.lance", "Lance", {"index": "ivf_flat"}),
    "lancedb-ivf-rq": ("index_bench.lance", "Lance", {"index": "ivf_rq"}),
    "chroma": ("index_bench.chroma", "Chroma", {}),
    "chroma-m32": ("index_bench.chroma", "Chroma", M32),
    "pgvector": ("index_bench.pgvector", "PgVector", {}),
    "pgvector-m32": ("index_bench.pgvector", "PgVector", M32),
    "pgvector-half": ("index_bench.pgvector", "PgVector", {"half": True}),
    "pgvector-ivf": ("index_bench.pgvector", "PgVector", {"ivf": True}),
}
PEERS = tuple(name for name, (module, _, _) in ENGINES.items() if not module.endswith(("ours", "faiss_bare")))


def make_engine(name: str, folder: Path) -> Engine:
    module, kind, options = ENGINES[name]
    made: Engine = getattr(importlib.import_module(module), kind)(folder, **options)
    return made


def folder_bytes(folder: Path) -> int:
    """What the files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
