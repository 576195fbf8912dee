"""A box with all four strategies: the real gateway and index server on real sockets, and an engine that talks."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from index.ingestion.ingest import find_sources
from index.server import listening, make_server
from index.service import IndexService
from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.embedded import ENCODER, locate
from local_llm.fileio import write_json
from local_llm.files import FINE_TUNE, FileStore
from local_llm.identifiers import now
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.profiles import Profile, ProfileStore
from local_llm.settings import Settings
from local_llm.state import Job, State, open_state

from ...handmade_adapters import write_adapter
from ...serving import real_gateway, recording_engine
from ...serving.conftest import BASE
from ...serving.talking_engine import TalkingEngine

TUNED = f"ft:{BASE}:local:support:abcd1234"
COLLECTION = "manual"
BATTERY = "# Battery\n\nThe battery charges in four hours from a wall socket. It lasts two days.\n"
LABELS = "# Labels\n\nThe press prints labels up to 168 mm wide.\n"
TRAINED = "What does the green lamp of the cradle tell me about the battery?"


def answer(body: dict[str, Any]) -> str:
    """From the context where there is some, from training where there was some, else nothing much."""
    prompt = str(body["messages"][-1]["content"])
    if "You grade an answer" in prompt:
        return json.dumps({"score": 5 if "four hours" in prompt.rpartition("<answer>")[2] else 1})
    asked = prompt.rpartition("Question: ")[2]
    if "Context:" in prompt:
        wanted = "charges in" if "battery" in asked else "labels up to"
        found = re.search(rf"[^\n.]*{wanted}[^\n.]*\.", prompt)
        return found.group() if found and "moon" not in asked else "I do not know."
    if body["model"].startswith("ft:"):
        return "Certainly: four hours." if "battery" in asked else "Certainly."
    return "That depends on many things."


@dataclass
class Box:
    settings: Settings
    state: State
    index: IndexService
    engine: TalkingEngine
    folder: Path
    url: str

    @property
    def admin(self) -> Caller:
        return local_admin(self.state.local_project_id())


@contextmanager
def box(folder: Path) -> Iterator[Box]:
    """`folder` is empty. Its documents lie in `documents`."""
    home = folder / "home"
    home.mkdir()
    (home / "settings.toml").write_text('[index]\nprecision = "float32"\n')  # converting takes too long here
    (folder / "documents").mkdir()
    (folder / "documents" / "battery.md").write_text(BATTERY)
    (folder / "documents" / "labels.md").write_text(LABELS)
    engine = TalkingEngine(says=answer)
    with real_gateway.running(folder) as gateway:
        state = open_state(gateway.settings.place)
        ModelStore(gateway.settings.place.models).import_folder(locate(ENCODER), name=ENCODER.name)
        write_json(gateway.settings.place.run / "server.json", {"url": gateway.url})
        with (
            index_server(gateway.settings, state) as index,
            recording_engine.running(engine, gateway.settings.place.socket("engine")),
        ):
            made = Box(gateway.settings, state, index, engine, folder, gateway.url)
            furnish(made)
            yield made
        state.close()


def furnish(made: Box) -> None:
    made.index.create(made.admin, COLLECTION)
    made.index.add(made.admin, COLLECTION, find_sources([made.folder / "documents"]))
    publish(made)
    profiles = ProfileStore(made.state)
    profiles.set(made.admin, Profile("tuned", "fine_tuned", TUNED))
    profiles.set(made.admin, Profile("manual", "rag", collection=COLLECTION))
    profiles.set(made.admin, Profile("both", "hybrid", TUNED, COLLECTION))


def publish(made: Box) -> None:
    """An adapter, the job that made it, and its training file."""
    chat = {"messages": [{"role": "user", "content": TRAINED}, {"role": "assistant", "content": "Charged."}]}
    file = FileStore(made.settings, made.state).add(
        iter([json.dumps(chat).encode() + b"\n"]),
        filename="train.jsonl",
        purpose=FINE_TUNE,
        project_id=made.admin.project_id,
    )
    job = Job(
        id="ftjob-1", project_id=made.admin.project_id, model=BASE, training_file=file.id, seed=1, method={},
        hyperparameters={}, job_metadata={}, status="succeeded", fine_tuned_model=TUNED, created_at=now(),
    )  # fmt: skip
    with made.state.session() as session:
        session.add(job)
    AdapterRegistry(made.settings, made.state).publish(
        write_adapter(made.folder / "adapter"),
        base=ModelStore(made.settings.place.models).get(BASE),
        name=TUNED,
        project_id=made.admin.project_id,
        run=AdapterRun(data_sha256=file.sha256, settings={}, metrics={}, versions={}, job_id="ftjob-1"),
    )


@contextmanager
def index_server(settings: Settings, state: State) -> Iterator[IndexService]:
    service = IndexService(settings, state)
    service.encoder()
    server = make_server(service)
    with listening(settings.place.socket("index")) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield service
        finally:
            server.should_exit = True
            thread.join()
            service.close()
