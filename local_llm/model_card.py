"""The model card of an adapter: a README.md beside its weights, written from its manifest."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CARD = "README.md"
UNKNOWN = "unknown"


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown with the metadata block of Hugging Face's model cards.

    `manifest` holds what AdapterRegistry.publish writes: name, base_model, base_sha256, base_licence, created_at,
    lora, data_sha256, settings, metrics, versions, job_id, step_number.
    """
    return "\n".join(
        [
            _metadata(manifest),
            f"# {manifest['name']}\n",
            _introduction(manifest),
            "## How it was trained\n",
            _table(_training_facts(manifest)),
            *_section("Hyperparameters", manifest["settings"]),
            *_section("Measured", manifest["metrics"]),
            *_section("Versions", manifest["versions"]),
            "## How to use it\n",
            _usage(manifest),
            "## Licence\n",
            _licence(manifest),
        ]
    )


def _metadata(manifest: Mapping[str, Any]) -> str:
    # JSON strings are YAML strings: no name can break out of its line.
    lines = [f"base_model: {json.dumps(manifest['base_model'])}", "library_name: peft", "tags: [lora]"]
    return "\n".join(["---", *lines, "---", ""])


def _introduction(manifest: Mapping[str, Any]) -> str:
    step = manifest["step_number"]
    kind = "A LoRA adapter" if step is None else f"A checkpoint, after step {step}, of a LoRA adapter"
    return f"{kind} for the base model `{manifest['base_model']}`.\n"


def _training_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    metrics, lora = manifest["metrics"], manifest["lora"]
    scaling = "alpha / √rank (rsLoRA)" if lora["rslora"] else "alpha / rank"
    facts = {
        "method": manifest["settings"].get("method", "supervised") if manifest["job_id"] else UNKNOWN,
        "base model": f"{manifest['base_model']} (sha256 {manifest['base_sha256']})",
        "rank": lora["rank"],
        "alpha": f"{lora['alpha']}; the update is scaled by {scaling}",
        "adapted modules": ", ".join(lora["modules"]),
        "training file": f"sha256 {manifest['data_sha256']}",
        "examples": metrics.get("examples", UNKNOWN),
        "tokens": metrics.get("tokens", UNKNOWN),
        "date": datetime.fromtimestamp(manifest["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "job": manifest["job_id"] or "none here: imported",
    }
    return facts


def _section(title: str, values: Mapping[str, Any]) -> list[str]:
    return [f"## {title}\n", _table(values)] if values else []


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split()).replace("|", "\\|")


def _usage(manifest: Mapping[str, Any]) -> str:
    name, base = manifest["name"], manifest["base_model"]
    return f"""Served, through the `openai` client:

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="KEY")
answer = client.chat.completions.create(
    model="{name}",
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(answer.choices[0].message.content)
```

Loaded, through PEFT, with this folder as ADAPTER and the folder of `{base}` as BASE:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("BASE"), "ADAPTER")
```

Merged into the base, as a model of its own: `local-llm train export {name} --output FOLDER`.
"""


def _licence(manifest: Mapping[str, Any]) -> str:
    licence, base = manifest["base_licence"], manifest["base_model"]
    noted = "none was noted when it was imported" if licence == UNKNOWN else f"noted as {licence}"
    return (
        f"An adapter changes the weights of its base and is of no use without them: the licence of `{base}` "
        f"({noted}) applies, and so do the rights in the training examples.\n"
    )
