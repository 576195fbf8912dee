"""LoRA adapters on a loaded model, by PEFT: the one file that knows it."""

from pathlib import Path
from typing import Any


def with_adapter(model: Any, adapter: Path) -> Any:
    """The model with the adapter in the folder `adapter` applied beside its weights, for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter, is_trainable=False, local_files_only=True).eval()


def merge(adapted: Any) -> Any:
    """The base model with the adapter's update added to its weights, in place. PEFT is gone from it then."""
    return adapted.merge_and_unload()
