"""LoRA: the one file that knows PEFT."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from local_llm.fileio import read_json, write_json
from training.recipe import Recipe


def configuration(recipe: Recipe) -> Any:
    """LoRA on all linear layers but the output layer.

    Source: QLoRA (Dettmers et al., 2023) and "LoRA Without Regret" (Schulman et al., 2025): adapters on all
    layers learn like full fine-tuning, those on attention alone do not. rsLoRA: Kalajdzievski, 2023.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=recipe.rslora,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def wrap_encoder(model: Any, rank: int) -> Any:
    """An encoder's transformer with a new LoRA on all its linear layers; nothing else of it is trained."""
    from peft import LoraConfig, get_peft_model

    configuration = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="FEATURE_EXTRACTION",
    )
    return get_peft_model(model, configuration)


def save(model: Any, folder: Path, base_name: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors of a PEFT model."""
    configuration = model.peft_config["default"]
    path = configuration.base_model_name_or_path
    # PEFT would write the local path of the base, which is nobody's business.
    configuration.base_model_name_or_path = base_name
    try:
        # "auto" looks the base up on a hub to see whether its vocabulary was enlarged (peft#1452); ours never is.
        model.save_pretrained(folder, save_embedding_layers=False)
    finally:
        configuration.base_model_name_or_path = path
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card


def rename_base(folder: Path, base_name: str) -> None:
    """Puts the base's name into a saved adapter's configuration for its local path; drops what else was saved."""
    path = folder / "adapter_config.json"
    if path.exists():  # of several processes one writes
        write_json(path, {**read_json(path), "base_model_name_or_path": base_name})
    for other in folder.glob("*"):
        if other.name not in ("adapter_config.json", "adapter_model.safetensors"):
            other.unlink()


def without_adapter(model: Any) -> AbstractContextManager[None]:
    """For the block, the model answers as its base does."""
    return model.disable_adapter()


def with_adapter(model: Any, adapter: Path) -> Any:
    """The model with the adapter in the folder `adapter` applied beside its weights, for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter, is_trainable=False, local_files_only=True).eval()


def merge(adapted: Any) -> Any:
    """The base model with the adapter's update added to its weights, in place. PEFT is gone from it then."""
    return adapted.merge_and_unload()
