"""Tokenizers made on the spot, and texts of which it is known how many tokens they have: no model hub is asked."""

import random
from pathlib import Path
from typing import Any

# Llama's way of turns in the simplest form that has an end of turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ENCODER_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_chat_tokenizer(folder: Path, vocabulary: int) -> Any:
    """A token a byte; words that no text holds fill the vocabulary, so that every id of the model is some text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_marks = sorted(pre_tokenizers.ByteLevel.alphabet())
    unused = (f"Ġunused{number}" for number in range(vocabulary - len(CHAT_MARKS) - len(byte_marks)))
    words = (*CHAT_MARKS, *byte_marks, *unused)
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in CHAT_MARKS])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=CHAT_MARKS[2], pad_token=CHAT_MARKS[0])
    made.chat_template = CHAT_TEMPLATE
    made.save_pretrained(folder)
    return made


def save_encoder_tokenizer(folder: Path, vocabulary: int, max_tokens: int) -> None:
    """A token a word, one before and one behind each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = (*ENCODER_MARKS, *(f"w{number}" for number in range(vocabulary - len(ENCODER_MARKS))))
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=max_tokens, **marks
    )
    made.save_pretrained(folder)


def texts_of(tokens: int, count: int, vocabulary: int, seed: int) -> list[str]:
    """`count` texts that the encoder's tokenizer reads as `tokens` tokens each, those around it included."""
    chance = random.Random(seed)
    most = vocabulary - len(ENCODER_MARKS)
    return [" ".join(f"w{chance.randrange(most)}" for _ in range(tokens - 2)) for _ in range(count)]
