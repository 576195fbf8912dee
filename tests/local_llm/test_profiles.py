import pytest

from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.identifiers import now
from local_llm.permissions import Caller
from local_llm.profiles import Profile, ProfileStore
from local_llm.state import Adapter, Collection, Project, State

BOTH_DATABASES = True

TUNED = "ft:tiny:local:x:12345678"


@pytest.fixture
def profiles(state: State, admin: Caller) -> ProfileStore:
    with state.session() as session:
        session.add(Project(id="proj_b", name="b", created_at=now(), archived_at=None))
        session.flush()
        for project, name in ((admin.project_id, TUNED), ("proj_b", "ft:tiny:local:b:12345678")):
            session.add(
                Adapter(
                    id=name, project_id=project, name=name, base_model="tiny", base_sha256="", rank=8,
                    manifest_sha256="", job_id=None, allow=None, created_at=now(),
                )
            )  # fmt: skip
        session.add(
            Collection(
                id="vs_1", project_id=admin.project_id, name="kb", encoder="e", encoder_fingerprint="f",
                created_at=now(),
            )
        )  # fmt: skip
    return ProfileStore(state)


def test_a_profile_is_kept_with_its_collections_id(profiles: ProfileStore, admin: Caller) -> None:
    profiles.set(admin, Profile("help", "hybrid", TUNED, "kb", k=3))
    assert profiles.find(admin, "help") == Profile("help", "hybrid", TUNED, "vs_1", None, 3)


def test_setting_a_profile_again_replaces_it(profiles: ProfileStore, admin: Caller) -> None:
    profiles.set(admin, Profile("help", "rag", collection="kb"))
    profiles.set(admin, Profile("help", "base"))
    assert [profile.strategy for profile in profiles.list(admin)] == ["base"]


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (Profile("p", "rag"), "needs a collection"),
        (Profile("p", "hybrid", TUNED), "needs a collection"),
        (Profile("p", "base", collection="kb"), "retrieves nothing"),
        (Profile("p", "fine_tuned"), "needs an ft: model"),
        (Profile("p", "base", TUNED), "needs the base model"),
        (Profile("p", "magic"), "expected one of base, fine_tuned, rag, hybrid"),  # type: ignore[arg-type]
        (Profile("p", "rag", collection="kb", k=0), "k = 0"),
        (Profile("ft:x", "base"), "name"),
        (Profile("a/b", "base"), "name"),
    ],
)
def test_a_contradiction_is_told(profiles: ProfileStore, admin: Caller, profile: Profile, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        profiles.set(admin, profile)
    assert profiles.list(admin) == []


def test_what_is_not_there_or_not_ours_is_not_found(profiles: ProfileStore, admin: Caller) -> None:
    for profile in (Profile("p", "rag", collection="nope"), Profile("p", "fine_tuned", "ft:tiny:local:b:12345678")):
        with pytest.raises(NotFoundError):
            profiles.set(admin, profile)
    with pytest.raises(NotFoundError):
        profiles.remove(admin, "p")


def test_another_projects_profile_is_not_seen(profiles: ProfileStore, admin: Caller) -> None:
    profiles.set(admin, Profile("help", "base"))
    assert profiles.find(Caller("proj_b", "admin"), "help") is None
