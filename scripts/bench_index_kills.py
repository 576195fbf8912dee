"""Kills the index server at random instants under load, and looks whether anything it acknowledged is missing.

    python scripts/bench_index_kills.py --kills 200 [--files 5]

Each round starts a server with upkeep that never rests, has clients add, replace, remove and re-permit documents
and search for them, sends SIGKILL, damages the snapshot in every fourth round, opens the collection and checks it
(scripts/index_kills_check.py). `--files`: so many rounds more with `python -m index` itself, which parses and
encodes files. Prints a table and one line of JSON; exits with 1 if anything was wrong.

    lost         acknowledged and not there as it was acknowledged
    phantom      there, and never acknowledged nor in flight; or removed and still there
    torn         a change in flight that happened for some of its documents
    duplicate    a passage that is found twice
    not itself   a stored vector whose search finds another passage first
    permission   found by those who may not, or not found by those who may
    words        full-text rows without a passage, passages without rows, words of versions that are gone
    recall       recall@10 below 0.9 on random queries
    late         acknowledged and not found by the next search
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from index_kills_check import Check
from index_kills_load import DIMENSION, Client, FileClient, Journal, serve, settings_of

from index.client import IndexClient
from index.registry import DATABASE
from index.service import IndexService
from local_llm import offline
from local_llm.permissions import local_admin
from local_llm.state import open_state

FAULTS = ("lost", "phantom", "torn", "duplicate", "not itself", "permission", "words", "recall", "database", "late")
CLIENTS = 3
FIRST_DOCUMENTS = 1500
BATCH = 100
START_SECONDS = 120
PRELOADED = ["index.server", "index.service", "faiss", "numpy", "uvicorn"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=int(os.environ.get("KILLS", "20")))
    parser.add_argument("--files", type=int, default=0, help="rounds more with real files and a real encoder")
    parser.add_argument("--structure", choices=("auto", "exact", "ivf"), default="ivf")
    parser.add_argument("--longest", type=float, default=1.5, help="seconds that a server lives at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    offline.apply()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        totals = Bench(Path(folder) / "home", options.structure, options.seed).run(options.kills, options.longest)
    if options.files:
        with tempfile.TemporaryDirectory() as folder:
            files = FileBench(Path(folder) / "home", "exact", options.seed).run(options.files, 6.0)
        files["notes"] |= totals.pop("notes")
        totals = {"notes": files["notes"], **{key: value + files[key] for key, value in totals.items()}}
    report(totals, time.monotonic() - started)
    return 1 if any(totals["faults"].values()) else 0


class Bench:
    """Rounds over one collection, whose clients remember across all of them."""

    def __init__(self, home: Path, structure: str, seed: int):
        self._home, self._structure, self._random = home, structure, random.Random(seed)
        self._settings = settings_of(home, structure)
        self._journals = [Journal() for _ in range(CLIENTS)]
        with closing(open_state(self._settings.place)) as state:
            self._caller = local_admin(state.local_project_id())
            self._prepare()
            with closing(IndexService(self._settings, state)) as service:
                self._collection = self._create(service)
        self._database = self._settings.place.collections / self._collection / DATABASE
        self._totals: dict[str, Any] = {
            "kills": 0, "killed_while_starting": 0, "changes": 0, "unacknowledged_kept": 0, "documents": 0,
            "snapshots_damaged": 0, "faults": Counter(), "notes": {}, "structures": Counter(),
            "lowest_recall": [], "slowest_found_seconds": [], "opening_seconds": [],
        }  # fmt: skip

    def run(self, kills: int, longest: float) -> dict[str, Any]:
        for at in range(kills):
            self._round(longest)
            self._check(damage=at % 4 == 3)
            print(f"\r{at + 1}/{kills} {dict(self._totals['faults'])}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        for journal in self._journals:
            self._totals["changes"] += journal.changes
            self._totals["faults"]["late"] += journal.late
            self._totals["slowest_found_seconds"].append(round(journal.slowest_seconds, 3))
        return self._totals

    def _prepare(self) -> None:
        """Whatever the server needs in its home."""

    def _create(self, service: IndexService) -> str:
        """With enough in it for a structure to be built, and built anew as documents go."""
        identifier = service.create(self._caller, "kills", dimension=DIMENSION).id
        for client in self._clients(identifier):
            for _ in range(FIRST_DOCUMENTS // CLIENTS // BATCH):
                client.add_first(service, BATCH)
        return identifier

    def _start(self) -> Callable[[], None]:
        """Returns: what kills the server."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        process = context.Process(target=serve, args=(self._home, self._structure), daemon=True)
        process.start()

        def kill() -> None:
            process.kill()
            process.join()

        return kill

    def _clients(self, collection: str) -> list[Client]:
        socket = self._settings.place.socket("index")
        return [
            Client(socket, self._caller, collection, at, journal, self._random.randrange(2**32))
            for at, journal in enumerate(self._journals)
        ]

    def _round(self, longest: float) -> None:
        kill = self._start()
        if self._random.random() < 0.1:  # while it opens, before anybody could ask
            time.sleep(self._random.uniform(0, 0.4))
            self._totals["killed_while_starting"] += 1
            kill()
        else:
            self._wait_for_answers()
            clients = self._clients(self._collection)
            for client in clients:
                client.start()
            time.sleep(self._random.uniform(0.02, longest))
            kill()
            for client in clients:
                client.join()
                if client.error is not None:
                    raise client.error
        self._totals["kills"] += 1

    def _wait_for_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with IndexClient(self._settings.place.socket("index")) as client:
            while not client.answers():
                if time.monotonic() > deadline:
                    raise TimeoutError("the server does not answer")
                time.sleep(0.01)

    def _check(self, *, damage: bool) -> None:
        if damage:
            self._totals["snapshots_damaged"] += self._damage_snapshot()
        check = Check(self._database, self._structure, self._journals, self._random)
        check.run()
        totals = self._totals
        totals["faults"].update(check.faults)
        for kind, note in check.notes.items():
            if kind not in totals["notes"]:
                print(f"\nround {totals['kills']}: {kind}: {note}", file=sys.stderr)
        totals["notes"] = check.notes | totals["notes"]
        totals["documents"] = check.documents
        totals["unacknowledged_kept"] += check.unacknowledged_kept
        totals["structures"][check.structure] += 1
        totals["lowest_recall"] = [min([check.recall, *totals["lowest_recall"]])]
        totals["opening_seconds"] = [max([round(check.opening_seconds, 3), *totals["opening_seconds"]])]

    def _damage_snapshot(self) -> int:
        files = [path for path in self._database.parent.glob("view-*/**/*") if path.is_file()]
        if not files:
            return 0
        path = self._random.choice(files)
        data = path.read_bytes()
        at = self._random.randrange(len(data)) if data else 0
        cut = self._random.random() < 0.5
        path.write_bytes(data[:at] if cut else data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        return 1


class FileBench(Bench):
    """`python -m index` as it is, with files."""

    def _prepare(self) -> None:
        from local_llm.embedded import ENCODER, locate
        from local_llm.models import ModelStore

        ModelStore(self._settings.place.models).import_folder(
            locate(ENCODER), name=ENCODER.name, licence=ENCODER.licence
        )
        (self._home.parent / "files").mkdir()

    def _create(self, service: IndexService) -> str:
        return service.create(self._caller, "kills").id

    def _start(self) -> Callable[[], None]:
        process = subprocess.Popen(
            [sys.executable, "-m", "index"], env={**os.environ, "LOCAL_LLM_HOME": str(self._home)}
        )
        self._wait_until_ready()

        def kill() -> None:
            process.send_signal(signal.SIGKILL)
            process.wait()

        return kill

    def _wait_until_ready(self) -> None:
        """The encoder is loaded: what follows is load, not waiting."""
        self._wait_for_answers()
        with IndexClient(self._settings.place.socket("index")) as client:
            client.search(self._caller, self._collection, "anything", 1)

    def _clients(self, collection: str) -> list[Client]:
        socket, folder = self._settings.place.socket("index"), self._home.parent / "files"
        return [
            FileClient(socket, self._caller, collection, at, journal, self._random.randrange(2**32), folder=folder)
            for at, journal in enumerate(self._journals)
        ]


def report(totals: dict[str, Any], seconds: float) -> None:
    print(f"{'kills':<28}{totals['kills']:>8}")
    for key in ("killed_while_starting", "changes", "unacknowledged_kept", "documents", "snapshots_damaged"):
        print(f"{key.replace('_', ' '):<28}{totals[key]:>8}")
    for fault in FAULTS:
        print(f"{fault:<28}{totals['faults'][fault]:>8}")
    for kind, note in totals["notes"].items():
        print(f"  first {kind}: {note}")
    totals["faults"] = {fault: totals["faults"][fault] for fault in FAULTS}
    print(json.dumps({**totals, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    sys.exit(main())
