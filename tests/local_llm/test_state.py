import os
import threading
from pathlib import Path

from sqlalchemy import select

from local_llm.settings import Settings, load_settings
from local_llm.state import Project, State, open_state


def test_a_reader_waits_for_no_writer(state: State) -> None:
    """A write transaction stays open while another session reads what was committed before."""
    with state.session() as writer:
        writer.add(Project(id="p", name="new", created_at=0, archived_at=None))
        writer.flush()
        seen: list[str] = []

        def read() -> None:
            with state.reading() as reader:
                seen.extend(reader.scalars(select(Project.name)))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join(5)
        assert seen == ["local"]


def test_a_second_opening_keeps_what_is_there(settings: Settings, state: State) -> None:
    before = state.local_project_id()
    again = open_state(settings.place)
    assert again.local_project_id() == before
    again.close()


def test_only_its_owner_can_look_into_the_home(settings: Settings, state: State) -> None:
    assert os.stat(settings.home).st_mode & 0o077 == 0  # noqa: PTH116


def test_a_relative_home_is_the_same_from_everywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environment={"LOCAL_LLM_HOME": "here"}).home == tmp_path / "here"
    (tmp_path / "s.toml").write_text("home = '~/there'")
    assert load_settings(tmp_path / "s.toml", environment={}).home == Path.home() / "there"
