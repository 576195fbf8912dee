"""Which tokens of a conversation are trained: the assistant's turns, their end-of-turn token included.

The turns are found by rendering the conversation turn by turn with the tokenizer's own chat template, so the
text is the one that serving renders. A library's masks leave the end-of-turn token out for some templates;
a model trained like that never stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from local_llm.errors import InvalidInputError, Problem, TrainingDataError
from training.data import Example, Message
from training.quiet import quiet_libraries

IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Row:
    """One example as the model sees it; both lists have the same length."""

    line: int
    input_ids: list[int]
    labels: list[int]  # the token itself where it is trained, else IGNORED

    @property
    def tokens(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)

    def columns(self) -> dict[str, list[int]]:
        """The row as the training library's data set holds it."""
        return {"input_ids": self.input_ids, "labels": self.labels}


@dataclass(frozen=True)
class PreferenceRow:
    line: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    cut_tokens: int = 0

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def trained_tokens(self) -> int:
        return len(self.chosen_ids) + len(self.rejected_ids)

    def columns(self) -> dict[str, list[int]]:
        return {"prompt_ids": self.prompt_ids, "chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a rendered conversation."""

    start: int
    end: int


class UnusableTemplateError(Exception):
    """Why a chat template cannot be used for a conversation."""


def load_tokenizer(model: Path) -> Any:
    with quiet_libraries():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model, local_files_only=True)


def build_rows(tokenizer: Any, examples: Sequence[Example], *, max_tokens: int, shown_as: str) -> list[Row]:
    """One row an example, in the same order. Nothing is cut short and nothing left out.

    Raises: TrainingDataError naming every line that is too long or that the template refuses;
        InvalidInputError if the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise InvalidInputError("the model's tokenizer has no chat template", param="model")
    rows, problems = [], []
    for example in examples:
        try:
            row = build_row(tokenizer, example)
        except UnusableTemplateError as refusal:
            problems.append(Problem(example.line, str(refusal)))
            continue
        if len(row.input_ids) > max_tokens:
            reason = f"{len(row.input_ids)} tokens; at most {max_tokens} (training.max_tokens)"
            problems.append(Problem(example.line, reason))
        rows.append(row)
    if problems:
        raise TrainingDataError(shown_as, problems)
    return rows


def build_row(tokenizer: Any, example: Example) -> Row:
    """Raises: UnusableTemplateError."""
    text, spans = trained_spans(tokenizer, example.messages)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    input_ids = encoded["input_ids"]
    labels = [
        token if any(span.start <= start < span.end for span in spans) else IGNORED
        for token, (start, _) in zip(input_ids, encoded["offset_mapping"], strict=True)
    ]
    return Row(example.line, input_ids, labels)


def trained_spans(tokenizer: Any, messages: Sequence[Message]) -> tuple[str, list[Span]]:
    """The rendered conversation, and where its trained turns lie in it.

    A turn starts where the generation prompt before it ends and goes through its end-of-turn token.

    Raises: UnusableTemplateError.
    """
    text = _render(tokenizer, messages, prompt=False)
    spans = []
    for position, message in enumerate(messages):
        if message.trained:
            head = _render(tokenizer, messages[:position], prompt=True)
            through = _render(tokenizer, messages[: position + 1], prompt=False)
            spans.append(_span(text, head, through, message))
    return text, spans


def _span(text: str, head: str, through: str, message: Message) -> Span:
    if not (text.startswith(through) and through.startswith(head)):
        raise UnusableTemplateError(
            "the model's chat template renders a turn differently once others follow, so it cannot be told "
            "which tokens are the assistant's"
        )
    end = len(through.rstrip())  # the newline after the end-of-turn token belongs to the next turn
    if through[len(head) : end].strip() == message.content.strip():
        raise UnusableTemplateError("the model's chat template does not mark the end of the assistant's turn")
    return Span(len(head), end)


def _render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    conversation = [message.for_template() for message in messages]
    try:
        return tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
    except jinja2.TemplateError as error:
        raise UnusableTemplateError(f"the model's chat template refuses it: {error}") from None
