"""Fine-tunes a model through any server that speaks OpenAI's API, and asks it something.

    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none
    python examples/fine_tune.py examples/quillon/training.jsonl "What does Quillon repair?"

Nothing in here is ours: it is written to the documentation of the `openai` package.
"""

import argparse
import time
from pathlib import Path

import openai


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training_file", type=Path)
    parser.add_argument("question")
    parser.add_argument("--model", default="gpt-4o-mini-2024-07-18")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--suffix", default="example")
    options = parser.parse_args()
    client = openai.OpenAI()

    file = client.files.create(file=options.training_file.open("rb"), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        training_file=file.id,
        model=options.model,
        hyperparameters={"n_epochs": options.epochs, "batch_size": 4, "learning_rate_multiplier": 4.0},
        suffix=options.suffix,
    )
    told: set[str] = set()
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100))):
            if event.id not in told:
                told.add(event.id)
                print(event.message, flush=True)
    if job.fine_tuned_model is None:
        raise SystemExit(f"{job.id} {job.status}: {job.error}")

    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print(f"step {checkpoint.step_number}: {checkpoint.fine_tuned_model_checkpoint}")
    for result in job.result_files:
        print(client.files.content(result).text)
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": options.question}], max_tokens=60
    )
    print(job.fine_tuned_model)
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
