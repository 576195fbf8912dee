"""Profiles of the settings: there from the start, and changed only there."""

from dataclasses import replace
from typing import Any

import pytest

from local_llm.declared_profiles import DeclaredProfiles, check_declared
from local_llm.errors import ConflictError, NotFoundError, SettingsError
from local_llm.identifiers import now
from local_llm.permissions import Caller
from local_llm.profiles import Profile, ProfileStore
from local_llm.settings import ProfileSettings
from local_llm.state import Collection, State


def declared(state: State, **profiles: dict[str, Any]) -> DeclaredProfiles:
    tables = {name: ProfileSettings(**values) for name, values in profiles.items()}
    return DeclaredProfiles(state, ProfileStore(state), tables)


def make_collection(state: State, caller: Caller, name: str = "kb") -> None:
    with state.session() as session:
        session.add(
            Collection(
                id=f"vs_{name}", project_id=caller.project_id, name=name, encoder="e", encoder_fingerprint="f",
                created_at=now(),
            )
        )  # fmt: skip


def test_they_are_made_changed_and_dropped_with_the_settings(state: State, admin: Caller) -> None:
    make_collection(state, admin)
    profiles = ProfileStore(state)
    profiles.set(admin, Profile("mine", "base"))
    assert declared(state, help={"strategy": "rag", "collection": "kb"}).adopt() == {}
    assert profiles.find(admin, "help") == Profile("help", "rag", collection="vs_kb", from_settings=True)
    changed = {"strategy": "rag", "collection": "kb", "k": 3, "rewrite": False, "answer_only_from_context": False}
    declared(state, help=changed).adopt()
    found = profiles.find(admin, "help")
    assert found is not None
    assert (found.k, found.rewrite, found.answer_only_from_context) == (3, False, False)
    declared(state).adopt()
    assert [profile.name for profile in profiles.list(admin)] == ["mine"]


def test_nobody_else_changes_or_removes_them(state: State, admin: Caller) -> None:
    declared(state, help={"strategy": "base"}).adopt()
    profiles = ProfileStore(state)
    with pytest.raises(ConflictError, match="the settings declare"):
        profiles.remove(admin, "help")
    with pytest.raises(ConflictError, match="the settings declare"):
        profiles.set(admin, Profile("help", "base", prompt="x"))


def test_what_is_to_come_is_told_and_tried_again(state: State, admin: Caller) -> None:
    settled = declared(
        state, help={"strategy": "rag", "collection": "kb"}, other={"strategy": "base", "project": "x"}
    )
    missing = settled.adopt()
    assert {name: error.message for name, error in missing.items()} == {
        "help": "there is no collection 'kb'",
        "other": "there is no project 'x'",
    }
    with pytest.raises(NotFoundError, match="kb"):
        settled.find(admin, "help")
    assert settled.find(admin, "other") is None
    assert settled.find(Caller("proj_other", "admin"), "help") is None
    make_collection(state, admin)
    found = settled.find(admin, "help")
    assert found is not None
    assert found.collection == "vs_kb"


def test_a_key_held_to_other_models_or_collections_finds_none(state: State, admin: Caller) -> None:
    """The settings' profiles were found by every key of the project, past its scopes."""
    make_collection(state, admin)
    settled = declared(state, help={"strategy": "rag", "collection": "kb"}, plain={"strategy": "base"})
    assert settled.adopt() == {}
    for scoped, found in (
        (replace(admin, models=("gpt-4o",)), {"help": False, "plain": False}),
        (replace(admin, models=("help",)), {"help": True, "plain": False}),
        (replace(admin, collections=("vs_other",)), {"help": False, "plain": True}),
        (replace(admin, collections=("vs_kb",)), {"help": True, "plain": True}),
    ):
        assert {name: settled.find(scoped, name) is not None for name in found} == found


def test_what_cannot_be_right_is_told_before_anything_starts() -> None:
    wrong = {
        "help": ProfileSettings(strategy="rag"),
        "tone": ProfileSettings(strategy="fine_tuned"),
        "fast": ProfileSettings(strategy="base", rewrite=True),
    }
    with pytest.raises(SettingsError) as caught:
        check_declared(wrong)
    for told in ("rag needs a collection", "needs an ft: model", "fast"):
        assert told in caught.value.message


def test_the_settings_and_the_api_have_the_same_options_with_the_same_defaults() -> None:
    from serving.routes.profiles import ProfileBody

    here = {name: field.default for name, field in ProfileSettings.model_fields.items() if name != "project"}
    there = {name: field.default for name, field in ProfileBody.model_fields.items() if name != "name"}
    assert here == there
