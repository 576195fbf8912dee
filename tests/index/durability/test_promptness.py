"""Through the server's socket: what is acknowledged is found by the next search, and what is gone never again."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handmade_stores import DIMENSION, unit_vectors

from index.client import IndexClient
from index.interface import EVERYONE, Record
from index.server import listening, make_server
from index.service import IndexService
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.permissions import Caller

VECTORS = unit_vectors(100, seed=4)
READERS = 2


@pytest.fixture
def served(tmp_path: Path, open_box: Callable) -> Iterator[tuple[Path, Caller]]:
    """The socket of a real server with upkeep that hardly rests."""
    service, caller = open_box(tmp_path / "home", upkeep=True)
    service.create(caller, "c", dimension=DIMENSION)
    server = make_server(service)
    path = tmp_path / "index.sock"
    with listening(path) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield path, caller
        server.should_exit = True
        thread.join()


def record(at: int, version: int = 1) -> Record:
    text, vector = f"version {version} of {at}", VECTORS[at].tolist()
    return Record(f"{at}", text, vector=vector, attributes={"version": version})


def ask(client: IndexClient, caller: Caller, at: int, k: int = 1) -> list[str]:
    return [hit.text for hit in client.search(caller, "c", VECTORS[at].tolist(), k)]


def test_acknowledged_is_found_at_once_and_removed_never_again(served: tuple[Path, Caller]) -> None:
    socket, admin = served
    ana, ben = (Caller(admin.project_id, "member", (who,)) for who in ("user:ana", "user:ben"))
    with IndexClient(socket) as client:
        for at in range(20):
            client.put(admin, "c", [record(at)])
            assert ask(client, admin, at) == [f"version 1 of {at}"]
            client.put(admin, "c", [record(at, 2)], allow=["user:ana"])
            assert ask(client, ana, at) == [f"version 2 of {at}"]
            assert f"version 2 of {at}" not in ask(client, ben, at, 1000)
            client.set_access(admin, "c", f"{at}", allow=["user:ben"])
            assert f"version 2 of {at}" not in ask(client, ana, at, 1000)
            client.set_access(admin, "c", f"{at}", allow=[EVERYONE])
            assert ask(client, ana, at) == [f"version 2 of {at}"]
            if at % 3 == 0:
                client.remove(admin, "c", [f"{at}"])
                assert f"version 2 of {at}" not in ask(client, admin, at, 1000)


def test_nothing_gone_comes_back_to_searches_that_began_later(served: tuple[Path, Caller]) -> None:
    """Many readers, each with its own connection, against one writer that removes and narrows."""
    socket, admin = served
    ana = Caller(admin.project_id, "member", ("user:ana",))
    gone: set[str] = set()  # acknowledged before whoever looks here begins to search
    faults: list[str] = []
    done = threading.Event()
    asked = [0] * READERS

    def read(number: int) -> None:
        with IndexClient(socket) as client:
            while not done.is_set():
                before = set(gone)
                hits = client.search(ana, "c", VECTORS[asked[number] % 90].tolist(), 100)
                faults.extend(hit.document for hit in hits if hit.document in before)
                asked[number] += 1

    readers = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    with IndexClient(socket) as client:
        client.put(admin, "c", [record(at) for at in range(90)])
        for reader in readers:
            reader.start()
        for at in range(0, 90, 3):
            if at % 2:
                client.remove(admin, "c", [f"{at}"])
            else:
                client.set_access(admin, "c", f"{at}", allow=["user:ben"])
            gone.add(f"{at}")
            time.sleep(0.005)
        done.set()
        for reader in readers:
            reader.join()
        assert faults == []
        assert min(asked) > 3
        assert {hit.document for hit in client.search(ana, "c", VECTORS[0].tolist(), 100)} == {
            f"{at}" for at in range(90) if at % 3
        }


@pytest.mark.parametrize(
    "vector",
    [
        None,
        [],
        [0.0] * DIMENSION,
        [1.0] * (DIMENSION + 1),
        [1.0],
        ["x"] * DIMENSION,
        [[1.0] * DIMENSION],
        [None] * DIMENSION,
        [float("nan")] + [1.0] * (DIMENSION - 1),
        [float("inf")] + [1.0] * (DIMENSION - 1),
        [10**400] + [1] * (DIMENSION - 1),
    ],
    ids=range(11),
)
def test_vector_that_is_none_is_refused_by_its_name(served: tuple[Path, Caller], vector: list) -> None:
    socket, admin = served
    with IndexClient(socket) as client:
        for first in (True, False):
            with pytest.raises(InvalidInputError, match="bad"):
                client.put(admin, "c", [record(0), Record("bad", "text", vector=vector)])
            assert len(client.documents(admin, "c")) == (0 if first else 1)
            if vector is not None:
                with pytest.raises(InvalidInputError):
                    client.search(admin, "c", vector, 1)
            client.put(admin, "c", [record(1)])


def test_vectors_of_any_length_are_as_good_as_of_length_one(served: tuple[Path, Caller]) -> None:
    socket, admin = served
    with IndexClient(socket) as client:
        for at, factor in enumerate((1e-300, 1e-20, 1e20, 1e300)):
            vector = (VECTORS[at].astype(float) * factor).tolist()
            client.put(admin, "c", [Record(f"{at}", "text", vector=vector)])
            assert client.search(admin, "c", vector, 1)[0].score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["nul\0", "", "x" * 100_000, "half\ud83d"])
def test_odd_names_are_kept_or_refused_in_words(served: tuple[Path, Caller], name: str) -> None:
    socket, admin = served
    with IndexClient(socket) as client:
        if len(name) > 100:
            client.put(admin, "c", [Record(name, "text\0 and half \ud83d", vector=VECTORS[0].tolist())])
            assert client.documents(admin, "c")[0].name == name
            return
        with pytest.raises(InvalidInputError):
            client.put(admin, "c", [Record(name, "text", vector=VECTORS[0].tolist())])
        with pytest.raises(NotFoundError):
            client.remove(admin, "c", [name])


def test_wrong_access_is_refused_and_changes_nothing(served: tuple[Path, Caller]) -> None:
    socket, admin = served
    with IndexClient(socket) as client:
        client.put(admin, "c", [record(0)], allow=["user:ana"])
        for wrong in (
            {"allow": ["user\0"]},
            {"allow": ["\ud83d"]},
            {"attributes": {"a": [1]}},
            {"attributes": {"\0": 1}},
        ):
            with pytest.raises(InvalidInputError):
                client.set_access(admin, "c", "0", **wrong)
        found = client.documents(admin, "c")[0]
        assert (found.allow, found.attributes) == (("user:ana",), {"version": 1})


def nested(depth: int) -> dict:
    found: dict = {"type": "eq", "key": "a", "value": 1}
    for _ in range(depth):
        found = {"type": "and", "filters": [found]}
    return found


def test_monstrous_filters_are_refused_and_the_server_goes_on(served: tuple[Path, Caller]) -> None:
    socket, admin = served
    wide = {"type": "or", "filters": [{"type": "eq", "key": "version", "value": at} for at in range(20_000)]}
    with IndexClient(socket) as client:
        client.put(admin, "c", [record(0)])
        for filters in (nested(100), nested(5000), wide, {"type": "eq", "key": "a", "value": "half\ud83d"}):
            with pytest.raises(InvalidInputError):
                client.search(admin, "c", VECTORS[0].tolist(), 1, filters=filters)
        assert len(client.search(admin, "c", VECTORS[0].tolist(), 10**9)) == 1
        with pytest.raises(InvalidInputError):
            client.search(admin, "c", VECTORS[0].tolist(), 0)


def test_dimension_that_nobody_means_is_refused(box: tuple[IndexService, Caller]) -> None:
    service, caller = box
    for dimension in (0, -1, 10**9, 10**30):
        with pytest.raises(InvalidInputError, match="dimension"):
            service.create(caller, "c", dimension=dimension)
    assert service.collections(caller) == []
