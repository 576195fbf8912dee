import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, BigInteger, Boolean, Float, insert, select

from local_llm.audit import Audit, AuditQuery
from local_llm.cli.app import run
from local_llm.errors import ConflictError
from local_llm.home import Home
from local_llm.locks import exclusive_lock
from local_llm.permissions import local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import Row, State, open_empty_state, open_state
from local_llm.state_copy import copy_state
from tests.postgresql import Cluster

ROWS = 3


@pytest.fixture
def full(tmp_path: Path) -> State:
    """SQLite with rows in every table."""
    state = open_empty_state(Home(tmp_path / "home"))
    with state.session() as session:
        for table in Row.metadata.sorted_tables:
            session.execute(insert(table), [value_of(table, number) for number in range(ROWS)])
    return state


def value_of(table: Any, number: int) -> dict[str, Any]:
    """A value in each column, other ones in each row; where a column refers to a row, to the one of this number."""
    values: dict[str, Any] = {}
    for column in table.columns:
        if isinstance(column.type, JSON):
            values[column.name] = (
                {"größe": [number, None, "\u0000"]} if number else ([] if not column.nullable else None)
            )
        elif isinstance(column.type, Boolean):
            values[column.name] = bool(number % 2)
        elif isinstance(column.type, Float):
            values[column.name] = number + 0.1
        elif isinstance(column.type, BigInteger) or column.type.python_type is int:
            values[column.name] = 2**40 + number
        else:
            refers = bool(column.foreign_keys) or column.name == "id"
            values[column.name] = f"id{number}" if refers else f"{column.name} {number} ✓"
    return values


def everything(state: State) -> dict[str, list[Any]]:
    with state.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
            for table in Row.metadata.sorted_tables
        }


@pytest.fixture
def target(postgresql: Cluster, tmp_path: Path) -> Settings:
    environment = postgresql.environment(postgresql.create_state())
    return load_settings(environment={"LOCAL_LLM_HOME": str(tmp_path / "home"), **environment})


def test_all_rows_are_copied_and_numbering_goes_on(full: State, target: Settings) -> None:
    with closing(full), closing(open_state(target.place)) as there:
        counts = copy_state(full, there)
        assert set(counts.values()) == {ROWS}
        # But for NUL, which PostgreSQL could not read as text.
        assert json.dumps(everything(there)) == json.dumps(everything(full)).replace(r"\u0000", r"\ufffd")
        audit = Audit(there)
        audit.note(local_admin("id0"), "key.created", "key_1")
        audit.flush()
        assert audit.find(AuditQuery())[0][0].action == "key.created"


def test_a_target_that_is_in_use_stays_as_it_is(full: State, target: Settings) -> None:
    with closing(full), closing(open_state(target.place)) as there:
        copy_state(full, there)
        before = everything(there)
        with pytest.raises(ConflictError, match="in use"):
            copy_state(full, there)
        assert everything(there) == before


def test_a_copy_that_fails_leaves_nothing(full: State, target: Settings) -> None:
    with full.session() as session:
        session.connection().exec_driver_sql("UPDATE chats SET correction = 'a' || char(0) WHERE id = 'id2'")
    with closing(full), closing(open_state(target.place)) as there:
        before = everything(there)
        with pytest.raises(Exception, match="NUL"):
            copy_state(full, there)
        assert everything(there) == before


def test_the_command_copies_and_tells_the_counts(
    full: State, target: Settings, postgresql: Cluster, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    full.close()
    monkeypatch.setenv("LOCAL_LLM_HOME", str(target.home))
    assert run(["state", "copy"]) == 1
    assert "state.url is not set" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_LLM_STATE__URL", str(target.state.url))
    monkeypatch.setenv("LOCAL_LLM_STATE__PASSWORD_FILE", str(target.state.password_file))
    with exclusive_lock(target.place.run / "server.lock", "the server"):
        assert run(["state", "copy"]) == 1
    assert "the server" in capsys.readouterr().err
    assert run(["state", "copy", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["table"]: row["rows"] for row in told} == dict.fromkeys(Row.metadata.tables, ROWS)
    assert target.place.state_database.exists()
