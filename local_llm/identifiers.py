"""Ids, names and times as OpenAI's objects carry them."""

import re
import secrets
import time

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# 24 of 36 symbols hold 124 bits: no two ids meet, and none is guessed.
ID_LENGTH = 24
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"  # in the order in which databases sort them
TIME_LENGTH = 9

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_id(prefix: str) -> str:
    """A fresh id such as `file-3k…`. `prefix` holds its own separator: "file-", "vs_"."""
    return prefix + "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def new_ordered_id(prefix: str) -> str:
    """The same, for what is listed or worked on in the order in which it came: `now` tells seconds only.

    Nine symbols count milliseconds; the fifteen others hold 77 bits.
    """
    milliseconds, digits = time.time_ns() // 1_000_000, ""
    for _ in range(TIME_LENGTH):
        milliseconds, digit = divmod(milliseconds, len(DIGITS))
        digits = DIGITS[digit] + digits
    return prefix + digits + "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH - TIME_LENGTH))


def now() -> int:
    """Unix time in whole seconds."""
    return int(time.time())


def is_name(text: str) -> bool:
    """Whether `text` can name a model, collection or profile: it may become part of a path."""
    return _NAME.fullmatch(text) is not None


def is_suffix(text: str) -> bool:
    """Whether `text` can be the suffix of a fine-tuned model's name (64 characters, as the hosted API has it)."""
    return _SUFFIX.fullmatch(text) is not None
