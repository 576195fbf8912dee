"""Models over the API: what is listed can be used, and what is deleted is gone, whatever the engine is doing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.adapters import AdapterRegistry, AdapterRun, checkpoint_name
from local_llm.keys import KeyStore
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.profiles import Profile, ProfileStore
from local_llm.settings import Settings
from local_llm.state import Adapter, State
from serving.gateway import create_app

from ..handmade_adapters import write_adapter
from .conftest import BASE
from .recording_engine import SmallEngine, running

TUNED = f"ft:{BASE}:local:support:abcd1234"
CHAT = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def publish(
    gateway: TestClient, settings: Settings, state: State, admin: Caller, tmp_path: Path
) -> Callable[..., Adapter]:
    base = ModelStore(settings.place.models).get(BASE)
    source = write_adapter(tmp_path / "adapter")
    run = AdapterRun(data_sha256="d", settings={}, metrics={}, versions={})

    def call(name: str = TUNED, step_number: int | None = None) -> Adapter:
        return AdapterRegistry(settings, state).publish(
            source, base=base, name=name, project_id=admin.project_id, run=run, step_number=step_number
        )

    return call


@pytest.fixture
def engine(settings: Settings) -> Iterator[SmallEngine]:
    small = SmallEngine()
    with running(small, settings.place.ensure().socket("engine")):
        yield small


@pytest.fixture
def client(gateway: TestClient) -> openai.OpenAI:
    return client_of(gateway)


def client_of(gateway: TestClient, secret: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key=secret, http_client=gateway, max_retries=0)


def names(client: openai.OpenAI) -> list[str]:
    return [model.id for model in client.models.list()]


def test_base_finished_models_and_checkpoints_are_listed(client: openai.OpenAI, publish) -> None:
    publish()
    publish(checkpoint_name(TUNED, 6), step_number=6)
    assert names(client) == [BASE, TUNED, f"{TUNED}:ckpt-step-6"]
    assert client.models.retrieve(f"{TUNED}:ckpt-step-6").object == "model"


def test_the_name_of_a_hosted_fine_tuned_model_can_stand_for_ours(
    client: openai.OpenAI, publish, settings: Settings, engine: SmallEngine
) -> None:
    publish()
    there = "ft:gpt-4o-mini:org:custom-support:2026-05-01"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=there, messages=CHAT)
    settings.aliases[there] = TUNED  # as the settings file has it
    client.chat.completions.create(model=there, messages=CHAT)
    assert engine.asked[-1][1]["model"] == TUNED


def test_a_deleted_model_is_gone_here_in_the_engine_and_on_the_disk(
    engine: SmallEngine, client: openai.OpenAI, publish, settings: Settings
) -> None:
    publish()
    answer = client.chat.completions.create(model=TUNED, messages=CHAT)
    assert answer.choices[0].message.content == f"I am {TUNED}."
    assert list(engine.loaded) == [TUNED]

    deleted = client.models.delete(TUNED)
    assert (deleted.id, deleted.deleted, deleted.object) == (TUNED, True, "model")
    assert engine.loaded == {}
    assert names(client) == [BASE]
    assert list(settings.place.adapters.iterdir()) == []
    for use in (
        lambda: client.models.retrieve(TUNED),
        lambda: client.chat.completions.create(model=TUNED, messages=CHAT),
        lambda: client.models.delete(TUNED),
    ):
        with pytest.raises(openai.NotFoundError):
            use()


def test_a_deleted_checkpoint_leaves_the_finished_model(client: openai.OpenAI, publish) -> None:
    publish()
    publish(checkpoint_name(TUNED, 6), step_number=6)
    client.models.delete(checkpoint_name(TUNED, 6))
    assert names(client) == [BASE, TUNED]


def test_an_engine_that_is_down_is_no_obstacle(client: openai.OpenAI, publish) -> None:
    publish()
    assert client.models.delete(TUNED).deleted
    assert names(client) == [BASE]


def test_an_engine_that_never_knew_it_is_no_obstacle(engine: SmallEngine, client: openai.OpenAI, publish) -> None:
    publish()
    assert client.models.delete(TUNED).deleted
    assert engine.paths() == ["/v1/unload_lora_adapter"]


def test_an_engine_that_outlived_a_gateway_still_forgets(
    engine: SmallEngine, client: openai.OpenAI, publish, settings: Settings
) -> None:
    """The second gateway never loaded the adapter, so it cannot know that the engine has it."""
    publish()
    client.chat.completions.create(model=TUNED, messages=CHAT)
    with TestClient(create_app(settings), "http://127.0.0.1:8000") as second:
        client_of(second).models.delete(TUNED)
    assert engine.loaded == {}


def test_a_profile_of_a_deleted_model_says_so(client: openai.OpenAI, publish, state: State, admin: Caller) -> None:
    publish()
    ProfileStore(state).set(admin, Profile("help", "fine_tuned", model=TUNED))
    client.models.delete(TUNED)
    assert names(client) == [BASE]
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(model="help", messages=CHAT)
    assert "profile `help`" in refusal.value.message
    assert TUNED in refusal.value.message
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (BASE, "engine.model"),
        ("base", "engine.model"),
        ("gpt-4o-mini", "engine.model"),
        ("help", "DELETE /v1/profiles/help"),
    ],
)
def test_only_fine_tuned_models_can_be_deleted(
    client: openai.OpenAI, state: State, admin: Caller, name: str, reason: str
) -> None:
    ProfileStore(state).set(admin, Profile("help", "base"))
    with pytest.raises(openai.BadRequestError, match=reason):
        client.models.delete(name)
    assert names(client) == [BASE, "help"]


def test_a_model_that_there_is_not_cannot_be_deleted(client: openai.OpenAI) -> None:
    for name in ("ft:nothing", "nothing", "../adapters"):
        with pytest.raises(openai.NotFoundError):
            client.models.delete(name)


def test_with_keys_only_an_admins_may_delete(gateway: TestClient, publish, state: State, admin: Caller) -> None:
    publish()
    keys = KeyStore(state)
    member = client_of(gateway, keys.create(admin.project_id, "ana").secret)
    owner = client_of(gateway, keys.create(admin.project_id, "eva", role="admin").secret)
    with pytest.raises(openai.PermissionDeniedError, match="role admin"):
        member.models.delete(TUNED)
    assert TUNED in names(member)
    assert owner.models.delete(TUNED).deleted
    assert names(member) == [BASE]


def test_leftovers_of_a_killed_process_are_removed_when_the_server_starts(
    publish, settings: Settings, state: State
) -> None:
    row = publish()
    killed = publish(checkpoint_name(TUNED, 6), step_number=6)
    with state.session() as session:
        session.delete(session.get_one(Adapter, killed.id))
    with TestClient(create_app(settings)):
        assert [path.name for path in settings.place.adapters.iterdir()] == [row.id]
