"""The one place that keeps our processes off the network.

Libraries we build on fetch from model hubs, report usage and look for newer versions unless told not to.
`environment()` is what tells them; every process we start gets it, and `apply()` sets it in our own before
any of those libraries is imported.
"""

import os
from collections.abc import Mapping

SWITCHES: Mapping[str, str] = {
    # Hugging Face: no hub, no usage reports, no look-up of converted weights in the background.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    # vLLM: no usage reports; its get_ip() otherwise opens a UDP socket towards a public address.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    # Ray would even report that it does not report.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    # Training loggers, should one be installed.
    "WANDB_MODE": "disabled",
    "TRACKIO_MODE": "disabled",
    "COMET_MODE": "DISABLED",
    # LlamaIndex asks a server for tokenizer files and NLTK data unless it finds them in its own wheel.
    "ANONYMIZED_TELEMETRY": "False",
    "GRADIO_ANALYTICS_ENABLED": "False",
    # pymilvus reads a `.env` of the folder it is started in, or of those above, into the environment.
    "PYTHON_DOTENV_DISABLED": "1",
    # PyTorch distributed: rendezvous and collectives on loopback only.
    "GLOO_SOCKET_IFNAME": "lo",
    "MASTER_ADDR": "127.0.0.1",
}


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `base` (default: this process's environment) with every switch set."""
    return {**(os.environ if base is None else base), **SWITCHES}


def apply() -> None:
    """Sets every switch in this process. Call it first thing in an entry point, never on import."""
    os.environ.update(SWITCHES)
