"""What context costs beyond finding it: the same questions to the base model and to a profile that retrieves.

The engine answers at once, so that the difference between the two is all that retrieval adds. The index server
says how long it encoded and searched; what is left is ours: the call, the prompt, the budget, the citations.
"""

import http.client
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from gateway_bench.engine import Behaviour
from gateway_bench.request import HEADERS, QUESTION
from gateway_bench.world import MODEL, Way, WayUnavailableError, World, clean_environment
from index.client import IndexClient
from index.interface import Source
from local_llm.embedded import ENCODER, locate
from local_llm.models import ModelStore
from local_llm.permissions import local_admin
from local_llm.profiles import Profile, ProfileStore
from local_llm.settings import load_settings
from local_llm.state import open_state

DOCUMENTS = Path(__file__).parents[2] / "examples" / "quillon" / "documents"
COLLECTION = PROFILE = "bench-documents"
ANSWER_TOKENS = 32
PAIRS = 400
WARM = 20
START_SECONDS = 120
STAGES = ("encode", "search")

Figures = dict[str, Any]


def added(world: World, way: Way, pairs: int = PAIRS) -> Figures:
    """Milliseconds for a question, alone, in turns with the same one without context.

    Raises: WayUnavailableError if the index server does not come up.
    """
    _fill(world)
    world.behave(Behaviour(ANSWER_TOKENS))
    asker = _Asker(way, world.key)
    for _ in range(WARM):
        asker.seconds(MODEL)
        asker.seconds(PROFILE)
    before = asker.stages()
    plain, found = [], []
    for _ in range(pairs):
        plain.append(asker.seconds(MODEL))
        found.append(asker.seconds(PROFILE))
    finding = {name: (asker.stages()[name] - before[name]) / pairs for name in STAGES}
    whole = statistics.fmean(found) - statistics.fmean(plain)
    return {
        "pairs": pairs,
        "without_context_ms": _milliseconds(statistics.median(plain)),
        "with_context_ms": _milliseconds(statistics.median(found)),
        "added_mean_ms": _milliseconds(whole),
        **{f"{name}_mean_ms": _milliseconds(seconds) for name, seconds in finding.items()},
        "beyond_finding_mean_ms": _milliseconds(whole - sum(finding.values())),
    }


class _Asker:
    """One client that asks one question after another over one connection."""

    def __init__(self, way: Way, key: str):
        lines = (line.partition(": ") for line in HEADERS.splitlines())
        self._headers = {name: value for name, _, value in lines} | {"authorization": f"Bearer {key}"}
        self._connection = http.client.HTTPConnection(*way.address, timeout=60)

    def seconds(self, model: str) -> float:
        """Of one whole answer. Raises: WayUnavailableError if there is none."""
        body = {"model": model, "max_tokens": 256, "messages": [{"role": "user", "content": QUESTION}]}
        began = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), self._headers)
        response = self._connection.getresponse()
        data = response.read()
        took = time.perf_counter() - began
        if response.status != 200:
            raise WayUnavailableError(f"{model} answered {response.status}: {data[:300]!r}")
        return took

    def stages(self) -> dict[str, float]:
        """Seconds so far, by stage of retrieval."""
        self._connection.request("GET", "/metrics")  # loopback without a key may read them
        text = self._connection.getresponse().read().decode()
        return {
            name: _value(text, f'local_llm_retrieval_seconds_sum{{process="0",stage="{name}"}}') for name in STAGES
        }


def _value(metrics: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith(series)]
    return float(found[0]) if found else 0.0


def _fill(world: World) -> None:
    """An index server on the home of our gateway, with documents and a profile that is answered from them."""
    settings = load_settings(environment={"LOCAL_LLM_HOME": str(world.work / "home")})
    models = ModelStore(settings.place.models)
    if not (settings.place.models / ENCODER.name).exists():
        models.import_folder(locate(ENCODER), name=ENCODER.name, licence=ENCODER.licence)
    environment = clean_environment(LOCAL_LLM_HOME=str(settings.home))
    child = world.start("index", [sys.executable, "-m", "index"], environment=environment)
    state = open_state(settings.place)
    try:
        owner = local_admin(state.local_project_id())
        with IndexClient(settings.place.socket("index")) as index:
            deadline = time.monotonic() + START_SECONDS
            while not index.answers():
                if child.poll() is not None or time.monotonic() > deadline:
                    ended = world.log("index").read_text(errors="replace")[-600:]
                    raise WayUnavailableError(f"the index server did not come up; its log ends: {ended}")
                time.sleep(0.1)
            made = index.create(owner, COLLECTION)
            paths = sorted(path for path in DOCUMENTS.rglob("*") if path.is_file())
            index.add(owner, made.id, [Source(path, path.name, path.name) for path in paths])
        profile = Profile(PROFILE, "rag", collection=made.id, rewrite=False, answer_only_from_context=False)
        ProfileStore(state).set(owner, profile)
    finally:
        state.close()


def _milliseconds(seconds: float) -> float:
    return round(1e3 * seconds, 3)
