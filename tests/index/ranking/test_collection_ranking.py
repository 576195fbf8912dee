"""A collection's ranking, as the index and `local-llm index` keep it and use it."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ingestion.ingest import find_sources
from index.interface import Ranking, Record
from index.service import IndexService
from local_llm import ledger
from local_llm.cli.app import run
from local_llm.embedded import ENCODER, locate
from local_llm.errors import InvalidInputError, ModelNotFoundError
from local_llm.identifiers import new_id
from local_llm.models import ModelStore
from local_llm.permissions import Caller
from local_llm.settings import Settings
from local_llm.state import State

Write = Callable[[str, str], Path]

DOCUMENTS = {
    "e-417.md": "# Faults\n\nE-417 means that the drum is worn.\n",
    "e-418.md": "# Faults\n\nE-418 means that the tray is empty.\n",
    "e-419.md": "# Faults\n\nE-419 means that the cover is open.\n",
}


def write_documents(write: Write, below: str = "") -> Path:
    """Returns: their folder."""
    return {write(f"{below}{name}", text).parent for name, text in DOCUMENTS.items()}.pop()


@pytest.fixture
def faults(service: IndexService, admin: Caller, collection: str, write: Write) -> str:
    service.add(admin, collection, find_sources([write_documents(write)]))
    return collection


def test_stored_ranking_is_used_unless_another_is_given(service: IndexService, admin: Caller, faults: str) -> None:
    dense = service.search(admin, faults, "E-419")
    assert service.get(admin, faults).ranking == Ranking()
    assert service.update(admin, faults, ranking=Ranking(lexical=True)).ranking == Ranking(lexical=True)
    fused = service.search(admin, faults, "E-419")
    assert fused[0].document == "e-419.md"
    assert fused[0].score == pytest.approx(
        0.9 * max(hit.score for hit in dense if hit.document == "e-419.md") + 0.1
    )
    again = service.search(admin, faults, "E-419", ranking=Ranking())
    assert [hit.passage_id for hit in again] == [hit.passage_id for hit in dense]
    # Another way through the index may add up in another order.
    assert [hit.score for hit in again] == pytest.approx([hit.score for hit in dense], abs=1e-6)


def test_reranker_has_to_be_there_and_one(service: IndexService, admin: Caller, faults: str) -> None:
    with pytest.raises(ModelNotFoundError):
        service.update(admin, faults, ranking=Ranking(reranker="nowhere"))
    with pytest.raises(InvalidInputError, match="expected reranker"):
        service.search(admin, faults, "E-419", ranking=Ranking(reranker=ENCODER.name))
    assert service.get(admin, faults).ranking == Ranking()


@pytest.fixture
def reranking(settings: Settings, state: State, home: Path, tmp_path: Path) -> Iterator[IndexService]:
    """An index whose reranker `tray-lover` prefers what holds the word tray."""

    def load(path: Path, device: str) -> Callable[[str, Sequence[str]], NDArray[np.float32]]:
        assert path.name == "tray-lover"
        return lambda _, texts: np.array(["tray" in text for text in texts], np.float32)

    folder = shutil.copytree(locate(ENCODER), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config.update(architectures=["BertForSequenceClassification"], num_labels=1, id2label={"0": "LABEL_0"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").unlink()
    models = ModelStore(home / "models")
    if models.find("tray-lover") is None:
        models.import_folder(folder, name="tray-lover")
    made = IndexService(settings, state, load_reranker=load)
    yield made
    made.close()


def test_reranker_of_the_model_store_ranks(reranking: IndexService, admin: Caller, write: Write) -> None:
    name = reranking.create(admin, new_id("test-")).name
    reranking.add(admin, name, find_sources([write_documents(write)]))
    reranking.update(admin, name, ranking=Ranking(reranker="tray-lover"))
    assert reranking.search(admin, name, "the cover", 1)[0].document == "e-418.md"


def test_vector_as_a_query_is_not_ranked_by_words(service: IndexService, admin: Caller) -> None:
    name = service.create(admin, new_id("test-"), dimension=2).name
    service.put(admin, name, [Record("a", "toner", vector=[1, 0]), Record("b", "toner", vector=[0, 1])])
    with pytest.raises(InvalidInputError, match="no words"):
        service.search(admin, name, [1, 0], ranking=Ranking(lexical=True))
    assert [hit.document for hit in service.search(admin, name, [1, 0], ranking=Ranking(merged=True))] == ["a"]


@pytest.mark.slow
def test_evaluate_measures_tells_and_applies(
    home: Path,
    write: Write,
    state: State,
    admin: Caller,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(home))
    folder = write_documents(write, "faults/")
    questions = write(
        "questions.jsonl",
        "\n".join(
            json.dumps({"question": question, "documents": [document]})
            for question, document in (
                ("What is E-417?", "e-417.md"),
                ("what is e-417?", "e-417.md"),
                ("When is E-418 shown?", "e-418.md"),
                ("Unknown?", "elsewhere.md"),
            )
        ),
    )
    assert run(["index", "create", "faults", "--lexical", "--merged", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranking"] == {"lexical": True, "reranker": None, "merged": True}
    assert run(["index", "add", "faults", str(folder)]) == 0
    capsys.readouterr()
    assert run(["index", "evaluate", "faults", str(questions), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["questions"] == 2
    assert found["left_out"] == {"duplicates": 1, "without_document": 1, "unknown_documents": 1}
    assert "left out, asked before: 1" in said.err
    assert found["rankings"][0]["name"] == "dense"
    assert run(["index", "evaluate", "faults", str(questions), "--apply"]) == 0
    table = capsys.readouterr().out
    assert "lexical, added to dense, " in table
    assert "faults is ranked by dense" in table
    entry = ledger.latest(state, admin.project_id, "ranking")
    assert entry is not None
    assert entry.facts["questions"] == 2
    assert run(["index", "list", "--json"]) == 0
    kept = next(one for one in json.loads(capsys.readouterr().out) if one["name"] == "faults")
    assert kept["ranking"] == entry.facts["best"]
