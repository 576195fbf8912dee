"""Keeps progress bars and warnings of libraries out of what a person reads."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# bitsandbytes warns while it is imported (by peft) that a kernel it would fetch from a hub is not there.
TALKATIVE = ("transformers", "bitsandbytes", "trl", "peft", "accelerate", "datasets", "torch", "gguf")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """For the block, model libraries say nothing below an error and draw no progress bars.

    Import them inside the block: some talk while they are imported.
    """
    before = {name: logging.getLogger(name).level for name in TALKATIVE}
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    # Importing transformers sets its level to WARNING.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
