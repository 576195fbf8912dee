"""A throwaway PostgreSQL for tests: the system's programs, run as somebody without rights, on a Unix socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from local_llm.settings import Settings, load_settings
from local_llm.state import open_state

OWNER = "llm"
PASSWORD = "correct horse"
DEBIAN = Path("/usr/lib/postgresql")


def environment_of(settings: Settings) -> dict[str, str]:
    """Variables with which a command works on the same home and state."""
    found = {
        "LOCAL_LLM_HOME": settings.home,
        "LOCAL_LLM_STATE__URL": settings.state.url,
        "LOCAL_LLM_STATE__PASSWORD_FILE": settings.state.password_file,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    return versions[-1].parent if versions else None


class Cluster:
    """Started by start(); `settings` are those of a server that keeps its state in a fresh database of it."""

    def __init__(self, programs: Path):
        self._programs = programs
        self._template: str | None = None
        # PostgreSQL refuses to run as root.
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: it holds a socket
        self._give(self.folder)
        self.password_file = self.folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self._give(self.password_file)
        self._call(
            *("initdb", "--pgdata", str(self.data), "--username", OWNER, "--pwfile", str(self.password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c max_connections=60"
        log = str(self.folder / "log")
        self._call("pg_ctl", "start", "-w", "-D", str(self.data), "-l", log, "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """`immediate`: without a word to its clients, as a crash does."""
        self._call("pg_ctl", "stop", "-w", "-D", str(self.data), "-m", mode)

    def remove(self) -> None:
        self.stop()  # without writing down what is thrown away
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{OWNER}@/{database}?host={self.folder}"

    def create_state(self) -> str:
        """A database with all tables and the project `local`, copied from one that was migrated once."""
        if self._template is None:
            name = self.create_database()
            with tempfile.TemporaryDirectory() as home:
                environment = {"LOCAL_LLM_HOME": home, **self.environment(name)}
                open_state(load_settings(environment=environment).place).close()
            self._template = name
        return self.create_database("TEMPLATE", self._template)

    def create_database(self, *options: str) -> str:
        name = f"db_{uuid4().hex}"
        self.execute("postgres", f"CREATE DATABASE {name} {' '.join(options)}")
        return name

    def environment(self, database: str) -> dict[str, str]:
        return {
            "LOCAL_LLM_STATE__URL": self.url(database),
            "LOCAL_LLM_STATE__PASSWORD_FILE": str(self.password_file),
        }

    def execute(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """The rows, if there are any."""
        import psycopg

        with psycopg.connect(
            host=str(self.folder), user=OWNER, password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _call(self, program: str, *arguments: str) -> None:
        output = self.folder / "output"  # not a pipe: the server that pg_ctl starts would keep it open
        with output.open("wb") as handle:
            done = subprocess.run(
                [self._programs / program, *arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"]},
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                stdout=handle,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert done.returncode == 0, output.read_text()

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)
