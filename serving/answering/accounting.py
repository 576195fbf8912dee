"""What answers take, counted against the limits of a key and in its usage; what was asked, for the audit log."""

from collections.abc import Mapping
from typing import Any

from local_llm.permissions import Caller
from local_llm.prompts import last_user_position, text_of
from serving.admission import INTERACTIVE
from serving.answering.events import TokenUsage
from serving.services import Services

# Of English and of code, near enough where nobody counts.
BYTES_PER_TOKEN = 4


def spend(
    services: Services,
    caller: Caller,
    priority: int,
    model: str,
    used: TokenUsage,
    *,
    requests: int = 1,
    passages: int = 0,
) -> None:
    """`requests=0`: of one that is counted when it ends."""
    batch = priority != INTERACTIVE
    services.limits.spent(caller, used.input_tokens + used.output_tokens, batch=batch)
    services.usage.count(
        caller,
        model,
        "batch" if batch else "completions",
        requests=requests,
        input_tokens=used.input_tokens,
        cached_tokens=used.cached_tokens,
        output_tokens=used.output_tokens,
        passages=passages,
    )


def estimated_tokens(body: Mapping[str, Any]) -> int:
    """Of a prompt that the engine was asked and told no count of: by its text, images not among it."""
    if "messages" in body:
        texts = [text_of(message.get("content")) for message in body["messages"]]
        return _of_bytes(sum(len(text.encode(errors="replace")) for text in texts))
    return _of_prompt(body.get("prompt"))


def asked_in(body: Mapping[str, Any]) -> str:
    """The question, as the audit log holds it: of a chat what the user said last, else the prompt."""
    if "messages" not in body:
        return str(body.get("prompt") or "")
    try:
        return text_of(body["messages"][last_user_position(body["messages"])].get("content"))
    except ValueError:
        return ""


def _of_prompt(prompt: Any) -> int:
    """A text, token ids, or several of either."""
    if isinstance(prompt, str):
        return _of_bytes(len(prompt.encode(errors="replace")))
    if isinstance(prompt, list):
        return sum(1 if isinstance(one, int) else _of_prompt(one) for one in prompt)
    return 0


def _of_bytes(count: int) -> int:
    return count // BYTES_PER_TOKEN + 1
