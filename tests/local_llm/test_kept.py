from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llm.errors import NotFoundError
from local_llm.home import Home
from local_llm.identifiers import new_ordered_id, now
from local_llm.kept import KeptReads
from local_llm.state import Project, State, open_state


@pytest.fixture
def states(tmp_path: Path) -> Iterator[tuple[State, State]]:
    """Two processes' worth of one database."""
    opened = open_state(Home(tmp_path)), open_state(Home(tmp_path))
    yield opened
    for state in opened:
        state.close()


def commit(state: State) -> None:
    with state.session() as session:
        session.add(
            Project(id=new_ordered_id("proj_"), name=new_ordered_id("p"), created_at=now(), archived_at=None)
        )


def test_it_is_read_again_after_anybodys_commit(states: tuple[State, State]) -> None:
    mine, another = states
    kept: KeptReads[str, int] = KeptReads(mine)
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        return len(reads)

    assert [kept.get("a", read), kept.get("a", read)] == [1, 1]
    commit(mine)
    assert [kept.get("a", read), kept.get("a", read)] == [2, 2]
    commit(another)
    assert kept.get("a", read) == 3


def test_what_is_not_found_is_not_kept_and_what_is_is_bounded(states: tuple[State, State]) -> None:
    kept: KeptReads[int, int] = KeptReads(states[0], most=10)

    def missing() -> int:
        raise NotFoundError("nothing")

    with pytest.raises(NotFoundError):
        kept.get(0, missing)
    assert not len(kept)
    for number in range(25):
        assert kept.get(number, lambda one=number: one) == number
    assert len(kept) == 5
