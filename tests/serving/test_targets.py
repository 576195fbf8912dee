"""What model names stand for is kept in memory, and still a change holds from the very next request."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.declared_profiles import DeclaredProfiles
from local_llm.errors import ModelNotFoundError
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.profiles import Profile, ProfileStore
from local_llm.settings import ProfileSettings, Settings
from local_llm.state import Adapter, State, open_state
from serving.answering.targets import Target, Targets

from ..handmade_adapters import write_adapter, write_base
from .conftest import BASE

TUNED = f"ft:{BASE}:local:support:abcd1234"
CALLS = 20_000
MOST_MICROSECONDS = 15


class CountingProfiles(ProfileStore):
    """Knows how often it was asked: whatever is not kept begins with that."""

    asked = 0

    def find(self, caller: Caller, name: str) -> Profile | None:
        self.asked += 1
        return super().find(caller, name)


@pytest.fixture
def profiles(state: State) -> CountingProfiles:
    return CountingProfiles(state)


@pytest.fixture
def registry(settings: Settings, state: State, tmp_path: Path) -> AdapterRegistry:
    ModelStore(settings.place.ensure().models).import_folder(write_base(tmp_path / "model"), name=BASE)
    return AdapterRegistry(settings, state)


@pytest.fixture
def made(settings: Settings, state: State, profiles: CountingProfiles, registry: AdapterRegistry) -> Targets:
    base = ModelStore(settings.place.models).get(BASE).manifest
    declared = DeclaredProfiles(state, profiles, {})
    return Targets(state, base, profiles, declared, registry, {"gpt-4o": "base"})


@pytest.fixture
def tuned(registry: AdapterRegistry, settings: Settings, admin: Caller, tmp_path: Path) -> Adapter:
    return registry.publish(
        write_adapter(tmp_path / "adapter"),
        base=ModelStore(settings.place.models).get(BASE),
        name=TUNED,
        project_id=admin.project_id,
        run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}),
    )


@pytest.fixture
def other(settings: Settings) -> Iterator[State]:
    """The same database through connections of its own, as another process has them."""
    state = open_state(settings.place)
    yield state
    state.close()


def is_unknown(made: Targets, caller: Caller, name: str) -> bool:
    try:
        made.resolve(caller, name)
    except ModelNotFoundError:
        return True
    return False


def test_a_name_is_looked_up_once_while_nothing_changes(
    made: Targets, profiles: CountingProfiles, admin: Caller, tuned: Adapter
) -> None:
    for name, target in (("gpt-4o", Target(BASE)), (BASE, Target(BASE))):
        assert [made.resolve(admin, name) for _ in range(3)] == [target] * 3
    assert made.resolve(admin, TUNED).adapter is made.resolve(admin, TUNED).adapter
    assert profiles.asked == 3


def test_a_kept_name_costs_at_most_15_microseconds(made: Targets, admin: Caller, figures) -> None:
    def microseconds() -> float:
        """Of processor time: others work on this machine too."""
        started = time.thread_time()
        for _ in range(CALLS):
            made.resolve(admin, BASE)
        return (time.thread_time() - started) / CALLS * 1e6

    fastest = min(microseconds() for _ in range(5))
    figures["model name, kept, µs"] = round(fastest, 2)
    assert fastest <= MOST_MICROSECONDS


def test_a_profile_made_changed_and_removed_by_another_process_is_seen_at_once(
    made: Targets, admin: Caller, tuned: Adapter, other: State
) -> None:
    theirs = ProfileStore(other)
    assert is_unknown(made, admin, "support")
    theirs.set(admin, Profile("support", "fine_tuned", TUNED))
    assert made.resolve(admin, "support").model == TUNED
    theirs.set(admin, Profile("support", "base", prompt="Be brief."))
    found = made.resolve(admin, "support")
    assert (found.model, found.profile) == (BASE, Profile("support", "base", prompt="Be brief."))
    theirs.remove(admin, "support")
    assert is_unknown(made, admin, "support")


def test_the_command_line_is_such_a_process(made: Targets, admin: Caller, settings: Settings) -> None:
    assert made.resolve(admin, BASE).profile is None
    environment = {**os.environ, "LOCAL_LLM_HOME": str(settings.home)}
    line = [sys.executable, "-m", "local_llm", "profiles", "set", BASE, "--strategy", "base", "--prompt", "Aye."]
    subprocess.run(line, env=environment, check=True, capture_output=True)
    assert made.resolve(admin, BASE).profile == Profile(BASE, "base", prompt="Aye.")


def test_a_deleted_adapter_is_unknown_at_once(
    made: Targets, admin: Caller, tuned: Adapter, settings: Settings, other: State
) -> None:
    ProfileStore(other).set(admin, Profile("support", "fine_tuned", TUNED))
    assert made.resolve(admin, TUNED).model == made.resolve(admin, "support").model == TUNED
    AdapterRegistry(settings, other).delete(tuned)
    assert is_unknown(made, admin, TUNED)
    assert is_unknown(made, admin, "support")


def test_an_adapter_closed_to_a_caller_is_unknown_to_it_at_once(
    made: Targets, admin: Caller, tuned: Adapter, other: State
) -> None:
    ana = Caller(admin.project_id, "member", principals=("user:ana",), key_id="key_ana")
    assert made.resolve(ana, TUNED).model == TUNED
    with other.session() as session:
        session.get_one(Adapter, tuned.id).allow = ["user:bob"]
    assert is_unknown(made, ana, TUNED)
    assert made.resolve(admin, TUNED).model == TUNED


def test_what_one_caller_may_name_is_not_kept_for_another(made: Targets, admin: Caller, tuned: Adapter) -> None:
    assert made.resolve(admin, TUNED).model == TUNED
    for stranger in (
        replace(admin, project_id="proj_other"),
        replace(admin, models=("gpt-4o",)),
        replace(admin, key_id="key_ana", models=()),
    ):
        assert is_unknown(made, stranger, TUNED)
    assert made.resolve(replace(admin, models=("gpt-4o",)), "gpt-4o").model == BASE


def test_a_profile_of_the_settings_is_no_way_around_a_scope(
    settings: Settings, state: State, profiles: CountingProfiles, registry: AdapterRegistry, admin: Caller
) -> None:
    declared = DeclaredProfiles(state, profiles, {"plain": ProfileSettings(strategy="base")})
    declared.adopt()
    made = Targets(state, ModelStore(settings.place.models).get(BASE).manifest, profiles, declared, registry, {})
    assert made.resolve(admin, "plain").profile is not None
    assert is_unknown(made, replace(admin, models=("another",)), "plain")
    assert not is_unknown(made, replace(admin, models=("plain",)), "plain")
