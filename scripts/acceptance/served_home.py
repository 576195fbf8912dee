"""A home with a random base and adapters, served by the product's own server with the real engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acceptance import models, random_adapters
from acceptance.bench import Bench
from acceptance.little_runs import fresh

MOST_LORAS = 8
# A server has one, whether anybody asks it or not.
ENCODER = "bge-least"
SETTINGS = """\
[engine]
model = "{model}"
max_loras = {loras}
max_lora_rank = 16
max_model_tokens = {tokens}
tool_parser = "none"
gpu_memory_share = 0.8
[index]
encoder = "{encoder}"
device = "cpu"
precision = "float32"
"""


class ServedHome:
    """One base and what was published on it. Server and commands are those that a user has."""

    def __init__(self, bench: Bench, name: str, shape: str):
        from quality_bench.strategies.box import Box

        from local_llm.models import ModelStore

        self.bench, self.shape = bench, shape
        self.work = fresh(bench, name)
        self.box = Box(self.work)
        tokens = min(4096, models.DECODERS[shape]["max_position_embeddings"])
        loras = MOST_LORAS if name == "served" else 1
        text = SETTINGS.format(model=shape, loras=loras, tokens=tokens, encoder=ENCODER)
        (self.box.home / "settings.toml").write_text(text, encoding="utf-8")
        self.settings = self.box.settings
        store = ModelStore(self.settings.place.ensure().models)
        store.import_folder(models.encoder(bench, ENCODER), name=ENCODER)
        self.model = store.import_folder(models.decoder(bench, shape), name=shape)

    def publish(self, adapter: Path, suffix: str) -> str:
        """As `local-llm models import` does. Returns: its `ft:` name, by which it is asked from now on."""
        from local_llm.adapters import AdapterRegistry, AdapterRun

        registry = AdapterRegistry(self.settings, self.box.state)
        name = registry.new_name(self.model.name, suffix)
        run = AdapterRun(data_sha256="unknown", settings={}, metrics={}, versions={})
        registry.publish(adapter, base=self.model, name=name, project_id=self.box.state.local_project_id(), run=run)
        return name

    def publish_random(self, seed: int) -> str:
        folder = random_adapters.write(self.work / f"adapter-{seed}", self.shape, self.model.name, seed)
        return self.publish(folder, f"random-{seed}")

    @property
    def engine_socket(self) -> Path:
        return self.settings.place.socket("engine")

    @contextmanager
    def server(self) -> Iterator[tuple[str, int]]:
        """Ready to answer, for the block: its address."""
        with self.box.server() as url:
            host, _, port = url.removesuffix("/v1").removeprefix("http://").rpartition(":")
            yield host, int(port)


def ask(address: Any, path: str, body: dict[str, Any], timeout_seconds: float = 600) -> dict[str, Any]:
    """One question to a server's address or a Unix socket; its JSON.

    Raises: OSError with the answer where it is no 200.
    """
    import httpx

    local = isinstance(address, Path)
    transport = httpx.HTTPTransport(uds=str(address)) if local else None
    base = "http://engine" if local else f"http://{address[0]}:{address[1]}"
    with httpx.Client(base_url=base, transport=transport, timeout=timeout_seconds, trust_env=False) as client:
        answer = client.post(path, json=body)
    if answer.status_code != 200:
        raise OSError(f"{answer.status_code}: {answer.text[:400]}")
    return answer.json()
