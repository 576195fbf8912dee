"""Milvus as we use it: the home of pymilvus. A collection there holds a generation of one of ours."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from index.milvus.truth import Block, Stamped
from index.vectors.rows import Groups, Ids, Vectors
from local_llm.errors import SettingsError, UnavailableError

# Source: pymilvus.exceptions.ErrorCode and Milvus's merr package: the collection is not there, or not loaded.
LOST = (100, 101)
# Source: Milvus's limits: most results of a search, and most rows of a page.
MOST_RESULTS = 16_384
# Milvus takes messages of 64 MiB; smaller ones leave it time for others between them.
BATCH_BYTES = 8 << 20
DELETED_AT_ONCE = 8192
# pymilvus asks every 10 s whether an idle connection lives, which a server may take for an attack: Milvus Lite ends
# the connection then ("Too many pings"). Ours is asked while a question waits, which has its timeout.
# And after an outage gRPC would wait for up to two minutes before it connects again.
CONNECTION = {
    "grpc.keepalive_permit_without_calls": False,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.use_local_subchannel_pool": 1,
}
FIELDS = ("passage", "document", "stamp", "vector")
INDEXED = ("vector", "document")


@dataclass(frozen=True)
class MilvusOptions:
    """prefix: what the names of our collections there begin with; exact: every vector is compared, else Milvus
    chooses an index that approximates."""

    uri: str
    token_file: Path | None = None
    prefix: str = "local_llm"
    timeout_seconds: float = 10.0
    exact: bool = False
    target_recall: float = 0.95


@dataclass(frozen=True)
class Line:
    """What one query found, best first. scores: float32 [found]; ids: int64 [found]; documents: int32 [found]."""

    scores: Vectors
    ids: Ids
    documents: Groups


class LostCollectionError(UnavailableError):
    """Milvus answers, and the collection is not there."""


class EndedError(UnavailableError):
    """Nothing more is asked of the collection: it was dropped, or is being closed."""


class Milvus:
    """Connected when it is first asked. May be asked by several threads at once."""

    def __init__(self, options: MilvusOptions):
        """Raises: SettingsError if it can never be asked: no pymilvus, or no token."""
        if find_spec("pymilvus") is None:
            raise SettingsError(
                f"index.milvus_uri is {options.uri!r}, and there is no pymilvus here to speak to it",
                hint="scripts/install_milvus, or leave index.milvus_uri empty",
            )
        self.options = options
        self._token = _token(options.token_file)
        self._lock = threading.Lock()
        self._client: Any = None

    def names(self, beginning: str) -> list[str]:
        with self.asked() as client:
            return [name for name in client.list_collections(**self.patience) if name.startswith(beginning)]

    def drop(self, name: str) -> None:
        with self.asked() as client:
            client.drop_collection(name, **self.patience)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @property
    def patience(self) -> dict[str, float]:
        return {"timeout": self.options.timeout_seconds}

    @contextmanager
    def asked(self) -> Iterator[Any]:
        """The client, for one question. Raises: UnavailableError, LostCollectionError."""
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield self._connected()
        except MilvusException as error:
            if error.code in LOST:
                raise LostCollectionError(
                    f"Milvus at {self.options.uri} has lost a collection: {error.message}"
                ) from error
            raise self._unavailable(error.message) from error
        except grpc.RpcError as error:
            raise self._unavailable(str(error)) from error

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                from pymilvus import MilvusClient

                for name in ("pymilvus", "pymilvus.milvus_client"):  # it prints what it raises as well
                    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
                self._client = MilvusClient(
                    self.options.uri, token=self._token, grpc_options=CONNECTION, **self.patience
                )
            return self._client

    def _unavailable(self, reason: str) -> UnavailableError:
        line = reason.strip().partition("\n")[0]
        return UnavailableError(
            f"Milvus at {self.options.uri} does not do what it is asked: {line}",
            hint="see whether it runs: curl http://HOST:9091/healthz; documents are safe, and found as soon as it "
            "answers; to search without it: leave index.milvus_uri empty and restart",
        )


class MilvusCollection:
    """One collection of Milvus, by its name."""

    def __init__(self, milvus: Milvus, name: str, dimension: int):
        self._milvus = milvus
        self.name = name
        self._dimension = dimension
        self.ended = threading.Event()  # set: whoever is at work here stops before the next question
        self.exact = False  # known of the index that is there, once it was made sure of

    @property
    def options(self) -> MilvusOptions:
        return self._milvus.options

    def ensure(self) -> None:
        """It is there and can be searched: made anew if it is not, or not of our fields, or half made."""
        with self._asked() as client:
            there = client.has_collection(self.name, **self._milvus.patience)
            if there and not self._fits(client):
                client.drop_collection(self.name, **self._milvus.patience)
                there = False
            if not there:
                self._create(client)
            self.exact = self._index_type(client) == "FLAT"
            client.load_collection(self.name, **self._milvus.patience)

    def drop(self) -> None:
        self._milvus.drop(self.name)

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        self._refuse_ended()
        with self._milvus.asked() as client:
            yield client

    def _refuse_ended(self) -> None:
        if self.ended.is_set():
            raise EndedError(f"{self.name} in Milvus is being left", hint="ask again")

    def upsert(self, block: Block) -> None:
        size = max(1, BATCH_BYTES // (4 * self._dimension + 64))
        columns = (block.ids.tolist(), block.documents.tolist(), block.stamps.tolist(), block.vectors)
        for start in range(0, len(block.ids), size):
            rows = zip(*(column[start : start + size] for column in columns), strict=True)
            with self._asked() as client:
                data = [dict(zip(FIELDS, row, strict=True)) for row in rows]
                client.upsert(self.name, data, **self._milvus.patience)

    def delete(self, ids: Ids) -> None:
        for start in range(0, len(ids), DELETED_AT_ONCE):
            with self._asked() as client:
                some = ids[start : start + DELETED_AT_ONCE].tolist()
                client.delete(self.name, ids=some, **self._milvus.patience)

    def passages(self) -> Stamped:
        """All that it holds."""
        found = [np.empty((0, 2), np.int64)]  # an array a page: as Python's numbers it would take ten times that
        with self._asked() as client:
            pages = client.query_iterator(
                self.name, batch_size=MOST_RESULTS, output_fields=["passage", "stamp"], **self._milvus.patience
            )
            while page := pages.next():
                self._refuse_ended()
                found.append(np.array([(row["passage"], row["stamp"]) for row in page], np.int64))
            pages.close()
        ids, stamps = np.concatenate(found).T
        order = np.argsort(ids)
        return Stamped(ids[order], stamps[order])

    def search(self, queries: Vectors, k: int, expression: str) -> list[Line]:
        """The k (at most MOST_RESULTS) nearest of each query among what the expression admits."""
        with self._asked() as client:
            found = client.search(
                self.name,
                data=queries,
                anns_field="vector",
                limit=min(k, MOST_RESULTS),
                filter=expression,
                output_fields=["document"],
                search_params={"metric_type": "IP"},
                **self._milvus.patience,
            )
        return [_line(hits) for hits in found]

    def _create(self, client: Any) -> None:
        from pymilvus import DataType

        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("passage", DataType.INT64, is_primary=True)
        schema.add_field("document", DataType.INT64)
        schema.add_field("stamp", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dimension)
        indexes = client.prepare_index_params()
        kind = "FLAT" if self.options.exact else "AUTOINDEX"
        indexes.add_index("vector", index_type=kind, metric_type="IP")
        indexes.add_index("document", index_type="INVERTED")
        # Strong: a search sees every change that was acknowledged before it.
        client.create_collection(
            self.name, schema=schema, index_params=indexes, consistency_level="Strong", **self._milvus.patience
        )

    def _fits(self, client: Any) -> bool:
        fields = client.describe_collection(self.name, **self._milvus.patience)["fields"]
        dimension = next((int(field["params"]["dim"]) for field in fields if field["name"] == "vector"), 0)
        if dimension != self._dimension or {field["name"] for field in fields} != set(FIELDS):
            return False
        # Indexes are made after the collection: whoever made it may have been cut off between.
        return all(client.list_indexes(self.name, field, **self._milvus.patience) for field in INDEXED)

    def _index_type(self, client: Any) -> str:
        (name, *_) = client.list_indexes(self.name, "vector", **self._milvus.patience)
        return str(client.describe_index(self.name, name, **self._milvus.patience)["index_type"])


def _token(path: Path | None) -> str:
    try:
        return "" if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"index.milvus_token_file {path} cannot be read: {error}",
            hint="write `user:password` or an API key into it, readable for this user",
        ) from error


def _line(hits: Sequence[Any]) -> Line:
    return Line(
        np.array([hit["distance"] for hit in hits], np.float32),
        np.array([hit["passage"] for hit in hits], np.int64),
        np.array([hit["entity"]["document"] for hit in hits], np.int32),
    )
