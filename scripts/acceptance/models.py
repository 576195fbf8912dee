"""Models with random weights in the shapes of well-known ones: speed and memory do not depend on what they know."""

from pathlib import Path
from typing import Any

from acceptance import flops, texts
from acceptance.bench import Bench, Figures, Note
from local_llm.fileio import bytes_below

# Source: config.json of each. "little" and "least" are ours, for what needs no size.
DECODERS: dict[str, dict[str, Any]] = {
    "llama-3-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    },
    "llama-3.2-1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "little": {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 2048,
    },
    "least": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 320, "max_position_embeddings": 1024,
    },
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "bge-base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "bge-least": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}
ENCODER_VOCABULARY, ENCODER_VOCABULARY_SMALL = 30522, 512
ENCODER_TOKENS = 512
SEED = 7


def decoder(bench: Bench, shape: str) -> Path:
    """The folder of a causal language model with its tokenizer, in bf16; made by the first who asks."""
    folder = bench.work / "models" / shape
    if not (folder / "tokenizer.json").exists():  # written last
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(rope_theta=500000.0, bos_token_id=0, eos_token_id=2, **DECODERS[shape])
        torch.manual_seed(SEED)
        with torch.device(bench.device):
            model = _in_bfloat16(lambda: LlamaForCausalLM(config))
        model.save_pretrained(folder)
        texts.save_chat_tokenizer(folder, config.vocab_size)
        del model
        if bench.device == "cuda":
            torch.cuda.empty_cache()  # what comes next in this process finds the memory as empty as others do
    return folder


def make_decoder(bench: Bench, _note: Note, *, shape: str) -> Figures:
    """A run of its own: writing gigabytes must not take the time of the one that measures."""
    folder = decoder(bench, shape)
    return {"shape": shape, "bytes": bytes_below(folder)}


def encoder(bench: Bench, shape: str) -> Path:
    """The folder of an encoder with its tokenizer, in fp32 as those are published."""
    folder = bench.work / "models" / shape
    if not (folder / "tokenizer.json").exists():
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(SEED)
        # Larger than Bert's own start: with that, all texts are nearly alike.
        config = BertConfig(
            vocab_size=encoder_vocabulary(bench), max_position_embeddings=ENCODER_TOKENS, initializer_range=0.1,
            **ENCODERS[shape],
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
        texts.save_encoder_tokenizer(folder, config.vocab_size, ENCODER_TOKENS)
    return folder


def encoder_vocabulary(bench: Bench) -> int:
    return ENCODER_VOCABULARY_SMALL if bench.small else ENCODER_VOCABULARY


def decoder_sizes(shape: str) -> flops.Decoder:
    """Counted from the configuration."""
    config = DECODERS[shape]
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    kept = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * kept + 3 * hidden * config["intermediate_size"] + 2 * hidden
    tables = 1 if config.get("tie_word_embeddings") else 2
    return flops.Decoder(layers * layer + hidden + tables * config["vocab_size"] * hidden, layers, hidden)


def encoder_sizes(shape: str) -> flops.Encoder:
    """The matrices of the layers; biases and norms are no products."""
    config = ENCODERS[shape]
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    return flops.Encoder(layers * (4 * hidden**2 + 2 * hidden * config["intermediate_size"]), layers, hidden)


def _in_bfloat16(make: Any) -> Any:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return make()
    finally:
        torch.set_default_dtype(before)
