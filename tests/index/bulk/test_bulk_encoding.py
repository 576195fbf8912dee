"""A corpus encoded ahead gives the same collection, in parts that are done once, and nothing of another encoder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.bulk import plan as planning
from index.bulk.encoded import EncodedTexts
from index.bulk.plan import Bound, Part, PartReport, Plan, parts_of
from index.bulk.run import BulkReport, InProcess, encode_corpus
from index.bulk.worker import Worker
from index.encoders import Encoders
from index.ingestion.ingest import find_sources
from index.interface import Splitting, silent
from index.service import IndexService
from local_llm.embedded import ENCODER, locate
from local_llm.errors import ConflictError, IntegrityError, InvalidInputError
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings

TOPICS = ("returns", "shipping", "warranty", "invoices", "batteries", "spare parts")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, topic in enumerate(TOPICS):
        text = "\n\n".join(f"Rule {n} of {topic}: after {n + number} days a clerk decides." for n in range(12))
        (folder / f"{topic}.md").write_text(f"# All about {topic}\n\n{text}\n")
    (folder / "broken.pdf").write_bytes(b"no PDF at all")
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PART_FILES", 2)


def encode(plan: Plan, corpus: Path, into: Path) -> BulkReport:
    return encode_corpus(plan, find_sources([corpus]), into, InProcess(), silent)


def add(service: IndexService, admin: Caller, name: str, corpus: Path, into: Path | None):
    return service.add(admin, name, find_sources([corpus]), splitting=Splitting(64, 8), encoded=into)


@pytest.mark.usefixtures("small_parts")
def test_the_collection_is_the_same_and_nothing_is_encoded_again(
    service: IndexService, admin: Caller, collection: str, plan: Plan, corpus: Path, tmp_path: Path
) -> None:
    done = encode(plan, corpus, tmp_path / "ahead")
    assert (done.documents, [one.document for one in done.skipped]) == (len(TOPICS), ["broken.pdf"])
    report = add(service, admin, collection, corpus, tmp_path / "ahead")
    assert (report.added, report.passages, report.ahead) == (len(TOPICS), 0, done.passages)
    other = service.create(admin, f"{collection}-other").name
    assert add(service, admin, other, corpus, None).passages == done.passages
    for query in ("who decides about batteries?", "days of warranty"):
        ours, theirs = (service.search(admin, name, query, 5) for name in (collection, other))
        assert [(hit.document, hit.text) for hit in ours] == [(hit.document, hit.text) for hit in theirs]
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-5)


@pytest.mark.usefixtures("small_parts")
def test_what_changed_since_is_encoded_as_ever(
    service: IndexService, admin: Caller, collection: str, plan: Plan, corpus: Path, tmp_path: Path
) -> None:
    done = encode(plan, corpus, tmp_path / "ahead")
    (corpus / "returns.md").write_text("# Returns\n\nThere are none any more.\n")
    report = add(service, admin, collection, corpus, tmp_path / "ahead")
    assert report.passages == 1
    assert 0 < report.ahead < done.passages
    assert service.search(admin, collection, "are there returns any more?", 1)[0].document == "returns.md"
    again = encode(plan, corpus, tmp_path / "ahead")
    assert 0 < again.encoded < done.passages


class Counting(InProcess):
    def __init__(self, most: int | None = None):
        self.parts = 0
        self._most = most

    def run(self, plan: Plan, into: Path, parts: Sequence[Part]) -> Iterator[PartReport]:
        for report in super().run(plan, into, parts):
            self.parts += 1
            yield report
            if self.parts == self._most:
                raise KeyboardInterrupt


@pytest.mark.usefixtures("small_parts")
def test_a_run_cut_off_goes_on_with_the_parts_that_are_left(plan: Plan, corpus: Path, tmp_path: Path) -> None:
    sources, into = find_sources([corpus]), tmp_path / "ahead"
    first, second, third = Counting(most=1), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(plan, sources, into, first, silent)
    told: list[int] = []
    done = encode_corpus(plan, sources, into, second, lambda count, total, note: told.append(count))
    assert (first.parts, second.parts) == (1, len(list(parts_of(sources))) - 1)
    assert (told[0], told[-1]) == (2, len(sources))
    assert encode_corpus(plan, sources, into, third, silent).passages == done.passages
    assert third.parts == 0


def test_a_killed_run_leaves_whole_parts_only(settings: Settings, plan: Plan, corpus: Path, tmp_path: Path) -> None:
    into = tmp_path / "ahead"
    program = (
        "from index.bulk import plan; plan.PART_FILES = 1; import runpy; "
        "runpy.run_module('local_llm', run_name='__main__', alter_sys=True)"
    )
    line = [sys.executable, "-c", program, "index", "encode", str(corpus), "--into", str(into), "--encoder",
            "all-MiniLM-L6-v2", "--chunk-tokens", "64", "--overlap-tokens", "8"]  # fmt: skip
    variables = {**os.environ, "LOCAL_LLM_HOME": str(settings.home)}
    process = subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    given_up = time.monotonic() + 120
    while not list(into.glob("parts/*/report.json")):
        assert process.poll() is None
        assert time.monotonic() < given_up
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    texts = EncodedTexts(into, plan.encoder.name, plan.encoder.fingerprint)
    for folder in texts._folders:
        report = json.loads((folder / "report.json").read_text())
        assert len(np.load(folder / "vectors.npy")) == len(np.load(folder / "texts.npy")) == report["passages"]
    done = json.loads(subprocess.run([*line, "--json"], env=variables, capture_output=True, check=True).stdout)
    assert done["documents"] == len(TOPICS)
    assert not list(into.glob("parts/.staging-*"))


def test_an_encoding_is_for_one_encoder(
    service: IndexService, admin: Caller, collection: str, plan: Plan, corpus: Path, tmp_path: Path
) -> None:
    other = replace(plan, encoder=replace(plan.encoder, fingerprint="f" * 64))
    (tmp_path / "ahead" / "parts").mkdir(parents=True)
    (tmp_path / "ahead" / "encoding.json").write_text(json.dumps(other.identity))
    with pytest.raises(ConflictError, match="weights, pooling, prompts or precision differ"):
        add(service, admin, collection, corpus, tmp_path / "ahead")
    with pytest.raises(ConflictError, match="another one than on the host that asks"):
        Worker(other, tmp_path)
    with pytest.raises(ConflictError, match="differs from what is asked"):
        encode(plan, corpus, tmp_path / "ahead")
    with pytest.raises(ConflictError, match=r"expected 0\.0\.0"):
        Worker(replace(plan, version="0.0.0"), tmp_path)
    with pytest.raises(InvalidInputError, match="holds no encoding"):
        add(service, admin, collection, corpus, corpus)


def test_a_text_is_found_by_its_whole_hash(plan: Plan, corpus: Path, tmp_path: Path) -> None:
    encode(plan, corpus, tmp_path / "ahead")
    (folder,) = (tmp_path / "ahead" / "parts").iterdir()
    texts = np.load(folder / "texts.npy")
    texts[:, 8:] ^= 1  # the words that it is looked up by stay
    np.save(folder / "texts.npy", texts)
    found = EncodedTexts(tmp_path / "ahead", plan.encoder.name, plan.encoder.fingerprint)
    report = json.loads((folder / "report.json").read_text())
    assert len(found._keys) == report["passages"]
    worker = Worker(plan, tmp_path)
    source = find_sources([corpus / "returns.md"])[0]
    passages = list(worker._passages((source,), [], []))
    assert found.find([passage.encoded for passage in passages]) == {}
    worker.close()
    np.save(folder / "texts.npy", texts[:-1])
    with pytest.raises(IntegrityError, match="other arrays"):
        EncodedTexts(tmp_path / "ahead", plan.encoder.name, plan.encoder.fingerprint)


def test_a_collection_moves_to_an_encoder_whose_vectors_were_made_ahead(
    service: IndexService,
    admin: Caller,
    collection: str,
    settings: Settings,
    plan: Plan,
    corpus: Path,
    tmp_path: Path,
) -> None:
    add(service, admin, collection, corpus, None)
    store = ModelStore(settings.place.models)
    model = tmp_path / "model"
    shutil.copytree(locate(ENCODER), model)
    (model / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"document": "clause: "}}))
    store.import_folder(model, name="prompted")
    new = Bound(*Encoders(settings).fingerprint("prompted"))
    assert new.fingerprint != plan.encoder.fingerprint
    done = encode(replace(plan, encoder=new), corpus, tmp_path / "ahead")
    with pytest.raises(ConflictError, match="was encoded by prompted"):
        add(service, admin, collection, corpus, tmp_path / "ahead")
    report = service.reembed(admin, collection, encoder="prompted", encoded=tmp_path / "ahead")
    assert (report.encoder, report.ahead) == ("prompted", done.passages)
    hit = service.search(admin, collection, "Rule 3 of batteries", 1)[0]
    assert hit.document == "batteries.md"
