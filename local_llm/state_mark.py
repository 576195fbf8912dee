"""Which state database the folders of a home belong to.

What lies in a folder and has no row is taken for left over, and deleted when a server starts. With a database of
its own beside the folders that is so; a URL may name another one, or an empty one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from local_llm.errors import ConflictError
from local_llm.fileio import write_file
from local_llm.home import Home

MARK = ".state-database"


def require_same(home: Home, identity: str) -> None:
    """`identity`: the id of the project `local`, which no two databases share unless one is a copy of the other.
    Marks the home, and the folder of adapters, which several hosts may share.

    Raises: ConflictError if they belong to another database.
    """
    marks = [folder / MARK for folder in (home.root, home.adapters)]
    if home.state.url is None:
        if marks[0].exists():
            raise ConflictError(
                f"the state of {home.root} was moved to PostgreSQL; {home.state_database} is as old as that",
                hint=f"set state.url again; or delete {marks[0]} and {marks[1]} to go back to what it was then: "
                "adapters, collections and files that were made since are deleted",
            )
        return
    for mark in marks:
        if mark.exists() and mark.read_text(encoding="utf-8").strip() != identity:
            raise ConflictError(
                f"{mark.parent} belongs to another state database than the one that state.url names",
                hint=f"look at state.url; to give up what the folders hold, delete {mark}",
            )
    if not marks[0].exists() and _identity_in_sqlite(home.state_database) not in (None, identity):
        raise ConflictError(
            f"{home.state_database} was not copied into the state database that state.url names",
            hint="local-llm state copy; to give up what it knows of, move it away",
        )
    for mark in marks:
        if not mark.exists():
            write_file(mark, f"{identity}\n".encode())


def _identity_in_sqlite(database: Path) -> str | None:
    """None: there is none."""
    if not database.exists():
        return None
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            row = connection.execute("SELECT id FROM projects WHERE name = 'local'").fetchone()
        except sqlite3.OperationalError:  # made, and killed before it had tables
            return None
    return None if row is None else str(row[0])
