from pathlib import Path

import pytest

from local_llm.errors import AuthenticationError, InvalidInputError, NotFoundError
from local_llm.keys import KeyStore
from local_llm.permissions import Caller
from local_llm.state import State


@pytest.fixture
def keys(state: State) -> KeyStore:
    return KeyStore(state)


def test_a_key_stands_for_its_project_role_and_principals(keys: KeyStore, admin: Caller) -> None:
    new = keys.create(admin.project_id, "ana", principals=["user:ana", "group:support"])
    caller = keys.authenticate(new.secret)
    assert caller == Caller(admin.project_id, "member", ("group:support", "user:ana"), new.key.id)


def test_a_secret_is_not_kept(keys: KeyStore, admin: Caller, settings) -> None:
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
