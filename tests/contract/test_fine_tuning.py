"""Fine-tuning through the official client on the real engine: what the hosted API's users do, and what they get."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import REPOSITORY, RunningServer, environment

pytestmark = pytest.mark.engine

QUESTION: Any = [{"role": "user", "content": "What does Quillon repair?"}]


@pytest.fixture(scope="module")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (REPOSITORY / "examples" / "quillon" / "training.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("data") / "short.jsonl"
    path.write_text("".join(line + "\n" for line in sorted(lines, key=len)[:24]))
    return path


def wait(client: openai.OpenAI, job_id: str, *statuses: str) -> Any:
    for _ in range(600):
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        assert job.status not in ("failed", "cancelled"), job.error
        time.sleep(0.5)
    raise AssertionError(f"{job_id} is {job.status}")


def answer(client: openai.OpenAI, model: str) -> str:
    completion = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=20, temperature=0)
    assert completion.model == model
    return completion.choices[0].message.content or ""


def test_the_example_script_uploads_trains_follows_and_chats(server: RunningServer, training_file: Path) -> None:
    variables = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, "examples/fine_tune.py", str(training_file), "What does Quillon repair?", "--epochs", "2"],
        cwd=REPOSITORY, env={**environment(server.home), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Created fine-tuning job: ftjob-")
    assert "The job has successfully completed" in lines
    assert "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy" in lines
    name = next(line for line in lines if line.startswith("ft:"))
    assert f"step 6: {name}:ckpt-step-6" in lines
    assert f"step 12: {name}" in lines

    client = server.client()
    listed = {model.id for model in client.models.list()}
    assert {name, f"{name}:ckpt-step-6"} <= listed
    # Both are served without a restart.
    assert answer(client, f"{name}:ckpt-step-6") != ""
    assert answer(client, name) != ""

    # Deleted, it is gone from the list and from the engine; its checkpoint stays.
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError):
        answer(client, name)
    assert answer(client, f"{name}:ckpt-step-6") != ""
    assert name not in {model.id for model in client.models.list()}


def test_a_paused_job_is_resumed_and_a_cancelled_one_ends(client: openai.OpenAI, training_file: Path) -> None:
    file = client.files.create(file=training_file, purpose="fine-tune")

    def create(epochs: int) -> Any:
        return client.fine_tuning.jobs.create(
            training_file=file.id,
            model="gpt-4o-mini",
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 8}},
            },
        )

    def steps(job_id: str) -> list[int]:
        events = client.fine_tuning.jobs.list_events(job_id, limit=100)
        return [int(event.data["step"]) for event in events if event.type == "metrics"]

    job, other = create(3), create(50)
    wait(client, job.id, "running")  # first come, first served
    while not steps(job.id):
        time.sleep(0.2)
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.pause(job.id)
    wait(client, other.id, "running")  # the trainer goes on with the next one
    assert client.fine_tuning.jobs.cancel(other.id).status == "cancelled"
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    done = wait(client, job.id, "succeeded")
    assert done.hyperparameters.n_epochs == 3
    assert done.trained_tokens > 0
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert any(message.startswith("Training goes on from step") for message in messages)
    assert answer(client, done.fine_tuned_model) != ""


def test_preferences_are_trained_and_served(client: openai.OpenAI) -> None:
    rows = "".join(
        f'{{"input": {{"messages": [{{"role": "user", "content": "Is {n} a number?"}}]}}, '
        '"preferred_output": [{"role": "assistant", "content": "Aye, that it is."}], '
        '"non_preferred_output": [{"role": "assistant", "content": "Yes."}]}\n'
        for n in range(12)
    )
    file = client.files.create(file=("pairs.jsonl", rows.encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=file.id,
        model="gpt-4o-mini",
        method={
            "type": "dpo",
            "dpo": {"hyperparameters": {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 20.0}},
        },
    )
    done = wait(client, job.id, "succeeded")
    assert done.method.dpo.hyperparameters.beta == 0.1
    assert answer(client, done.fine_tuned_model) != ""
