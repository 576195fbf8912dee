"""A state database copied into another one, whole or not at all."""

from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.orm import Session

from local_llm.errors import ConflictError, IntegrityError
from local_llm.state import LOCAL_PROJECT, Project, Row, State

ROWS_AT_ONCE = 500


def copy_state(source: State, target: State) -> dict[str, int]:
    """Copies all rows into a target in PostgreSQL that holds none, in one transaction; nobody writes to either
    meanwhile. Returns: the rows of each table.

    Raises: ConflictError if the target holds any; InvalidInputError for a text that it cannot hold.
    """
    tables = Row.metadata.sorted_tables  # those that others refer to first
    with source.session() as reading, target.session() as writing:
        _empty(writing, tables)
        copied = {table.name: _copy(reading, writing, table) for table in tables}
        found = {table.name: _count(writing, table) for table in tables}
        if found != copied:
            raise IntegrityError(f"copied {copied}, but the target holds {found}")
        for table in tables:
            _set_counter(writing, table)
    return copied


def _empty(session: Session, tables: list[Table]) -> None:
    """Takes away the project that every opening makes. Raises: ConflictError if there is anything else."""
    held = {table.name: count for table in tables if (count := _count(session, table))}
    names = session.scalars(select(Project.name)).all()
    if held not in ({}, {Project.__tablename__: 1}) or any(name != LOCAL_PROJECT for name in names):
        told = ", ".join(f"{name}: {count}" for name, count in held.items())
        raise ConflictError(
            f"the target is in use: it holds rows ({told})", hint="name an empty database in state.url"
        )
    for project in session.scalars(select(Project)):
        session.delete(project)
    session.flush()


def _copy(reading: Session, writing: Session, table: Table) -> int:
    count = 0
    rows = reading.execute(select(table).execution_options(yield_per=ROWS_AT_ONCE)).mappings()
    for part in rows.partitions():
        values: list[dict[str, Any]] = [dict(row) for row in part]
        writing.execute(insert(table), values)
        count += len(values)
    return count


def _count(session: Session, table: Table) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _set_counter(session: Session, table: Table) -> None:
    """Rows that the database numbers go on behind those that were copied."""
    column = table.autoincrement_column
    if column is not None:
        last = session.scalar(select(func.max(column))) or 0
        counter = "SELECT setval(pg_get_serial_sequence(:table, :column), :next, false)"
        session.execute(text(counter), {"table": table.name, "column": column.name, "next": last + 1})
