"""A box with the embedded encoder, imported and loaded once; collections are made anew by each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handmade_stores import in_memory
from milvus_server import MilvusLite, make_pymilvus_importable

from index.collection.views import Views
from index.milvus.client import MilvusOptions
from index.milvus.views import OnMilvus
from index.service import IndexService
from local_llm import offline
from local_llm.embedded import ENCODER, locate
from local_llm.identifiers import new_id
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import State, open_state

Write = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    offline.apply()
    root = tmp_path_factory.mktemp("home")
    # Not int8: converting takes longer than most of these tests, and has tests of its own.
    (root / "settings.toml").write_text('[index]\nprecision = "float32"\n')
    ModelStore(root / "models").import_folder(locate(ENCODER), name=ENCODER.name, licence=ENCODER.licence)
    return root


@pytest.fixture(scope="session")
def settings(home: Path) -> Settings:
    return load_settings(environment={"LOCAL_LLM_HOME": str(home)})


@pytest.fixture(scope="session")
def state(settings: Settings) -> Iterator[State]:
    opened = open_state(settings.place)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def service(settings: Settings, state: State) -> Iterator[IndexService]:
    made = IndexService(settings, state)
    yield made
    made.close()


@pytest.fixture(scope="session")
def admin(state: State) -> Caller:
    return local_admin(state.local_project_id())


@pytest.fixture
def member(admin: Caller) -> Caller:
    return Caller(admin.project_id, "member", ("user:ana", "group:support"))


@pytest.fixture
def collection(service: IndexService, admin: Caller) -> str:
    return service.create(admin, new_id("test-")).name


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """Running."""
    make_pymilvus_importable()
    server = MilvusLite(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def on_milvus(milvus_lite: MilvusLite) -> Iterator[OnMilvus]:
    """Views of this test alone."""
    views = OnMilvus(MilvusOptions(milvus_lite.uri, prefix=new_id("t_"), timeout_seconds=60, exact=True))
    yield views
    views.close()


@pytest.fixture(params=["faiss", "milvus"])
def views(request: pytest.FixtureRequest) -> Views:
    """Each place where vectors can be held."""
    return in_memory() if request.param == "faiss" else request.getfixturevalue("on_milvus")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the test's own folder of documents."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file
