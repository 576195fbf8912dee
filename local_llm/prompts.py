"""The one function that puts retrieved passages before a question.

Serving, training with context and evaluation all use it: what a model was trained to read is what it reads.
"""

from collections.abc import Sequence
from typing import Any, Protocol

# Said before the context unless a profile has words of its own.
INSTRUCTION = (
    "Answer the question only from the context below. "
    "If the context does not hold the answer, say that you do not know."
)

Message = dict[str, Any]


class Numbered(Protocol):
    """What the prompt needs of a passage."""

    @property
    def title(self) -> str: ...
    @property
    def heading(self) -> str: ...
    @property
    def text(self) -> str: ...


def with_context(
    messages: Sequence[Message], passages: Sequence[Numbered], instruction: str | None = None
) -> list[Message]:
    """A copy of the chat with the passages, numbered from 1, put into the last user message.

    Any parts of that message that are not text (images) stay behind the text.
    """
    position = last_user_position(messages)
    content = messages[position]["content"]
    text = context_prompt(text_of(content), passages, instruction)
    kept = [] if isinstance(content, str) else [part for part in content if part.get("type") != "text"]
    replaced = text if not kept else [{"type": "text", "text": text}, *kept]
    return [*messages[:position], {**messages[position], "content": replaced}, *messages[position + 1 :]]


def context_prompt(question: str, passages: Sequence[Numbered], instruction: str | None = None) -> str:
    """Instruction, numbered passages and question as one text."""
    blocks = [
        f"[{number}] {passage.heading or passage.title}\n{passage.text}"
        for number, passage in enumerate(passages, 1)
    ]
    context = "\n\n".join(blocks) if blocks else "(nothing was found)"
    return f"{instruction or INSTRUCTION}\n\nContext:\n{context}\n\nQuestion: {question}"


def last_user_position(messages: Sequence[Message]) -> int:
    """Raises: ValueError if no message is a user's."""
    for position in range(len(messages) - 1, -1, -1):
        if messages[position].get("role") == "user":
            return position
    raise ValueError("no message has the role `user`")


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")
