"""What keys use is counted in memory, written within a second, and lost by nobody's failure."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.state import State, UsageRow
from local_llm.trailing import TrailingWriter
from local_llm.usage import Usage

BOTH_DATABASES = True


@pytest.fixture
def ana(state: State, admin: Caller) -> Caller:
    keys = KeyStore(state)
    return keys.authenticate(keys.create(admin.project_id, "ana").secret)


def rows(state: State) -> list[UsageRow]:
    with state.reading() as session:
        return list(session.scalars(select(UsageRow).order_by(UsageRow.kind)))


def test_counts_of_a_minute_add_up_in_one_row(state: State, ana: Caller) -> None:
    first, second = Usage(state, lambda: 600), Usage(state, lambda: 600)  # two gateways
    for usage in (first, second, first):
        usage.count(ana, "tiny", "completions", input_tokens=10, cached_tokens=4, output_tokens=3, passages=5)
        usage.flush()
    first.count(ana, "MiniLM", "embeddings", input_tokens=7)
    first.flush()
    completions, embeddings = rows(state)
    assert (completions.minute, completions.key_id, completions.model) == (600, ana.key_id, "tiny")
    counts = ("requests", "input_tokens", "cached_tokens", "output_tokens", "passages")
    assert [getattr(completions, name) for name in counts] == [3, 30, 12, 9, 15]
    assert [getattr(embeddings, name) for name in counts] == [1, 7, 0, 0, 0]


def test_tokens_today_are_known_before_they_are_written_and_after(state: State, ana: Caller) -> None:
    usage, elsewhere = Usage(state), Usage(state)
    assert ana.key_id is not None
    usage.count(ana, "tiny", "completions", input_tokens=10, output_tokens=5)
    assert usage.tokens_today(ana.key_id) == 15
    usage.flush()
    assert usage.tokens_today(ana.key_id) == 15
    usage.count(ana, "tiny", "completions", output_tokens=1, requests=0)
    assert usage.tokens_today(ana.key_id) == 16
    elsewhere.count(ana, "tiny", "completions", output_tokens=100)
    elsewhere.flush()
    usage.flush()
    assert usage.tokens_today(ana.key_id) == 116
    assert usage.tokens_today("key_other") == 0


def test_a_day_begins_at_midnight_utc(state: State, ana: Caller) -> None:
    assert ana.key_id is not None
    moment = [86400 * 3 - 1]
    usage = Usage(state, lambda: moment[0])
    usage.count(ana, "tiny", "completions", output_tokens=7)
    assert usage.tokens_today(ana.key_id) == 7
    moment[0] += 1
    assert usage.tokens_today(ana.key_id) == 0
    usage.count(ana, "tiny", "completions", output_tokens=2)
    usage.flush()
    assert usage.tokens_today(ana.key_id) == 2


def test_what_could_not_be_written_is_written_later(state: State, ana: Caller) -> None:
    usage = Usage(state)
    usage.count(ana, "tiny", "completions", output_tokens=7)
    with state.session() as session:
        session.execute(text("ALTER TABLE usage RENAME TO elsewhere"))
    with pytest.raises(SQLAlchemyError):
        usage.flush()
    assert ana.key_id is not None
    usage.count(ana, "tiny", "completions", output_tokens=1)
    with state.session() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO usage"))
    usage.flush()
    (row,) = rows(state)
    assert (row.requests, row.output_tokens) == (2, 8)


def test_counts_of_a_project_that_is_gone_hold_up_no_others(state: State, ana: Caller) -> None:
    usage = Usage(state)
    for caller in (replace(ana, project_id="proj_gone"), ana):
        usage.count(caller, "tiny", "completions", output_tokens=7)
    usage.flush()
    usage.flush()
    (row,) = rows(state)
    assert (row.project_id, row.output_tokens) == (ana.project_id, 7)


def test_a_writer_writes_what_is_left_when_it_ends(state: State, ana: Caller) -> None:
    usage = Usage(state)
    writer = TrailingWriter([usage.flush], seconds=60)
    writer.start()
    usage.count(ana, "tiny", "completions", output_tokens=7)
    writer.close()
    assert len(rows(state)) == 1


def test_nothing_to_write_commits_nothing(state: State) -> None:
    """Else every idle second would empty what the gateway keeps."""
    usage, before = Usage(state), state.version()
    usage.flush()
    assert state.version() == before
