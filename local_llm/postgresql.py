"""The state database in PostgreSQL: connections, one writer at a time, errors in our words.

SQLite lets one transaction write at a time, and what is written relies on it: a quota, a name that is still free or
a job that nobody has yet is looked up and taken in one session. So does this: whoever may write takes an advisory
lock first, on whatever host, and reads what the writer before it committed.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from local_llm.errors import InvalidInputError, OutOfSpaceError, SettingsError, UnavailableError
from local_llm.state_settings import StateSettings

DRIVER = "postgresql+psycopg"
# Any numbers, the same for all versions of ours: locks of this database are told apart by them.
WRITER_LOCK = 7_312_001
NAMED_LOCKS = 7_312_002
# As SQLite's busy_timeout: who waits longer is told to come back.
LOCK_SECONDS = 10
# A host that vanished in the middle of a transaction must not hold the others up for longer.
IDLE_SECONDS = 60
# Older ones cannot tell a snapshot (pg_current_snapshot).
OLDEST_VERSION = 13
LOCK_POLL_SECONDS = 0.05
NOT_ACCEPTED = {"25006"}  # read_only_sql_transaction: this server is a standby by now
DISK_FULL = "53100"

# Of a connection, unless the URL says otherwise: what is gone is noticed within seconds (libpq's parameters).
CONNECTION = {
    "connect_timeout": "5",
    "tcp_user_timeout": "5000",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "application_name": "local-llm",
    "options": f"-c lock_timeout={LOCK_SECONDS}s -c idle_in_transaction_session_timeout={IDLE_SECONDS}s",
}

# Told to clients: not where it is.
AWAY, ADVICE = "the state database is not available just now", "ask again in a moment"

log = logging.getLogger("local_llm.state")


class PasswordFileError(SettingsError):
    """It cannot be read."""


class StateUnavailableError(UnavailableError):
    """The database server is down, restarting, or too busy. What was not acknowledged may be sent again."""

    code = "state_unavailable"


def make_engine(settings: StateSettings, **options: Any) -> Engine:
    """Connects to nothing yet. Raises: SettingsError without the driver."""
    assert settings.url is not None
    url = DRIVER + "://" + settings.url.partition("://")[2]
    try:
        engine = create_engine(
            url,
            pool_size=settings.connections,
            max_overflow=0,
            pool_timeout=LOCK_SECONDS,
            pool_pre_ping=True,  # after a restart of the server nobody meets a connection of before
            hide_parameters=True,  # errors reach logs
            # Whatever the server's default is: a transaction sees what was committed before it had the lock.
            isolation_level="READ COMMITTED",
            **options,
        )
    except (ImportError, NoSuchModuleError) as error:
        raise SettingsError(
            f"state.url names PostgreSQL, but its driver cannot be loaded: {error}",
            hint="pip install 'local-llm[postgres]'",
        ) from None

    @event.listens_for(engine, "do_connect")
    def _complete(_dialect: Any, _record: Any, _arguments: list[Any], parameters: dict[str, Any]) -> None:
        for name, value in CONNECTION.items():
            parameters.setdefault(name, value)
        if settings.password_file is not None:  # anew each time: it may have been changed
            parameters["password"] = _password(settings)

    event.listen(engine, "connect", _whole_numbers)
    event.listen(engine, "begin", _begin)
    return engine


def _password(settings: StateSettings) -> str:
    """Raises: SettingsError."""
    assert settings.password_file is not None
    try:
        return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PasswordFileError(f"state.password_file {settings.password_file} cannot be read: {reason}") from None


def _whole_numbers(connection: Any, _record: Any) -> None:
    # PostgreSQL sums its 64-bit numbers as `numeric`, which would reach us as Decimal.
    from psycopg.types.numeric import IntLoader

    connection.adapters.register_loader("numeric", IntLoader)


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("reading", False):
        return
    if options.get("patient", False):
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


# Reading sessions see one moment, as SQLite's do, and write nothing past the lock.
READING = {"reading": True, "isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


@contextmanager
def named_lock(engine: Engine, name: str) -> Iterator[None]:
    """Held by one process on one host during the block; the others wait. It goes with its holder."""
    with engine.connect().execution_options(reading=True, isolation_level="AUTOCOMMIT") as connection:
        key = {"space": NAMED_LOCKS, "name": name}
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:space, hashtext(:name))"), key):
            time.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.execute(text("SELECT pg_advisory_unlock(:space, hashtext(:name))"), key)


def require_sound(connection: Connection) -> None:
    """Raises: SettingsError for a database that would not keep what is acknowledged, or all of it."""
    found = connection.execute(
        text(
            "SELECT current_setting('server_version_num')::int / 10000 AS version, "
            "current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync, "
            "current_setting('full_page_writes') AS full_page_writes, "
            "current_setting('synchronous_commit') AS synchronous_commit"
        )
    ).one()
    if found.version < OLDEST_VERSION:
        raise SettingsError(f"the state database is PostgreSQL {found.version}; expected {OLDEST_VERSION} or later")
    if found.encoding != "UTF8":
        raise SettingsError(
            f"the state database has the encoding {found.encoding}; expected UTF8",
            hint="createdb --template=template0 --encoding=UTF8 NAME",
        )
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if getattr(found, name) == "off"]
    if off:
        raise SettingsError(
            f"the state database has {', '.join(off)} = off: what it acknowledges may be lost with a power cut",
            hint=f"ALTER SYSTEM SET {off[0]} = on; then: SELECT pg_reload_conf();",
        )


@contextmanager
def opening(engine: Engine) -> Iterator[None]:
    """Of the whole database, by whoever starts a program: told with where it is. The engine goes if it fails.

    Raises: StateUnavailableError, SettingsError.
    """
    where = engine.url.render_as_string(hide_password=True)
    try:
        yield
    except DBAPIError as error:
        engine.dispose()
        raise StateUnavailableError(
            f"the state database {where} cannot be opened: {first_line(error.orig)}",
            hint="start PostgreSQL, or look at the settings [state]",
        ) from None
    except BaseException:
        engine.dispose()
        raise


@contextmanager
def in_our_words() -> Iterator[None]:
    """What befalls a connection, as errors of ours. Of where the database is only the log tells.

    Raises: StateUnavailableError, OutOfSpaceError; InvalidInputError for text that PostgreSQL cannot hold.
    """
    try:
        yield
    except PasswordFileError as error:  # it was readable when the program started
        raise unavailable(error) from None
    except PoolTimeoutError:
        raise StateUnavailableError(
            "all connections to the state database are in use", hint="ask again, or raise state.connections"
        ) from None
    except DataError as error:
        if "NUL" not in str(error.orig):
            raise
        raise InvalidInputError("a text holds a NUL character, which the state database cannot") from None
    except DBAPIError as error:
        ours = translated(error)
        if ours is None:
            raise
        raise ours from None


def translated(error: DBAPIError) -> StateUnavailableError | OutOfSpaceError | None:
    """None for what is a mistake of ours, not the server's state."""
    code = getattr(error.orig, "sqlstate", None)
    if code == DISK_FULL:
        return OutOfSpaceError("the disk of the state database is full")
    gone = error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
    return unavailable(error.orig) if gone or code in NOT_ACCEPTED else None


def unavailable(cause: BaseException | None) -> StateUnavailableError:
    log.warning("the state database is not available: %s", first_line(cause))
    return StateUnavailableError(AWAY, hint=ADVICE)


def first_line(cause: BaseException | None) -> str:
    """What the driver says, which names host, user and database, never the password."""
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def own_connection(engine: Engine) -> Any:
    """The driver's own, which never returns to the pool: its holder closes it."""
    connection = engine.raw_connection()
    driver = connection.driver_connection
    connection.detach()
    return driver
