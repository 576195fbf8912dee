"""`local-llm train retriever`, as a person or a script uses it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from index.access import open_index
from index.interface import Record
from local_llm.cli.app import run
from local_llm.fileio import read_json
from local_llm.ledger import latest
from local_llm.models import ModelStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import State, open_state

from .conftest import BGE, passages, questions

COLLECTION = "handbook"
FAST = ("--learning-rate", "5e-3", "--epochs", "2", "--batch-size", "16", "--max-tokens", "32")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    (home / "settings.toml").write_text(f'[index]\nprecision = "float32"\nencoder = "{BGE}"\n')
    monkeypatch.setenv("LOCAL_LLM_HOME", str(home))
    return load_settings(environment={"LOCAL_LLM_HOME": str(home)})


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    opened = open_state(settings.place)
    yield opened
    opened.close()


@pytest.fixture
def admin(state: State) -> Caller:
    return local_admin(state.local_project_id())


@pytest.fixture
def collection(settings: Settings, state: State, admin: Caller, bge_source: Path) -> str:
    ModelStore(settings.place.ensure().models).import_folder(bge_source, name=BGE)
    with open_index(settings, state) as index:
        index.create(admin, COLLECTION)
        index.put(admin, COLLECTION, [Record(one.document, one.text) for one in passages()[1::2]])
    return COLLECTION


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Also one question that is there twice, and one about a document that is not."""
    lines = [{"question": one.text, "documents": sorted(one.documents)} for one in questions()]
    lines += [lines[0], {"question": "who is nowhere", "documents": ["nowhere"]}]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.slow
def test_a_collection_gets_a_better_encoder(
    settings: Settings,
    state: State,
    admin: Caller,
    collection: str,
    asked: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["train", "retriever", collection, "--questions", str(asked), *FAST]
    code = run([*line, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result = json.loads(captured.out)
    assert result["encoder"] == f"{BGE}-{collection}-1"
    assert result["metrics"]["dev"]["after"]["ndcg_10"] > result["metrics"]["dev"]["before"]["ndcg_10"]
    assert "questions left out, naming no document of the collection: 1" in captured.err
    assert Path(result["report"]).read_text().startswith("# A retriever trained from")
    model = ModelStore(settings.place.models).get(result["encoder"], "encoder")
    assert not any(one.text in (model.path / "training.json").read_text() for one in questions())
    entry = latest(state, admin.project_id, "retriever")
    assert entry is not None
    assert entry.facts["published"]
    assert entry.facts["ndcg_10_after"] == result["metrics"]["dev"]["after"]["ndcg_10"]
    assert entry.facts["cpu_seconds"] > 0
    assert run(result["next"].split()[1:]) == 0
    with open_index(settings, state) as index:
        assert index.get(admin, collection).encoder == result["encoder"]
    assert run(["train", "retriever", "--resume", result["run"]]) == 1
    assert "is finished" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_no_better_is_kept_aside_with_exit_1(
    settings: Settings,
    state: State,
    admin: Caller,
    collection: str,
    asked: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["train", "retriever", collection, "--questions", str(asked), *FAST, "--force"]
    assert run([*line, "--epochs", "1", "--learning-rate", "1e-8"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (folder,) = settings.place.retrievers.iterdir()
    assert "not certainly better" in captured.err
    assert str(folder / "report.md") in captured.err
    assert (folder / "model" / "modules.json").exists()
    assert [model.name for model in ModelStore(settings.place.models).list()] == [BGE]
    entry = latest(state, admin.project_id, "retriever")
    assert entry is not None
    assert not entry.facts["published"]


@pytest.mark.slow
def test_control_c_ends_a_run_that_goes_on_later(settings: Settings, collection: str, asked: Path) -> None:
    line = [
        "train",
        "retriever",
        collection,
        "--questions",
        str(asked),
        *FAST,
        "--epochs",
        "50",
        "--batch-size",
        "2",
    ]
    # A shell that runs the tests in its background has everything below it ignore Control-C.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "local_llm", *line],
        env={**os.environ, "LOCAL_LLM_HOME": str(settings.home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not training(settings) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1, told
    (folder,) = settings.place.retrievers.iterdir()
    assert f"local-llm train retriever --resume {folder.name}" in told
    (checkpoint,) = (folder / "steps").glob("checkpoint-*")
    assert int(checkpoint.name.rpartition("-")[2]) > 0
    head = read_json(folder / "settings.json")
    head["settings"]["max_seconds"] = 1  # enough of it
    (folder / "settings.json").write_text(json.dumps(head))
    run(["train", "retriever", "--resume", folder.name])
    assert read_json(folder / "outcome.json")["trained"]["steps"] >= int(checkpoint.name.rpartition("-")[2])


def training(settings: Settings) -> bool:
    """Whether a run has done a few steps."""
    found = [read_json(path) for path in settings.place.retrievers.glob("*/progress.json")]
    return any("training: loss" in one["note"] and one["done"] >= 3 for one in found)


def test_questions_of_a_model_need_a_server(collection: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "retriever", collection, "--synthesise", "5"]) == 1
    error = capsys.readouterr().err
    assert "no server answers here" in error
    assert "python -m serving" in error


class Writer(BaseHTTPRequestHandler):
    """A server that writes a question about the words of the passage."""

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = body["messages"][-1]["content"].rpartition("About ")[2].replace(".", "").strip()
        self.server.prompts.append(words)  # type: ignore[attr-defined]
        message = {"role": "assistant", "content": f"1. What of {words} now?\n2. What is in the text?"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._answer(
            {"id": "1", "object": "chat.completion", "created": 1, "model": "base", "choices": [choice]},
        )

    def _answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(settings: Settings) -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Writer)
    made.prompts = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    record = settings.place.ensure().run / "server.json"
    record.write_text(json.dumps({"url": f"http://127.0.0.1:{made.server_address[1]}"}))
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.slow
def test_the_served_model_writes_questions_where_there_are_none(
    settings: Settings, collection: str, server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "retriever", collection, "--synthesise", "60", "--force", *FAST]
    run(line)  # better or not
    error = capsys.readouterr().err
    (folder,) = settings.place.retrievers.iterdir()
    facts = read_json(folder / "outcome.json")
    written = facts["data"]["synthesised"]
    assert 10 < written <= 60
    assert f"{written} questions written from" in error
    assert "measured on questions that a model wrote" in error
    lines = [json.loads(line) for line in (folder / "synthesised.jsonl").read_text().splitlines()]
    assert all(len(one["documents"]) == 1 for one in lines)
    assert len(server.prompts) == len((folder / "journal.jsonl").read_text().splitlines())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected either COLLECTION or --resume RUN"),
        ((COLLECTION,), "there is nothing to train with"),
        (
            (COLLECTION, "--synthesise", "5", "--batch-size", "1", "--margin", "3"),
            "batch_size is 1; expected 2 to 4096; m",
        ),
        ((COLLECTION, "--synthesise", "5", "--name", BGE), "already there"),
        ((COLLECTION, "--questions", "FEW"), "there are 1 questions; expected 100 or more"),
        (("nowhere", "--synthesise", "5"), "there is no collection 'nowhere'"),
        (("--resume", "ret-none"), "there is no run 'ret-none'"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_written(
    settings: Settings,
    collection: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"question": "what of birch", "documents": ["d1"]}')
    assert run(["train", "retriever", *(str(few) if one == "FEW" else one for one in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert list(settings.place.retrievers.iterdir()) == []
