"""The state database: projects, keys, files, jobs, adapters, collections, profiles, ledger, audit, usage.

Small and durable: SQLite in WAL mode with synchronous=FULL, so that a committed row survives a power cut; or, for
several hosts, PostgreSQL (state.url). Documents and passages are not here: each collection has a database of its
own (index/).
"""

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    BigInteger,
    Engine,
    ForeignKey,
    Index,
    Integer,
    UniqueConstraint,
    create_engine,
    event,
    select,
)
from sqlalchemy.dialects.postgresql import Insert as PostgreSQLInsert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from local_llm import postgresql
from local_llm.commit_watch import CommitWatch, DataVersionWatch, SnapshotWatch
from local_llm.errors import ConflictError
from local_llm.home import Home
from local_llm.identifiers import new_ordered_id, now
from local_llm.locks import exclusive_lock
from local_llm.state_mark import require_same

# The escape itself: not a backslash that stands for itself, and then these five characters.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
MIGRATIONS = Path(__file__).parent / "migrations"
LOCAL_PROJECT = "local"


class Row(DeclarativeBase):
    type_annotation_map: ClassVar = {
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
        # SQLite numbers rows by itself only in a column declared INTEGER, which holds 64 bits there.
        int: BigInteger().with_variant(Integer(), "sqlite"),
    }


class Project(Row):
    """A tenant. Every other row belongs to one."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    archived_at: Mapped[int | None]
    log_content: Mapped[bool] = mapped_column(default=False)  # questions and answers go into the audit log
    store_chats: Mapped[bool] = mapped_column(default=False)  # chats with store=true are kept
    # None: server.project_quota_bytes and index.project_quota_bytes.
    file_quota_bytes: Mapped[int | None]
    collection_quota_bytes: Mapped[int | None]
    store_responses: Mapped[bool] = mapped_column(default=True)  # those of /v1/responses are kept


class Key(Row):
    """An API key. `principals` are what its holder counts as when a document names who may see it.

    `models` and `collections` are all it may name; None: all of its project. Limits that are None do not limit.
    After a rotation the `previous` secret opens too, until its time is over.
    """

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    account_id: Mapped[str]  # the service account whose keys may be several
    role: Mapped[str]  # "owner", "admin" or "member"
    principals: Mapped[list[str]]
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    redacted: Mapped[str]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]
    models: Mapped[list[str] | None]
    collections: Mapped[list[str] | None]  # ids
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    tokens_per_day: Mapped[int | None]
    last_used_at: Mapped[int | None]  # noted once a minute at most
    previous_sha256: Mapped[str | None] = mapped_column(index=True)
    previous_expires_at: Mapped[int | None]


class File(Row):
    """An upload. `allow` lists principals as a document's does; None: everyone in the project.

    `key_id`: whose upload it is, or whose job or batch wrote it. A key that reaches only some collections sees its
    own only.
    """

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str]
    allow: Mapped[list[str] | None]
    key_id: Mapped[str | None]
    created_at: Mapped[int]


class Job(Row):
    """A fine-tuning job. `lease` is the fence: only the process that wrote its own value may go on."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str | None]  # whose job it is: its result files are that key's uploads
    model: Mapped[str]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    suffix: Mapped[str | None]
    seed: Mapped[int]
    method: Mapped[dict[str, Any]]
    hyperparameters: Mapped[dict[str, Any]]
    job_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")
    status: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    fine_tuned_model: Mapped[str | None]
    trained_tokens: Mapped[int | None]
    created_at: Mapped[int]
    finished_at: Mapped[int | None]
    result_files: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    # The name that the finished model will bear, chosen when training begins: its checkpoints are named after it.
    output_name: Mapped[str | None]
    # Padded tokens a pass through the model, where memory did not suffice for training.micro_batch_tokens.
    micro_batch_tokens: Mapped[int | None]
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str | None]
    lease: Mapped[str | None]
    lease_until: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)  # that ended early since the last step checkpoint


class JobCheckpoint(Row):
    """The model after an epoch of a job, published as an adapter of its own."""

    __tablename__ = "job_checkpoints"
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step_number: Mapped[int]
    model_name: Mapped[str]  # of the adapter; that of the finished model after the last epoch
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[int]
    __table_args__ = (UniqueConstraint("job_id", "step_number"),)


class JobEvent(Row):
    __tablename__ = "job_events"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[int]
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]


class Adapter(Row):
    """A published adapter. `allow` lists principals as a document's does; None: everyone in the project."""

    __tablename__ = "adapters"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(unique=True)
    base_model: Mapped[str]
    base_sha256: Mapped[str]
    rank: Mapped[int]
    manifest_sha256: Mapped[str]
    job_id: Mapped[str | None]
    step_number: Mapped[int | None]  # of a checkpoint; None for a finished model
    allow: Mapped[list[str] | None]
    created_at: Mapped[int]


class Collection(Row):
    """A collection of documents, a *vector store* in the API. Its passages live in its own database."""

    __tablename__ = "collections"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    encoder: Mapped[str]
    encoder_fingerprint: Mapped[str]
    created_at: Mapped[int]
    title: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)  # `metadata` in the API, which the mapper reserves
    expires_after_days: Mapped[int | None]
    last_active_at: Mapped[int] = mapped_column(default=now)
    ranking: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (UniqueConstraint("project_id", "name"),)


class ProfileRow(Row):
    """A served model name that stands for a strategy, a model, a collection and a prompt."""

    __tablename__ = "profiles"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    strategy: Mapped[str]
    model: Mapped[str]
    collection_id: Mapped[str | None] = mapped_column(ForeignKey("collections.id"))
    prompt: Mapped[str | None]
    k: Mapped[int]
    answer_only_from_context: Mapped[bool] = mapped_column(default=True)
    rewrite: Mapped[bool | None]
    refusal: Mapped[str | None]
    from_settings: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[int]
    __table_args__ = (UniqueConstraint("project_id", "name"),)


class ResponseRow(Row):
    """An answer of /v1/responses that its client may come back to. It holds what the asker might read then.

    `input_items` are those that came with its own request: what was said before hangs on `previous_id`.
    """

    __tablename__ = "responses"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str | None]
    created_at: Mapped[int]
    used_at: Mapped[int]  # when the conversation that it is part of last went on
    previous_id: Mapped[str | None]
    response: Mapped[dict[str, Any]]
    input_items: Mapped[list[dict[str, Any]]]
    size: Mapped[int] = mapped_column(default=0)  # of both, in characters


class LedgerEntry(Row):
    """A measured fact and the hardware it was measured on."""

    __tablename__ = "ledger"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str] = mapped_column(index=True)
    created_at: Mapped[int]
    hardware: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]


class AuditEntry(Row):
    """Who did what. `project_id` is the project that it happened in or to."""

    __tablename__ = "audit"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[int]
    key_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str | None]
    detail: Mapped[dict[str, Any]]


class UsageRow(Row):
    """What a key used of a model in a minute. `minute` is its first second; `key_id` is empty without keys."""

    __tablename__ = "usage"
    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    requests: Mapped[int]
    input_tokens: Mapped[int]
    cached_tokens: Mapped[int]  # of the input tokens
    output_tokens: Mapped[int]
    passages: Mapped[int]  # retrieved


class BatchRow(Row):
    """Requests in a file, answered at low priority. `lease` is the fence, as a job's."""

    __tablename__ = "batches"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str | None]  # it is answered as this key asks; None: made on a box without keys
    endpoint: Mapped[str]
    input_file_id: Mapped[str]
    server_url: Mapped[str]  # where its maker reached us: citations lead there
    labels: Mapped[dict[str, Any]]  # `metadata` in the API
    status: Mapped[str]
    model: Mapped[str | None]  # if all requests name the same
    problems: Mapped[dict[str, Any] | None]  # `errors` in the API
    output_file_id: Mapped[str | None]
    error_file_id: Mapped[str | None]
    total: Mapped[int] = mapped_column(default=0)
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[int] = mapped_column(default=0)
    cached_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[int]
    expires_at: Mapped[int]
    in_progress_at: Mapped[int | None]
    finalizing_at: Mapped[int | None]
    completed_at: Mapped[int | None]
    failed_at: Mapped[int | None]
    expired_at: Mapped[int | None]
    cancelling_at: Mapped[int | None]
    cancelled_at: Mapped[int | None]
    lease: Mapped[str | None]
    lease_until: Mapped[float | None]


class ChatRow(Row):
    """A chat that was kept (`store`), and what people say of its answer."""

    __tablename__ = "chats"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    key_id: Mapped[str | None]
    created_at: Mapped[int]
    model: Mapped[str]  # as the answer names it
    labels: Mapped[dict[str, Any]]  # `metadata` in the API
    request: Mapped[dict[str, Any]]  # as the client sent it
    answer: Mapped[dict[str, Any]]  # as the client got it
    # `messages` as the model saw them, where these are others, and of which `documents` ([collection, id]) their
    # passages are, with the `refusal` that was asked for. Rows of before have the messages only.
    prompt: Mapped[dict[str, Any] | None]
    size: Mapped[int] = mapped_column(default=0)  # of all that, in characters
    rating: Mapped[str | None]  # "good" or "bad"
    correction: Mapped[str | None]  # what the answer should have been
    reviewer_note: Mapped[str | None]
    rated_by: Mapped[str | None]  # a key
    rated_at: Mapped[int | None]


class RestrictedRow(Row):
    """A question with passages that not everyone in the project may see, in a training file that was made here."""

    __tablename__ = "restricted_rows"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)  # provenance.fingerprint
    allow: Mapped[list[str]]


Index("batches_by_status", BatchRow.status, BatchRow.created_at)
Index("batches_by_project", BatchRow.project_id, BatchRow.created_at)
Index("chats_by_project", ChatRow.project_id, ChatRow.sequence)
Index("chats_by_size", ChatRow.project_id, ChatRow.size)
Index("jobs_by_status", Job.status, Job.created_at)
Index("jobs_by_idempotency_key", Job.project_id, Job.idempotency_key, unique=True)
Index("files_by_project", File.project_id, File.created_at)
Index("usage_by_key", UsageRow.key_id, UsageRow.minute)
Index("audit_by_time", AuditEntry.created_at)
Index("responses_by_use", ResponseRow.used_at)
Index("responses_by_size", ResponseRow.project_id, ResponseRow.size)


class State:
    """An open state database. Sessions are short: read or write, commit, close.

    In PostgreSQL everything that opens a session raises StateUnavailableError while the server is away.
    """

    def __init__(self, engine: Engine, host: str = ""):
        """`host` is another one on each host that shares the state; empty where none does."""
        self.host = host
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        reading: dict[str, Any] = {"reading": True} if self._sqlite else postgresql.READING
        self._sessions = sessionmaker(engine, expire_on_commit=False)
        self._readers = sessionmaker(engine.execution_options(**reading), expire_on_commit=False)
        self._watch: CommitWatch = DataVersionWatch(engine.url.database) if self._sqlite else SnapshotWatch(engine)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        with self._told(), self._sessions.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads: it waits for no writer and holds none up."""
        with self._told(), self._readers() as session:
            yield session

    def local_project_id(self) -> str:
        """The project of a box on which nobody has made another."""
        with self.reading() as session:
            return session.scalars(select(Project.id).where(Project.name == LOCAL_PROJECT)).one()

    def version(self) -> object:
        """What is another one after any commit, of this process or another: what was read before may be kept for
        as long as it stays equal. Costs microseconds in SQLite and a round trip in PostgreSQL; any thread may ask.
        """
        return self._watch.version()

    def upsert(self, table: type[Row]) -> SQLiteInsert | PostgreSQLInsert:
        """An INSERT that knows ON CONFLICT DO UPDATE, as both databases have it."""
        insert = sqlite_insert if self._sqlite else postgresql_insert
        return insert(table)

    def exclusive(self, path: Path, purpose: str) -> AbstractContextManager[None]:
        """Held by one process during the block, while others wait: of this host by a lock at `path`, of all hosts
        that share the state by the database."""
        return exclusive_lock(path, purpose, wait=True) if self._sqlite else self._across_hosts(path.name)

    @contextmanager
    def _across_hosts(self, name: str) -> Iterator[None]:
        with self._told(), postgresql.named_lock(self._engine, name):
            yield

    def _told(self) -> AbstractContextManager[None]:
        return nullcontext() if self._sqlite else postgresql.in_our_words()

    def close(self) -> None:
        self._watch.close()
        self._engine.dispose()


def open_state(home: Home) -> State:
    """Opens the state database of `home`, made or migrated first if need be: state.db, or what state.url names.

    Raises: SettingsError, StateUnavailableError, ConflictError if a newer version migrated it, or what lies in the
    home is another database's (local_llm.state_mark).
    """
    state = open_empty_state(home)
    try:
        _ensure_local_project(state)
        require_same(home, state.local_project_id())
    except BaseException:
        state.close()
        raise
    return state


def _ensure_local_project(state: State) -> None:
    with state.reading() as session:  # no writer is held up for what is nearly always there
        if session.scalars(select(Project.id).limit(1)).first() is not None:
            return
    with state.session() as session:
        if session.scalars(select(Project.id).limit(1)).first() is None:
            session.add(Project(id=new_ordered_id("proj_"), name=LOCAL_PROJECT, created_at=now(), archived_at=None))


def open_empty_state(home: Home) -> State:
    """The same, without the project that every box has."""
    home.ensure()
    if home.state.url is None:
        engine = create_engine(f"sqlite:///{home.state_database}", json_serializer=_dump_json)
        event.listen(engine, "connect", _make_durable)
        event.listen(engine, "begin", _begin)
        # Two processes starting at once must not both migrate; the second waits its turn.
        with exclusive_lock(home.run / "migrate.lock", "the migration of the state database", wait=True):
            _migrate(engine)
    else:
        engine = postgresql.make_engine(home.state, json_serializer=_dump_json_without_nul)
        with postgresql.opening(engine):
            _migrate(engine)  # in a transaction that has the writers' lock: on other hosts they wait
    return State(engine, "" if home.state.url is None else home.host)


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.execution_options(patient=True).begin() as connection:
        if engine.dialect.name != "sqlite":
            postgresql.require_sound(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConflictError(
                f"the state database was not made by this version: {error}",
                hint="use the version that migrated it, on every host that shares it",
            ) from None


def _dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _dump_json_without_nul(value: Any) -> str:
    """PostgreSQL keeps the escape of NUL, and fails when anything of that value is read as text."""
    return _NUL.sub(r"\1\\ufffd", _dump_json(value))


def _make_durable(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling is off: _begin starts them.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # A transaction that reads first and writes later fails at once when another wrote in between,
    # whatever the busy timeout (SQLite docs, "Transactions"): so each that may write takes the lock at its start.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
