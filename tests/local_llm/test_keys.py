import time
from pathlib import Path

import pytest

from local_llm.errors import AuthenticationError, ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from local_llm.keys import KeyStore, Scopes
from local_llm.permissions import Caller, Keeps, Limits
from local_llm.profiles import Profile, ProfileStore
from local_llm.projects import ProjectStore
from local_llm.state import Collection, Key, State

BOTH_DATABASES = True


@pytest.fixture
def keys(state: State) -> KeyStore:
    return KeyStore(state)


def test_a_key_stands_for_its_project_role_and_principals(keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana", principals=["user:ana", "group:support"])
    caller = keys.authenticate(new.secret)
    keeps = Keeps(store_responses=True)  # as new projects do
    assert caller == Caller(admin.project_id, "member", ("group:support", "user:ana"), new.key.id, keeps=keeps)


def test_a_secret_is_not_kept(keys: KeyStore, admin: Caller, settings) -> None:
    if settings.state.url:
        pytest.skip("the bytes of a file are looked at")
    secret = keys.create(admin.project_id, "ana").secret
    stored = b"".join(path.read_bytes() for path in settings.home.glob("state.db*"))
    assert secret.encode() not in stored


@pytest.mark.parametrize("secret", ["", "sk-local-wrong", "Bearer x"])
def test_an_unknown_key_is_refused(keys: KeyStore, secret: str) -> None:
    with pytest.raises(AuthenticationError):
        keys.authenticate(secret)


def test_a_revoked_key_is_refused_from_then_on(keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana")
    keys.revoke(admin.project_id, new.key.id)
    with pytest.raises(AuthenticationError):
        keys.authenticate(new.secret)


def test_another_projects_key_is_not_found(keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana")
    with pytest.raises(NotFoundError):
        keys.revoke("proj_other", new.key.id)


def test_a_box_with_only_revoked_keys_stays_closed(keys: KeyStore, admin: Caller) -> None:
    assert not keys.any_created()
    keys.revoke(admin.project_id, keys.create(admin.project_id, "ana").key.id)
    assert keys.any_created()


def test_the_first_key_comes_from_a_file_once(keys: KeyStore, admin: Caller, tmp_path: Path) -> None:
    file = tmp_path / "first_key"
    file.write_text("sk-a-long-enough-secret-of-ours\n")
    assert keys.create_first(admin.project_id, file) is not None
    assert keys.authenticate("sk-a-long-enough-secret-of-ours").role == "owner"
    assert keys.create_first(admin.project_id, file) is None


def test_a_first_key_that_is_short_or_missing_is_refused(keys: KeyStore, admin: Caller, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        keys.create_first(admin.project_id, tmp_path / "nowhere")
    for content in (b"", b"  \n", b"\xff\xfe"):
        (tmp_path / "empty").write_bytes(content)
        with pytest.raises(InvalidInputError):
            keys.create_first(admin.project_id, tmp_path / "empty")
    assert not keys.any_created()
    (tmp_path / "short").write_text("secret")
    with pytest.raises(InvalidInputError, match="6 characters"):
        keys.create_first(admin.project_id, tmp_path / "short")


def test_who_may_see_what() -> None:
    ana = Caller("p", "member", ("user:ana",))
    assert ana.may_see(None)
    assert ana.may_see(["user:ana", "group:x"])
    assert not ana.may_see(["user:bob"])
    assert not ana.may_see([])
    assert Caller("p", "admin").may_see(["user:bob"])
    assert Caller("p", "owner").may_see(["user:bob"])


def collection(state: State, admin: Caller, identifier: str, name: str) -> None:
    with state.session() as session:
        session.add(
            Collection(
                id=identifier,
                project_id=admin.project_id,
                name=name,
                encoder="e",
                encoder_fingerprint="f",
                created_at=0,
            )
        )


def test_a_rotated_key_keeps_its_identity_and_the_old_secret_its_overlap(keys: KeyStore, admin: Caller) -> None:
    old = keys.create(admin.project_id, "ana", principals=["user:ana"], limits=Limits(tokens_per_day=9))
    new = keys.rotate(admin.project_id, old.key.id, overlap_seconds=4)
    assert keys.authenticate(new.secret) == keys.authenticate(old.secret)
    assert new.key.id == old.key.id
    time.sleep(4.1)
    assert keys.authenticate(new.secret).limits == Limits(tokens_per_day=9)
    with pytest.raises(AuthenticationError):
        keys.authenticate(old.secret)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(keys: KeyStore, admin: Caller) -> None:
    old = keys.create(admin.project_id, "ana")
    new = keys.rotate(admin.project_id, old.key.id, overlap_seconds=0)
    with pytest.raises(AuthenticationError):
        keys.authenticate(old.secret)
    newest = keys.rotate(admin.project_id, old.key.id)
    assert keys.authenticate(new.secret) == keys.authenticate(newest.secret)
    keys.rotate(admin.project_id, old.key.id)
    with pytest.raises(AuthenticationError):  # two secrets open at most
        keys.authenticate(new.secret)


def test_revoking_ends_both_secrets_of_a_rotation(keys: KeyStore, admin: Caller) -> None:
    old = keys.create(admin.project_id, "ana")
    new = keys.rotate(admin.project_id, old.key.id)
    keys.revoke(admin.project_id, old.key.id)
    for secret in (old.secret, new.secret):
        with pytest.raises(AuthenticationError):
            keys.authenticate(secret)
    with pytest.raises(NotFoundError):
        keys.rotate(admin.project_id, old.key.id)


def test_a_key_expires(keys: KeyStore, state: State, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana", expires_at=int(time.time()) + 60)
    assert keys.authenticate(new.secret)
    with state.session() as session:
        session.get_one(Key, new.key.id).expires_at = int(time.time()) - 1
    with pytest.raises(AuthenticationError):
        keys.authenticate(new.secret)


def test_scopes_are_names_of_what_is_there(keys: KeyStore, state: State, admin: Caller) -> None:
    collection(state, admin, "vs_1", "kb")
    new = keys.create(admin.project_id, "app", scopes=Scopes(["help", "ft:*"], ["kb", "vs_1"]))
    caller = keys.authenticate(new.secret)
    assert (caller.models, caller.collections) == (("ft:*", "help"), ("vs_1",))
    assert caller.may_name("help")
    assert caller.may_name("ft:tiny:local:a:1")
    assert not caller.may_name("base", "tiny")
    assert caller.may_reach("vs_1")
    assert not caller.may_reach("vs_2")
    with pytest.raises(NotFoundError, match="secrets"):
        keys.create(admin.project_id, "app", scopes=Scopes(collections=["secrets"]))
    other = ProjectStore(state).create("other")
    with pytest.raises(NotFoundError):
        keys.create(other.id, "app", scopes=Scopes(collections=["kb"]))


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x", "role": "king"}, "role"),
        ({"name": "x", "limits": Limits(requests_per_minute=0)}, "requests_per_minute"),
        ({"name": "x", "limits": Limits(tokens_per_day=2**63)}, "tokens_per_day"),
        ({"name": "x", "expires_at": 5}, "expires_at"),
        ({"name": "x", "scopes": Scopes(models=[])}, "models"),
    ],
)
def test_what_cannot_be_right_is_refused_by_field(keys: KeyStore, admin: Caller, values: dict, param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        keys.create(admin.project_id, **values)
    assert caught.value.param == param
    assert not keys.any_created()


def test_an_archived_project_gets_no_keys(keys: KeyStore, state: State, admin: Caller) -> None:
    projects = ProjectStore(state)
    other = projects.create("other")
    projects.archive(admin, "other")
    with pytest.raises(ConflictError):
        keys.create(other.id, "ana")
    with pytest.raises(NotFoundError):
        keys.create("proj_none", "ana")


def test_a_scoped_key_sees_only_profiles_within_and_changes_none(keys, state: State, admin: Caller) -> None:
    collection(state, admin, "vs_1", "kb")
    collection(state, admin, "vs_2", "secrets")
    profiles = ProfileStore(state)
    for name, strategy, kb in (("plain", "base", None), ("help", "rag", "kb"), ("board", "rag", "secrets")):
        profiles.set(admin, Profile(name, strategy, collection=kb))  # type: ignore[arg-type]
    app = keys.authenticate(keys.create(admin.project_id, "a", scopes=Scopes(collections=["kb"])).secret)
    assert [one.name for one in profiles.list(app)] == ["help", "plain"]
    assert profiles.find(app, "board") is None
    named = keys.authenticate(keys.create(admin.project_id, "b", scopes=Scopes(models=["board"])).secret)
    assert [one.name for one in profiles.list(named)] == ["board"]
    for caller in (app, named):
        with pytest.raises(ForbiddenError):
            profiles.set(caller, Profile("board", "base"))
        with pytest.raises(ForbiddenError):
            profiles.remove(caller, "board")


def test_when_a_key_was_used_only_moves_forward(keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana")
    keys.note_used({new.key.id: 100, "key_gone": 1})
    keys.note_used({new.key.id: 50})
    assert keys.get(admin.project_id, new.key.id).last_used_at == 100
