"""Ray Data spreads a corpus over hosts: here two nodes of Ray on this machine, with a core each."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_cluster import RayCluster

from index.bulk import plan as planning
from index.bulk import ray_data
from index.bulk.encoded import EncodedTexts
from index.bulk.plan import Part, PartReport, Plan
from index.bulk.ray_data import OnRay
from index.bulk.run import InProcess, encode_corpus
from index.ingestion.ingest import find_sources
from index.interface import silent
from local_llm import offline
from local_llm.errors import ConflictError, LocalLLMError, SettingsError, UnavailableError

FILES = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its head."""
    if find_spec("ray") is None:  # not imported: it reads the environment when it is, and remembers it
        pytest.skip("no Ray here: scripts/install_ray")
    made = RayCluster(tmp_path_factory.mktemp("ray"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", *offline.SWITCHES):
            patch.setenv(name, made.environment[name])
        try:
            made.start()
            yield made.address
        finally:
            made.stop()


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(planning, "PART_FILES", 1)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(FILES):
        text = "\n\n".join(f"Rule {n} of chapter {number}: after {n} days a clerk decides." for n in range(20))
        (folder / f"{number}.md").write_text(f"# Chapter {number}\n\n{text}\n")
    return folder


@pytest.mark.slow
def test_workers_on_two_hosts_make_what_one_process_makes(
    cluster: str, plan: Plan, corpus: Path, tmp_path: Path
) -> None:
    sources = find_sources([corpus])
    killed: list[int] = []

    def kill_one(_done: int, _total: int, worker: str) -> None:
        """Whoever encodes dies once in the middle, as by a lack of memory."""
        if worker and not killed:
            killed.append(int(worker.rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

    done = encode_corpus(plan, sources, tmp_path / "many", OnRay(cluster), kill_one)
    processes = {int(worker.rpartition(":")[2]) for worker in done.workers}
    assert len(processes) >= 2
    assert killed[0] in processes
    alone = encode_corpus(plan, sources, tmp_path / "one", InProcess(), silent)
    assert (done.documents, done.passages) == (alone.documents, alone.passages) == (FILES, done.encoded)
    many, one = (EncodedTexts(tmp_path / name, *vars(plan.encoder).values()) for name in ("many", "one"))
    assert np.array_equal(many._keys, one._keys)
    for folder in one._folders:
        ours, theirs = (np.load(path / "vectors.npy") for path in (folder, tmp_path / "many/parts" / folder.name))
        assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_a_part_that_ends_every_worker_is_named_in_the_end(
    cluster: str, plan: Plan, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def encode(self, _part: Part) -> PartReport:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    class Deadly(ray_data._Encode):
        def __init__(self, plan: Plan, into: str):
            super().__init__(plan, into)
            self._worker: Any = Dying()

    monkeypatch.setattr(ray_data, "_Encode", Deadly)
    with pytest.raises(LocalLLMError, match=r"0\.md to .*0\.md ended its worker 3 times"):
        encode_corpus(plan, find_sources([corpus / "0.md"]), tmp_path / "ahead", OnRay(cluster), silent)


@pytest.mark.slow
def test_a_host_with_another_encoder_is_named(cluster: str, plan: Plan, corpus: Path, tmp_path: Path) -> None:
    other = replace(plan, encoder=replace(plan.encoder, fingerprint="f" * 64))
    with pytest.raises(ConflictError, match="is another one than on the host that asks"):
        encode_corpus(other, find_sources([corpus]), tmp_path / "ahead", OnRay(cluster), silent)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told_soon(cluster: str, plan: Plan, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no Ray cluster answers") as caught:
        encode_corpus(plan, find_sources([corpus]), tmp_path / "ahead", OnRay("127.0.0.1:1"), silent)
    assert "ray start" in str(caught.value.hint)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_data, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="no Ray") as caught:
        OnRay("auto")
    assert caught.value.hint == "scripts/install_ray"
