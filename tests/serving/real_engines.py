"""vLLM itself, on a random model so small that starting is all its work: for tests of how engines are set up."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ..handmade_adapters import lora, write_adapter

TINY = "tiny"
# vLLM's attention on a CPU knows heads of 32 features and more.
HIDDEN, HEADS, KEY_HEADS, HEAD_FEATURES, LAYERS, VOCABULARY = 64, 4, 2, 32, 2, 320
PROMPT = [40, 7, 99, 12, 250, 31]
ANSWER_TOKENS = 16
START_SECONDS = 300

RANK, ALPHA = 8, 16


def write_tiny(folder: Path) -> Path:
    """Random, but of one mind: its likeliest token is far ahead, so that no rounding decides."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, head_dim=HEAD_FEATURES, vocab_size=VOCABULARY, max_position_embeddings=512,
        initializer_range=0.3, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(7)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    words += [f"Ġw{number}" for number in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[2])
    made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    made.save_pretrained(folder)
    return folder


def write_tiny_adapter(folder: Path) -> Path:
    """On the first layer's queries alone, and strong enough to change answers."""
    draw = np.random.default_rng(3)
    tensors = lora("model.layers.0.self_attn.q_proj", HIDDEN, HEADS * HEAD_FEATURES, RANK)
    drawn = {name: draw.normal(0, 0.5, one.shape).astype(np.float32) for name, one in tensors.items()}
    return write_adapter(folder, drawn, r=RANK, lora_alpha=ALPHA)


def greedy(model: Path, adapter: Path | None = None) -> list[int]:
    """What the model says to the prompt, in one process and without vLLM; an adapter is added to its weights."""
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    loaded = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        down, up = (value for _, value in sorted(load_file(adapter / "adapter_model.safetensors").items()))
        with torch.no_grad():
            loaded.model.layers[0].self_attn.q_proj.weight += ALPHA / RANK * up @ down
    ids = torch.tensor([PROMPT])
    for _ in range(ANSWER_TOKENS):
        with torch.no_grad():
            ids = torch.cat([ids, loaded(ids).logits[:, -1:].argmax(-1)], dim=1)
    return list(ids[0, len(PROMPT) :].tolist())


@dataclass
class RealEngine:
    process: subprocess.Popen[bytes]
    log: Path
    base_url: str

    def ask(self, model: str = TINY) -> list[int]:
        body = {
            "model": model, "prompt": PROMPT, "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True,
        }  # fmt: skip
        with self._client(60) as client:
            answer = client.post("/v1/completions", json=body)
            assert answer.status_code == 200, self.told()
            return list(answer.json()["choices"][0]["token_ids"])

    def models(self) -> list[str]:
        with self._client(10) as client:
            return [one["id"] for one in client.get("/v1/models").json()["data"]]

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < deadline, self.told()
            try:
                with self._client(5) as client:
                    if client.get("/health").status_code == 200:
                        return
            except httpx.HTTPError:
                time.sleep(0.5)

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def _client(self, seconds: float) -> httpx.Client:
        return httpx.Client(base_url=self.base_url, timeout=seconds)


@contextmanager
def started(line: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own, all of which is gone afterwards."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            line, env=dict(environment), stdout=out, stderr=out, start_new_session=True, cwd=log.parent
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
