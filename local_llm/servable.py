"""What the engine can load: vLLM's rules for LoRA, applied before anything is trained, published or served.

Source: vLLM 0.32, lora/peft_helper.py.
"""

import re
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.fileio import read_json
from local_llm.tensors import model_tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PICKLES = ("adapter_model.bin", "adapter_model.pt")

REFUSED_FEATURES = {
    "use_dora": "it uses DoRA",
    "lora_bias": "it trains biases of its own (lora_bias)",
    "modules_to_save": "it replaces whole modules",
    "trainable_token_indices": "it trains single rows of the embeddings (trainable_token_indices)",
    "alora_invocation_tokens": "it is an activated LoRA (aLoRA)",
    "layer_replication": "it replicates layers",
    "use_bdlora": "it is block-diagonal (BD-LoRA)",
    "use_qalora": "it uses QALoRA",
}
# Ways to initialise that leave the base's weights alone; of the others an adapter is only half of what was trained.
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


# Weights of experts one by one. PEFT 0.21 stacks them, adapts the stack at twice the rank, and vLLM refuses that
# (lora/model_manager.py, _validate_moe_lora_format).
EXPERTS = re.compile(r"\.experts\.\d+\.")


def refuse_unservable_plan(base: Path, *, rank: int, max_rank: int) -> None:
    """Refuses to begin a run whose adapter could not be served. What is trained is plain LoRA on all linear layers,
    which vLLM loads whatever the base was quantised to meanwhile: the rank and the kind of base decide.

    Raises: InvalidInputError.
    """
    reasons = _rank_reasons({"r": rank}, max_rank)
    if reasons:
        raise InvalidInputError(
            f"the adapter could not be served: {'; '.join(reasons)}",
            hint="use a smaller rank, or raise engine.max_lora_rank",
            param="lora.rank",
        )
    if any(EXPERTS.search(name) for name in model_tensors(base)):
        raise InvalidInputError(
            f"{base.name} is a mixture of experts: adapters trained on all its layers cannot be served",
            hint="train a base without experts",
            param="model",
        )


def refuse_unservable(folder: Path, max_rank: int) -> dict[str, Any]:
    """The adapter's configuration, if vLLM can load its kind.

    Raises: InvalidInputError.
    """
    _refuse_missing_files(folder)
    config = _read_config(folder / CONFIG)
    reasons = [*_feature_reasons(config), *_rank_reasons(config, max_rank)]
    if reasons:
        raise InvalidInputError(f"the adapter in {folder} cannot be served: {'; '.join(reasons)}")
    return config


def _refuse_missing_files(folder: Path) -> None:
    pickle = next((name for name in PICKLES if (folder / name).exists()), None)
    if pickle is not None and not (folder / WEIGHTS).exists():
        raise InvalidInputError(
            f"the weights in {folder} are a pickle ({pickle}), which could run code when read; expected {WEIGHTS}",
            hint="where it was trained: PeftModel.from_pretrained(BASE, FOLDER).save_pretrained(NEW_FOLDER)",
        )
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).exists()]
    if missing:
        raise InvalidInputError(f"{folder} is not a PEFT adapter: {' and '.join(missing)} not found")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = read_json(file)
    except ValueError as error:
        raise InvalidInputError(f"{file} is no adapter's configuration: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("rank_pattern") or {}, dict):
        raise InvalidInputError(f"{file} is no adapter's configuration: expected an object")
    return config


def _feature_reasons(config: dict[str, Any]) -> list[str]:
    reasons = []
    if config.get("peft_type") != "LORA":
        reasons.append(f"its type is {config.get('peft_type')}; expected LORA")
    reasons += [
        f"its configuration lacks {name}" for name in ("lora_alpha", "target_modules") if name not in config
    ]
    if config.get("bias", "none") != "none":
        reasons.append(f"it trains biases ({config['bias']})")
    for name, reason in REFUSED_FEATURES.items():
        if config.get(name):
            reasons.append(f"{reason} ({config[name]})" if name == "modules_to_save" else reason)
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        reasons.append(f"its initialisation ({init}) changed the base's weights, which are not here")
    return reasons


def ranks_of(config: dict[str, Any]) -> list[Any]:
    """The rank of an adapter and those of the modules that have one of their own."""
    return [config.get("r"), *(config.get("rank_pattern") or {}).values()]


def _rank_reasons(config: dict[str, Any], max_rank: int) -> list[str]:
    ranks = ranks_of(config)
    wrong = [rank for rank in ranks if type(rank) is not int or rank < 1]
    if wrong:
        return [f"its rank is {wrong[0]!r}; expected a whole number above 0"]
    highest = max(ranks)
    if highest > max_rank:
        return [f"its rank is {highest}; the engine serves up to {max_rank} (engine.max_lora_rank)"]
    return []
