"""A run from its folder to a judged encoder, and to a model of the store if it is better."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from local_llm import offline
from local_llm.encoder_recipe import BGE_QUERY_PROMPT, is_bge, recipe_of
from local_llm.errors import ConflictError, InvalidInputError
from local_llm.fileio import read_json
from local_llm.models import ModelStore
from local_llm.questions import Question
from local_llm.run_folders import TRAINED_ON
from training.checkpoints import STEPS
from training.retriever import publishing
from training.retriever.encoding import Encoder
from training.retriever.guard import NotBetterError
from training.retriever.run import train_retriever

from .conftest import BGE, Write, passages, questions

TEXTS = ["anchor of amber", "a river in the valley", "birch"]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_an_encoder_that_got_better_is_published_with_its_recipe(write_run: Write, store: ModelStore) -> None:
    folder = write_run()
    outcome = train_retriever(folder)
    assert outcome.better, outcome.reason
    model = publishing.publish(store, folder, "bge-for-handbook-1")
    assert (model.manifest.kind, model.manifest.licence) == ("encoder", "MIT")
    recipe, original = recipe_of(model.path), recipe_of(store.get(BGE).path)
    assert (recipe.query_prompt, recipe.document_prompt) == (BGE_QUERY_PROMPT, "")
    assert (original.pooling, recipe.pooling) == ("cls", None)
    assert json.loads((model.path / "1_Pooling" / "config.json").read_text())["pooling_mode"] == "cls"
    assert is_bge(model.path)
    training = read_json(model.path / "training.json")
    assert training["base"] == {"name": BGE, "sha256": store.get(BGE).manifest.sha256, "bge": True}
    assert training["metrics"]["dev"]["after"]["ndcg_10"] > training["metrics"]["dev"]["before"]["ndcg_10"]
    trained = {json.loads(line)["question"] for line in (folder / TRAINED_ON).read_text().splitlines()}
    measured = {row["question"] for row in read_json(folder / "report.json")["questions"]}
    assert len(trained) > 50
    assert not trained & measured
    everything = "".join(path.read_text(errors="replace") for path in model.path.rglob("*.[jm][sd]*"))
    assert not any(one.text in everything for one in questions())
    assert publishing.publish(store, folder, "bge-for-handbook-1").path == model.path  # a second time: nothing new
    with pytest.raises(ConflictError):
        publishing.publish(store, folder, BGE)


@pytest.mark.parametrize("name", ["plain", "all-my-bge-questions"])
def test_a_name_adds_no_instruction_to_an_encoder_that_has_none(
    bge_source: Path, store: ModelStore, tmp_path: Path, write_run: Write, name: str
) -> None:
    folder = write_run(epochs=1)
    head = read_json(folder / "settings.json")
    mean = store.import_folder(bge_source, name="mean-tiny").path
    (folder / "settings.json").write_text(json.dumps({**head, "encoder": str(mean)}))
    model = train_retriever(folder).model
    target = tmp_path / name
    model.rename(target)
    assert recipe_of(target).query_prompt == ""
    assert not is_bge(target)


def test_a_training_file_of_others_changes_no_recipe(bge_source: Path, store: ModelStore, tmp_path: Path) -> None:
    folder = tmp_path / "bge-small"
    shutil.copytree(bge_source, folder)
    for theirs in ('{"epochs": 3}', '{"base": "bert"}', "[1]"):
        (folder / "training.json").write_text(theirs)
        assert recipe_of(folder) == recipe_of(bge_source)
        assert is_bge(folder)


def test_what_is_loaded_again_is_what_was_measured(write_run: Write, store: ModelStore, encoder: Path) -> None:
    folder = write_run(epochs=1, learning_rate=1e-8)
    model = train_retriever(folder).model
    for kind in ("queries", "documents"):
        before, after = (getattr(Encoder(path, "cpu"), kind)(TEXTS) for path in (encoder, model))
        # Hardly trained: so pooling and prompts are the same. Products in bf16 round to three digits.
        assert (np.sum(before * after, axis=1) > 0.999).all()
    assert Encoder(model).max_tokens == Encoder(encoder).max_tokens  # fewer are read in training only


def test_an_encoder_that_is_not_better_is_kept_aside_and_never_published(
    write_run: Write, store: ModelStore
) -> None:
    folder = write_run(epochs=1, learning_rate=1e-8, force=True)
    outcome = train_retriever(folder)
    assert not outcome.better
    assert (outcome.model / "model.safetensors").exists()
    with pytest.raises(NotBetterError) as error:
        publishing.publish(store, folder, "no-better")
    assert str(outcome.model) in error.value.message
    assert str(folder / "report.md") in str(error.value.hint)
    assert [model.name for model in store.list()] == [BGE]


def test_an_encoder_that_got_worse_is_kept_aside(write_run: Write) -> None:
    trained = train_retriever(write_run())
    outcome = train_retriever(ruin(write_run, trained.model))
    assert not outcome.better
    assert "worse" in outcome.reason
    rows = read_json(outcome.folder / "report.json")["questions"]
    worse = [row for row in rows if row["ndcg_after"] < row["ndcg_before"]]
    text = (outcome.folder / "report.md").read_text()
    assert len(worse) > 5
    assert all(row["question"] in text for row in worse[:5])
    assert "<svg" in (outcome.folder / "plot.svg").read_text()


def ruin(write_run: Write, good: Path) -> Path:
    """The folder of a run that trains a good encoder to tell apart what belongs together."""
    shifted = [
        Question(one.text, questions()[(number + 7) % 150].documents) for number, one in enumerate(questions())
    ]
    folder = write_run("ruin", learning_rate=1e-2)
    honest = (folder / "questions.jsonl").read_text()
    wrong = write_run("wrong", questions=shifted, learning_rate=1e-2)
    head = read_json(folder / "settings.json")
    (folder / "settings.json").write_text(json.dumps({**head, "encoder": str(good)}))
    assert honest != (wrong / "questions.jsonl").read_text()
    head = read_json(folder / "settings.json")
    head["settings"].update(loss="cosine", epochs=8, learning_rate=0.05)
    (folder / "settings.json").write_text(json.dumps(head))
    return folder


def test_few_questions_are_refused_unless_forced(write_run: Write) -> None:
    few = questions()[:60]
    with pytest.raises(InvalidInputError, match="60 questions; expected 100") as error:
        train_retriever(write_run("few", questions=few))
    assert "--force" in str(error.value.hint)
    assert (
        train_retriever(write_run("forced", questions=few, epochs=1, force=True)).facts["data"]["questions"] == 60
    )


@pytest.mark.parametrize("changes", [{"loss": "cached"}, {"loss": "cosine"}, {"lora_rank": 4}])
def test_each_way_of_training_ends_in_a_whole_folder(write_run: Write, encoder: Path, changes: dict) -> None:
    outcome = train_retriever(write_run(epochs=1, **changes))
    assert {path.name for path in outcome.model.iterdir()} >= {"modules.json", "model.safetensors", "training.json"}
    assert not list(outcome.model.rglob("adapter_*"))
    trained, base = (Encoder(path, "cpu").documents(TEXTS) for path in (outcome.model, encoder))
    assert np.abs(trained - base).max() > 1e-3
    assert outcome.facts["trained"]["losses"]


def test_odd_data_is_counted_and_told(write_run: Write) -> None:
    long = passages()[0].__class__("long", "long", " ".join(["willow"] * 700))
    many = Question("which of all these", frozenset(f"d{number}" for number in range(40)))
    stray = Question("who has no passage", frozenset(["nowhere"]))
    outcome = train_retriever(
        write_run(passages=[*passages(), long], questions=[many, *questions(), stray], epochs=1, seed=3)
    )
    counts = outcome.facts["data"]
    assert (counts["longer_than_read"], counts["without_passages"]) == (1, 1)
    assert counts["groups"] == 111
    text = (outcome.folder / "report.md").read_text()
    assert "1 passages longer than the 512 tokens that the encoder reads" in text
    assert "1 questions left out: no document of theirs has a passage" in text


def test_time_that_is_up_ends_the_training(write_run: Write) -> None:
    outcome = train_retriever(write_run(epochs=50, max_seconds=2.0))
    assert outcome.facts["trained"]["ended_early"]
    assert outcome.facts["trained"]["seconds"] < 60


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_model(write_run: Write) -> None:
    whole, cut = (write_run(name, epochs=6, checkpoint_seconds=0) for name in ("whole", "cut"))
    train_retriever(whole)
    kill_at_checkpoint(cut)
    assert not (cut / "outcome.json").exists()
    assert child(cut).wait(120) == 0
    assert weights(cut) == weights(whole)
    one, other = (read_json(folder / "report.json") for folder in (whole, cut))
    assert (one["metrics"], one["questions"]) == (other["metrics"], other["questions"])
    assert one["trained"]["losses"] == other["trained"]["losses"]
    assert not (cut / STEPS).exists()


def child(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**offline.environment(), "LOCAL_LLM_HOME": str(folder.parent / "home")}
    line = [sys.executable, "-m", "training", "retriever", str(folder)]
    return subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)


def kill_at_checkpoint(folder: Path) -> None:
    process = child(folder)
    deadline = time.monotonic() + 120
    while not list((folder / STEPS).glob("checkpoint-*/sealed.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((folder / STEPS).glob("checkpoint-*"))
