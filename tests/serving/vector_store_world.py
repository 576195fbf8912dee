"""A box with keys, the real gateway and a real index server with the embedded encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import openai
from starlette.testclient import TestClient

from index.server import listening, make_server
from index.service import IndexService
from local_llm.embedded import ENCODER, locate
from local_llm.keys import KeyStore
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import State, open_state
from serving.gateway import create_app

from ..handmade_adapters import write_base
from .conftest import BASE

URL = "http://127.0.0.1:8000"


@dataclass
class World:
    """`ana` and `bob` are members with one principal each: user:ana, user:bob."""

    settings: Settings
    state: State
    gateway: TestClient
    secrets: dict[str, str]

    def client(self, who: str = "admin") -> openai.OpenAI:
        return openai.OpenAI(
            api_key=self.secrets[who], base_url=f"{URL}/v1", http_client=self.gateway, max_retries=0
        )

    @property
    def admin(self) -> Caller:
        return local_admin(self.state.local_project_id())


@contextmanager
def running_gateway(folder: Path, **changed: Any) -> Iterator[World]:
    """Without an index server. `changed` are settings."""
    (folder / "home").mkdir(parents=True)
    # Not int8: converting takes longer than most of these tests.
    (folder / "home" / "settings.toml").write_text('[index]\nprecision = "float32"\n')
    settings = load_settings(environment={"LOCAL_LLM_HOME": str(folder / "home")}, overrides=changed)
    state = open_state(settings.place)
    models = ModelStore(settings.place.models)
    models.import_folder(write_base(folder / "model"), name=BASE)
    models.import_folder(locate(ENCODER), name=ENCODER.name, licence=ENCODER.licence)
    keys, project = KeyStore(state), state.local_project_id()
    secrets = {role: keys.create(project, role, role=role).secret for role in ("admin", "owner")}
    for name in ("ana", "bob"):
        secrets[name] = keys.create(project, name, principals=[f"user:{name}"]).secret
    with TestClient(create_app(settings), URL, raise_server_exceptions=False) as gateway:
        yield World(settings, state, gateway, secrets)
    state.close()


@contextmanager
def index_server(world: World) -> Iterator[IndexService]:
    """In a thread of its own, working off what is attached."""
    service = IndexService(world.settings, world.state)
    service.encoder()
    server = make_server(service)
    with listening(world.settings.place.socket("index")) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        service.start_upkeep()
        try:
            yield service
        finally:  # else a test that fails here never ends
            server.should_exit = True
            thread.join()
            service.close()
