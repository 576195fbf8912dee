"""The four uses that this project follows, in the calls and parameters of their hosted form.

What differs: the base URL, the id of the uploaded file, our search, and the encoder's local folder.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ..conftest import WORLD
from .conftest import QuickstartRun, RunningServer, environment

pytestmark = pytest.mark.engine

QUESTION = "How long must I hold trigger and side key to factory reset a scanner?"
RIGHT_DOCUMENT = "scanner-factory-reset.md"
ANSWER_TOKENS = 60
TRAINED_EXAMPLES = 12


@pytest.fixture(scope="module")
def knowledge(server: RunningServer) -> Iterator[Any]:
    """A vector store with a few of the sample world's documents."""
    client = server.client()
    store = client.vector_stores.create(name="knowledge")
    documents = [*sorted((WORLD / "documents").glob("*.md"))[:8], WORLD / "documents" / RIGHT_DOCUMENT]
    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=sorted(set(documents)))
    assert batch.file_counts.failed == 0
    yield store
    client.vector_stores.delete(store.id)


def context_for(client: openai.OpenAI, store: Any, question: str) -> str:
    found = client.vector_stores.search(store.id, query=question, max_num_results=5).data
    assert 0 < len(found) <= 5
    assert RIGHT_DOCUMENT in [hit.filename for hit in found]
    return "\n\n".join(f"{hit.filename}: {hit.content[0].text}" for hit in found)


def test_fine_tuning(client: openai.OpenAI, tmp_path: Path) -> None:
    examples = tmp_path / "training.jsonl"
    lines = sorted((WORLD / "training.jsonl").read_text().splitlines(), key=len)
    examples.write_text("\n".join(lines[:TRAINED_EXAMPLES]))

    with examples.open("rb") as handle:
        training_file = client.files.create(file=handle, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=training_file.id,
        model="gpt-4o-mini-2024-07-18",
        hyperparameters={"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0},
        suffix="support-tone",
    )
    assert (job.object, job.status, job.hyperparameters.n_epochs) == ("fine_tuning.job", "queued", 3)
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.split(":")[0::3] == ["ft", "support-tone"]
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": QUESTION}], max_tokens=ANSWER_TOKENS
    )
    assert answer.choices[0].message.content


def test_retrieval(client: openai.OpenAI, knowledge: Any) -> None:
    context = context_for(client, knowledge, QUESTION)
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[
            {"role": "system", "content": f"Answer only from the context.\n\nContext:\n{context}"},
            {"role": "user", "content": QUESTION},
        ],
        max_tokens=ANSWER_TOKENS,
    )
    assert answer.choices[0].message.content


def test_hybrid(client: openai.OpenAI, quickstart: QuickstartRun, knowledge: Any) -> None:
    context = context_for(client, knowledge, QUESTION)
    answer = client.chat.completions.create(
        model=quickstart.result["fine_tuned_model"],
        messages=[
            {"role": "system", "content": "You are a support agent with access to internal documentation."},
            {"role": "user", "content": f"Context:\n{context}\n\nQuestion: {QUESTION}"},
        ],
        max_tokens=ANSWER_TOKENS,
        temperature=0,
    )
    first_line = json.loads((WORLD / "style.json").read_text())["first_line"]
    assert (answer.choices[0].message.content or "").startswith(first_line), "its behaviour is the adapter's"


# As it is written for a model of the hub; the folder is ours.
TUNE_THE_RETRIEVER = """
import json, sys
from sentence_transformers import InputExample, SentenceTransformer, losses
from torch.utils.data import DataLoader

pairs, encoder, tuned = sys.argv[1:]
model = SentenceTransformer(encoder)
examples = [InputExample(texts=pair["texts"], label=pair["label"]) for pair in json.load(open(pairs))]
loader = DataLoader(examples, shuffle=True, batch_size=16)
model.fit(train_objectives=[(loader, losses.CosineSimilarityLoss(model))], epochs=3, show_progress_bar=False)
model.save(tuned)
"""


def test_a_tuned_retriever_serves_a_vector_store(
    client: openai.OpenAI, server: RunningServer, knowledge: Any, tmp_path: Path
) -> None:
    """Three steps of tuning: what is tested is that it is trained, imported, put to use and found with."""
    pairs, tuned = tmp_path / "pairs.json", tmp_path / "tuned"
    pairs.write_text(json.dumps(labelled_pairs()))
    encoder = server.home / "models" / "all-MiniLM-L6-v2"
    run(server, "-c", TUNE_THE_RETRIEVER, str(pairs), str(encoder), str(tuned))

    command = ["-m", "local_llm"]
    run(server, *command, "models", "import", str(tuned), "--name", "tuned-retriever", "--licence", "Apache-2.0")
    run(server, *command, "index", "reembed", knowledge.id, "--encoder", "tuned-retriever")
    found = client.vector_stores.search(knowledge.id, query=QUESTION, max_num_results=5).data
    assert found[0].filename == RIGHT_DOCUMENT
    before, after = (
        client.embeddings.create(model=name, input=QUESTION).data[0].embedding
        for name in ("all-MiniLM-L6-v2", "tuned-retriever")
    )
    assert before != after


def labelled_pairs() -> list[dict[str, Any]]:
    """A question with its right document: 1.0, and with another's: 0.0."""
    questions = [json.loads(line) for line in (WORLD / "questions.jsonl").read_text().splitlines()]
    asked = [one for one in questions if one["documents"] != [RIGHT_DOCUMENT]][:8]
    pairs = []
    for one, other in zip(asked, asked[1:] + asked[:1], strict=True):
        pairs += [
            {"texts": [one["question"], one["evidence"]], "label": 1.0},
            {"texts": [one["question"], other["evidence"]], "label": 0.0},
        ]
    return pairs


def run(server: RunningServer, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(server.home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
