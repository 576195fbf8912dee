"""Fixtures for all tests: a home folder of their own, and no network."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from local_llm import offline
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import State, open_state
from tests.postgresql import Cluster, programs

NO_NETWORK = Path(__file__).parent / "no_network"
REPOSITORY = Path(__file__).parent.parent
WORLD = REPOSITORY / "examples" / "quillon"


FIGURES = pytest.StashKey[dict[str, object]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}
    # The same examples each time: what fails is a change's doing. HYPOTHESIS_PROFILE=default draws others.
    hypothesis.settings.register_profile("repeatable", derandomize=True)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, object]:
    """What was measured on the way: printed after the tests."""
    return pytestconfig.stash[FIGURES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for name, value in config.stash[FIGURES].items():
            terminalreporter.line(f"{name}: {value}")


@pytest.fixture(scope="session", autouse=True)
def no_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Here and in every process that tests start, only loopback and Unix sockets may be connected to."""
    attempts = tmp_path_factory.mktemp("network") / "attempts"
    os.environ["NETWORK_ATTEMPTS"] = str(attempts)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(NO_NETWORK), os.environ.get("PYTHONPATH")]))
    spec = importlib.util.spec_from_file_location("no_network", NO_NETWORK / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    assert not attempts.exists(), f"connections were tried:\n{attempts.read_text()}"


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> None:
    """No setting of whoever runs the tests reaches them, and no hub is asked for anything."""
    for name in [name for name in os.environ if name.startswith("LOCAL_LLM_")]:
        del os.environ[name]
    offline.apply()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """Running when a test begins: whoever stops it starts it again."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: scripts/install_postgresql")
    pytest.importorskip("psycopg")
    cluster = Cluster(found)
    cluster.start()
    yield cluster
    cluster.remove()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules with BOTH_DATABASES hold on either of them."""
    if getattr(metafunc.module, "BOTH_DATABASES", False) and "settings" in metafunc.fixturenames:
        metafunc.parametrize("settings", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    environment = {"LOCAL_LLM_HOME": str(tmp_path / "home")}
    if getattr(request, "param", "sqlite") == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgresql")
        environment |= cluster.environment(cluster.create_state())
    return load_settings(environment=environment)


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    opened = open_state(settings.place)
    yield opened
    opened.close()


@pytest.fixture
def admin(state: State) -> Caller:
    return local_admin(state.local_project_id())
