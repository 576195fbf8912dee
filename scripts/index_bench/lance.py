"""LanceDB: one table, a vector index, and scalar indexes for the filters, which come before the search."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index_bench.dataset import Dataset, K, Window
from index_bench.engine import LADDER, NPROBES, Efforts, folder_bytes

# With codes, so many times the ten wanted can be re-scored on the stored vectors.
REFINE = {"hnsw_sq": (2,), "ivf_rq": (4, 10), "ivf_flat": ()}


class Lance:
    def __init__(self, folder: Path, index: str):
        import lancedb

        self._lancedb = lancedb
        self._folder = folder
        self._kind = index

    def build(self, data: Dataset) -> None:
        import pyarrow as pa

        database = self._lancedb.connect(str(self._folder))
        table = database.create_table("rows", self._batches(data, pa), schema=_schema(pa, data.vectors.shape[1]))
        table.create_index("vector", config=self._config())
        for column in ("id", "bucket", "topic"):
            table.create_index(column, config=self._lancedb.index.BTree())
        table.optimize()

    def _batches(self, data: Dataset, pa: Any) -> Any:
        texts, attributes = data.texts(), data.attributes
        schema = _schema(pa, data.vectors.shape[1])
        for part in data.batches(20_000):
            flat = pa.array(np.ascontiguousarray(data.vectors[part]).reshape(-1))
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(np.arange(part.start, part.stop)),
                    pa.array(attributes["bucket"][part]),
                    pa.array(attributes["topic"][part]),
                    pa.array(texts[part]),
                    pa.FixedSizeListArray.from_arrays(flat, data.vectors.shape[1]),
                ],
                schema=schema,
            )

    def _config(self) -> Any:
        index = self._lancedb.index
        configs = {
            "hnsw_sq": lambda: index.HnswSq(distance_type="dot"),
            "ivf_flat": lambda: index.IvfFlat(distance_type="dot"),
            "ivf_rq": lambda: index.IvfRq(distance_type="dot"),
        }
        return configs[self._kind]()

    def open(self) -> None:
        self._table = self._lancedb.connect(str(self._folder)).open_table("rows")

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        ladder = LADDER if self._kind == "hnsw_sq" else NPROBES
        index = {self._kind: ladder, **{f"{self._kind} refined {n}": ladder for n in REFINE[self._kind]}}
        return {**index, "exact": (0,)} if column else index

    def prepare(self, strategy: str, effort: int) -> None:
        self._strategy, self._effort = strategy, effort
        self._refine = int(strategy.rpartition(" ")[2]) if "refined" in strategy else None

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        search = self._table.search(query, vector_column_name="vector").distance_type("dot").limit(K)
        if window is not None:
            search = search.where(_condition(window), prefilter=True)
        found = self._effort_of(search).select(["id", "_distance"]).to_arrow()
        return found["id"].to_numpy(), 1 - found["_distance"].to_numpy()

    def _effort_of(self, search: Any) -> Any:
        if self._strategy == "exact":
            return search.bypass_vector_index()
        if self._refine is not None:
            search = search.refine_factor(self._refine)
        if self._kind == "hnsw_sq":  # ef below what is wanted is refused
            return search.ef(max(self._effort, K * (self._refine or 1)))
        return search.nprobes(self._effort)

    def texts(self, rows: Sequence[int]) -> list[str]:
        wanted = ", ".join(str(int(row)) for row in rows)
        found = self._table.search().where(f"id IN ({wanted})").select(["id", "text"]).to_arrow()
        return list(found["text"].to_pylist())

    def close(self) -> None:
        pass

    def processes(self) -> list[int]:
        return []

    def disk_bytes(self) -> int:
        return folder_bytes(self._folder)

    def versions(self) -> dict[str, str]:
        return {"lancedb": self._lancedb.__version__}


def _schema(pa: Any, dimension: int) -> Any:
    return pa.schema(
        [
            ("id", pa.int64()),
            ("bucket", pa.int64()),
            ("topic", pa.int64()),
            ("text", pa.string()),
            ("vector", pa.list_(pa.float32(), dimension)),
        ]
    )


def _condition(window: Window) -> str:
    if window.high == window.low + 1:
        return f"{window.column} = {window.low}"
    return f"{window.column} >= {window.low} AND {window.column} < {window.high}"
