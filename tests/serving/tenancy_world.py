"""A box with one of everything, and keys that may see none of it: of another project, or held to other things."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.keys import KeyStore, Scopes
from local_llm.models import ModelStore
from local_llm.projects import ProjectStore
from local_llm.settings import Settings
from local_llm.state import BatchRow, State
from serving.services import Services

from ..handmade_adapters import write_adapter
from .conftest import BASE, chat_lines
from .recording_engine import running
from .telling_engine import TellingEngine
from .vector_store_world import World, index_server, running_gateway

TUNED = f"ft:{BASE}:local:support:abcd1234"
QUESTION = "How long does charging take?"
BATTERY = b"# Battery\n\nThe battery charges in four hours from a wall socket.\n"
UNKNOWN = "nobody-made-this"

ORGANIZATION = "/v1/organization"


@dataclass(frozen=True)
class Box:
    """`ids`: what the parameters of paths stand for, `{store_id}`, and the same in bodies, `<store_id>`. Where a
    name means another thing below a path, it stands here as PATH:NAME."""

    world: World
    ids: dict[str, str]
    secrets: dict[str, str]

    @property
    def services(self) -> Services:
        return self.world.gateway.app.services()  # type: ignore[attr-defined]

    def ask(self, who: str, method: str, path: str, body: Any = None) -> Any:
        meant = path
        for name, identifier in self._meant(path).items():
            meant = meant.replace(f"{{{name}}}", identifier)
            body = filled(body, f"<{name}>", identifier)
        assert "{" not in meant, f"a new route: say what the parameters of {path} stand for, in tenancy_world.py"
        headers = {"authorization": f"Bearer {self.secrets[who]}"}
        return self.world.gateway.request(method, meant, json=body, headers=headers)

    def routes(self) -> list[tuple[str, str]]:
        """All of the document: method and path."""
        paths = self.world.gateway.app.control.openapi()["paths"]  # type: ignore[attr-defined]
        return [(method.upper(), path) for path, methods in paths.items() for method in methods]

    def naming(self) -> list[tuple[str, str]]:
        """Those that name something and are not the organization's."""
        return [one for one in self.routes() if "{" in one[1] and not one[1].startswith(ORGANIZATION)]

    def without_any(self) -> "Box":
        """The same, its names standing for what never was."""
        return replace(self, ids=dict.fromkeys(self.ids, UNKNOWN))

    def told(self, answer: Any) -> str:
        """An answer without the ids that were asked for."""
        text = str(answer.text)
        for identifier in sorted({*self.ids.values(), UNKNOWN}, key=len, reverse=True):
            text = text.replace(identifier, "ID")
        return f"{answer.status_code} {text}"

    def _meant(self, path: str) -> dict[str, str]:
        special = {}
        for key, identifier in self.ids.items():
            below, _, name = key.rpartition(" ")
            if below and path.startswith(below):
                special[name] = identifier
        return self.ids | special


def filled(body: Any, mark: str, value: str) -> Any:
    if isinstance(body, dict):
        return {key: filled(one, mark, value) for key, one in body.items()}
    if isinstance(body, list):
        return [filled(one, mark, value) for one in body]
    return value if body == mark else body


@contextmanager
def box_of_everything(folder: Path) -> Iterator[Box]:
    with (
        running_gateway(folder) as world,
        index_server(world),
        running(TellingEngine(), world.settings.place.socket("engine")),  # type: ignore[arg-type]
    ):
        own = world.state.local_project_id()
        ProjectStore(world.state).update(own, store_chats=True)
        _publish(world.settings, world.state, folder / "adapter")
        client, keys = world.client(), KeyStore(world.state)
        made = Box(world, _things(world, client), dict(world.secrets))
        profile = {"name": "help", "strategy": "rag", "collection": "kb"}
        assert made.ask("admin", "POST", "/v1/profiles", profile).status_code == 200
        boss = keys.create(own, "boss", role="owner")
        stranger = ProjectStore(world.state).create("other")
        made.secrets["owner"] = boss.secret
        made.secrets["stranger"] = keys.create(stranger.id, "stranger", role="admin").secret
        other = client.vector_stores.create(name="elsewhere")
        scopes = Scopes(models=[BASE], collections=[other.id])
        made.secrets["scoped"] = keys.create(own, "scoped", role="admin", scopes=scopes).secret
        made.ids["scoped store"] = other.id
        mine = made.ask("stranger", "POST", "/v1/vector_stores", {"name": "kb"})
        made.ids["stranger store"] = mine.json()["id"]
        made.ids.update(project_id=own, key_id=boss.key.id, account_id=boss.key.account_id)
        made.ids["other_project_id"] = stranger.id
        yield made


def _things(world: World, client: openai.OpenAI) -> dict[str, str]:
    file = client.files.create(file=("battery.md", BATTERY), purpose="assistants")
    store = client.vector_stores.create(name="kb")
    attached = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file.id], poll_interval_ms=20)
    lines = client.files.create(file=("rows.jsonl", io.BytesIO(chat_lines())), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=lines.id)
    (hit,) = client.vector_stores.search(store.id, query="charging").data
    asked = {"model": BASE, "messages": [{"role": "user", "content": QUESTION}]}
    chat = client.chat.completions.create(**asked, store=True)
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": asked}
    batch_file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    return {
        "file_id": file.id,
        "store_id": store.id,
        "collection": store.id,
        "batch_id": attached.id,
        "/v1/batches batch_id": _held_batch(world, batch_file.id),
        "batch_file": batch_file.id,
        "job_id": job.id,
        "training_file": lines.id,
        "document_id": hit.model_dump()["document_id"],
        "name": TUNED,
        "/v1/profiles name": "help",
        "name:path": TUNED,
        "response_id": client.responses.create(model=BASE, input=QUESTION).id,
        "completion_id": chat.id,
    }


def _held_batch(world: World, file_id: str) -> str:
    """One that nobody works on, because another seems to."""
    moment = int(time.time())
    with world.state.session() as session:
        session.add(
            BatchRow(
                id="batch_held",
                project_id=world.state.local_project_id(),
                key_id=None,
                endpoint="/v1/chat/completions",
                input_file_id=file_id,
                server_url="",
                labels={},
                status="validating",
                created_at=moment,
                expires_at=moment + 86400,
                lease="another",
                lease_until=time.time() + 86400,
            )
        )
    return "batch_held"


def _publish(settings: Settings, state: State, folder: Path) -> None:
    AdapterRegistry(settings, state).publish(
        write_adapter(folder),
        base=ModelStore(settings.place.models).get(BASE),
        name=TUNED,
        project_id=state.local_project_id(),
        run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}),
    )
