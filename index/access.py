"""The way into the index for whoever comes along: through its server, or alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from index.client import IndexClient
from index.interface import Index
from index.service import IndexService
from local_llm.home import Home
from local_llm.locks import exclusive_lock
from local_llm.settings import Settings
from local_llm.state import State


def index_lock(place: Home) -> AbstractContextManager[None]:
    """Raises: LockedError naming the process that holds the index."""
    return exclusive_lock(place.run / "index.lock", "the index")


@contextmanager
def open_index(settings: Settings, state: State) -> Iterator[Index]:
    """A client if the index server answers, else the index itself, held for the block.

    Raises: LockedError if another process holds it and does not serve.
    """
    place = settings.place.ensure()
    client = IndexClient(place.socket("index"))
    if client.answers():
        with client:
            yield client
        return
    with index_lock(place):
        service = IndexService(settings, state)
        try:
            yield service
            service.settle()
        finally:
            service.close()
