"""A hash of values, equal for equal values whatever the order of their keys."""

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """JSON in one form."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


def fingerprint(value: Any) -> str:
    """SHA-256 in hexadecimal digits of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()
