"""From which documents an exported example was made, and which of its texts tell of them."""

from dataclasses import dataclass
from typing import Any

from local_llm.prompts import text_of
from local_llm.provenance import fingerprint
from local_llm.state import ChatRow

# Shorter answers ("It is not included.") are said of many things: files that have nothing to do with this one would
# be restricted by them. Words, or characters where no spaces are written.
FEWEST_WORDS = 5
FEWEST_CHARACTERS = 40

Document = tuple[str, str]
"""Name of its collection, which never changes, and its id."""


@dataclass(frozen=True)
class Origin:
    """`documents` whose passages stood before the model; None: there were passages, and nobody noted whose.

    `texts` of the example were made from them, and are how a file is known that holds it.
    """

    documents: frozenset[Document] | None
    texts: tuple[str, ...]


def origin_of(row: ChatRow, example: dict[str, Any], *, with_context: bool) -> Origin | None:
    """None: no passage stood before the model."""
    prompt = row.prompt or {"messages": (), "documents": ()}
    context, noted = _context_of(prompt["messages"], row.request["messages"]), prompt.get("documents")
    if (noted is None and context is None) or (noted is not None and not noted):
        return None
    documents = None if noted is None else frozenset((collection, document) for collection, document in noted)
    answer = text_of(example["messages"][-1].get("content"))
    texts = [context] if with_context and context is not None else []
    if _is_telling(answer, prompt.get("refusal")):
        texts.append(answer)
    return Origin(documents, tuple(texts))


def _context_of(seen: Any, asked: Any) -> str | None:
    """The message with the passages: the user's that the model saw otherwise. A profile's own words are a system
    message."""
    changed = [message for message in seen if message.get("role") == "user" and message not in asked]
    return text_of(changed[-1].get("content")) if changed else None


def _is_telling(answer: str, refusal: str | None) -> bool:
    """Whether an answer says so much that it is not said of other documents too. A refusal says nothing of any."""
    if refusal is not None and fingerprint(answer) == fingerprint(refusal):
        return False
    return len(answer.split()) >= FEWEST_WORDS or len(answer) >= FEWEST_CHARACTERS
