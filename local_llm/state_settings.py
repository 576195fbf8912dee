"""The settings of the state database."""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator

from local_llm.section import Section

SCHEMES = ("postgresql+psycopg", "postgresql")


class StateSettings(Section):
    """[state]: where projects, keys, files, jobs and all else of `state.db` are kept; see docs/postgresql.md."""

    url: str | None = Field(
        None,
        description=(
            "PostgreSQL in place of SQLite: `postgresql+psycopg://USER@HOST:5432/DATABASE`, with "
            "`?sslmode=verify-full&sslrootcert=FILE` for TLS. Never with the password in it."
        ),
    )
    password_file: Path | None = Field(
        None,
        description=(
            "With `url`: file holding the password, read at each connection. Default: PGPASSWORD or ~/.pgpass, as "
            "for other clients of PostgreSQL."
        ),
    )
    connections: int = Field(
        8, ge=2, le=1000, description="With `url`: connections that each process opens at most, and one more."
    )

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            database = parts.path.strip("/")
        except ValueError:
            raise ValueError("this is no URL") from None
        if parts.scheme not in SCHEMES or not database:
            raise ValueError("expected postgresql+psycopg://USER@HOST:PORT/DATABASE")
        if parts.password is not None or any(name == "password" for name, _ in parse_qsl(parts.query)):
            raise ValueError("a password must not stand in it; put it into state.password_file, or PGPASSWORD")
        return url
