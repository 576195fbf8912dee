"""Faults of a bulk encoding: disks, files that are away for a while, parts that kill; and two runs at once."""

import os
import socket
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from index.bulk.encoded import MOST_TRIES, begin_part, filling
from index.bulk.plan import Plan, part_to_json, parts_of
from index.bulk.ray_data import _Encode, _report_of, cause_of, shares
from index.bulk.run import BulkReport, InProcess, encode_corpus
from index.bulk.worker import Worker, needs_no_gpu
from index.ingestion.ingest import find_sources
from index.interface import silent
from local_llm.cli.index_encode import facts_of
from local_llm.encoder_recipe import fingerprint_of
from local_llm.errors import LocalLLMError, LockedError
from local_llm.models import ModelStore
from local_llm.settings import Settings


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.md").write_text(f"# Rule {number}\n\nAfter {number} days a clerk decides.\n")
    (folder / "broken.pdf").write_bytes(b"no PDF at all")
    return folder


def encode(plan: Plan, corpus: Path, into: Path) -> BulkReport:
    return encode_corpus(plan, find_sources([corpus]), into, InProcess(), silent)


def test_one_run_at_a_time_fills_a_folder(plan: Plan, corpus: Path, tmp_path: Path) -> None:
    into = tmp_path / "ahead"

    def again(_done: int, _total: int, _worker: str) -> None:
        with pytest.raises(LockedError, match=rf"{into} is held by process {os.getpid()}"):
            encode(plan, corpus, into)

    encode_corpus(plan, find_sources([corpus]), into, InProcess(), again)
    assert encode(plan, corpus, into).encoded == 0


def test_vectors_are_for_their_owner_alone_in_whatever_folder(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "ahead").mkdir(mode=0o755)
    for folder in ("ahead", "new"):
        with filling(tmp_path / folder, plan):
            assert stat.S_IMODE((tmp_path / folder / "parts").stat().st_mode) == 0o700


def test_a_file_that_could_not_be_read_is_tried_again_and_one_that_is_damaged_is_not(
    plan: Plan, corpus: Path, tmp_path: Path
) -> None:
    into = tmp_path / "ahead"
    (part,) = parts_of(find_sources([corpus]))
    away = (corpus / "1.md").rename(tmp_path / "away.md")  # a share that is not there on this host
    with filling(into, plan), closing(Worker(plan, into)) as worker:
        first = worker.encode(part)
    assert [one.document for one in first.skipped] == ["1.md", "broken.pdf"]
    assert first.skipped[0].reason == "it cannot be read: No such file or directory"
    away.rename(corpus / "1.md")
    done = encode(plan, corpus, into)
    assert done.encoded == done.passages > first.passages
    assert (done.encoded_documents, [one.document for one in done.skipped]) == (2, ["broken.pdf"])
    assert encode(plan, corpus, into).encoded_documents == 0


def test_a_disk_that_cannot_be_written_is_told(plan: Plan, corpus: Path, tmp_path: Path) -> None:
    into = tmp_path / "file"
    into.touch()
    (part,) = parts_of(find_sources([corpus]))
    with closing(Worker(plan, into)) as worker, pytest.raises(LocalLLMError, match="file cannot be written: Not a"):
        worker.encode(part)


def test_a_part_that_ends_its_worker_is_given_up(plan: Plan, corpus: Path, tmp_path: Path) -> None:
    into = tmp_path / "ahead"
    (part,) = parts_of(find_sources([corpus]))
    worker = _Encode(plan, str(into))
    with filling(into, plan):
        for _ in range(MOST_TRIES):
            begin_part(into, part)
        with pytest.raises(LocalLLMError, match=r"the part from .*1\.md to .*broken\.pdf ended its worker 3"):
            _report_of(worker({"part": part_to_json(part)}))
    with filling(into, plan):  # another run counts anew, and forgets what is done
        assert _report_of(worker({"part": part_to_json(part)})).documents == 2
        assert [path.name for path in (into / "parts").iterdir()] == [part.key]


def test_an_unforeseen_error_of_a_worker_is_told_with_its_cause(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(LocalLLMError, match=f"{socket.gethostname()} failed: JSONDecodeError: Expecting"):
        _report_of(_Encode(plan, str(tmp_path))({"part": "no JSON"}))
    started = RuntimeError('The actor died: its creation\n  File "a.py", line 1, in b\nImportError: no numpy\n\n')
    assert cause_of(started) == "ImportError: no numpy"
    assert cause_of(RuntimeError("The actor died.\n\tnamespace: x")) == "The actor died."


def test_the_ledger_has_no_work_of_other_hosts() -> None:
    done = BulkReport(9, (), 90, encoded=20, encoded_documents=2, tokens=400, seconds=3, worker_seconds=5,
                      workers=(f"{socket.gethostname()}:7", f"{socket.gethostname()}:8"))  # fmt: skip
    facts = facts_of(done, "mini")
    assert facts is not None
    assert (facts["documents"], facts["passages"], facts["seconds"], facts["workers"]) == (2, 20, 5, 2)
    assert facts_of(replace(done, workers=(*done.workers, "another:7")), "mini") is None
    assert facts_of(replace(done, encoded=0, workers=()), "mini") is None


def test_what_runs_on_cpus_takes_no_gpu(plan: Plan, settings: Settings) -> None:
    hosts = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}]
    assert shares(hosts, None, on_gpus=True) == (2, 1, 1)
    assert shares(hosts, None, on_gpus=False) == (2, 4, 0)
    assert needs_no_gpu(replace(plan, device="cpu"))
    assert not needs_no_gpu(replace(plan, device="auto"))
    path = ModelStore(settings.place.models).get(plan.encoder.name, "encoder").path
    assert needs_no_gpu(replace(plan, encoder=replace(plan.encoder, fingerprint=fingerprint_of(path, "int8"))))
