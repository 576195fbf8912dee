"""Which tokens of a conversation are trained: the assistant's turns, their end-of-turn token included.

The turns are found in the text that the tokenizer's own chat template renders (turns.py), so the text is
the one that serving renders. A library's masks leave the end-of-turn token out for some templates; a model trained
like that never stops.

The rendered text is tokenised whole. A token is trained if any of its characters belongs to a trained turn: where
a tokenizer merges the end of the prompt with the first character of an answer, that token counts to the answer,
so that nothing of an answer is left out.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from local_llm.errors import InvalidInputError, Problem, TrainingDataError
from local_llm.settings import OverLong
from training.examples.data import Example, Message, Preference
from training.examples.turns import Span, UnusableTemplateError, trained_spans
from training.quiet import quiet_libraries

IGNORED = -100  # the label that torch's cross entropy leaves out

MEND_LENGTH = 'shorten them, raise training.max_tokens, or set training.over_long to "cut"'


@dataclass(frozen=True)
class Row:
    """One example as the model sees it; both lists have the same length."""

    line: int
    input_ids: list[int]
    labels: list[int]  # the token itself where it is trained, else IGNORED
    cut_tokens: int = 0  # left out at the end

    @property
    def tokens(self) -> int:
        return len(self.input_ids)

    @property
    def longest_tokens(self) -> int:
        """Of the conversations that the row holds: of the one."""
        return self.tokens

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)

    def columns(self) -> dict[str, list[int]]:
        """The row as the training library's data set holds it."""
        return {"input_ids": self.input_ids, "labels": self.labels}


@dataclass(frozen=True)
class PreferenceRow:
    """One preference. Prompt and chosen, prompt and rejected: each is a whole rendered conversation."""

    line: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    cut_tokens: int = 0  # left out at the ends of both answers together

    @property
    def tokens(self) -> int:
        """Of both conversations."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def longest_tokens(self) -> int:
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def trained_tokens(self) -> int:
        return len(self.chosen_ids) + len(self.rejected_ids)

    def columns(self) -> dict[str, list[int]]:
        """The row as the training library's data set holds it."""
        return {"prompt_ids": self.prompt_ids, "chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


def load_tokenizer(model: Path) -> Any:
    with quiet_libraries():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model, local_files_only=True)


def build_rows(
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    shown_as: str,
    over_long: OverLong = "refuse",
    param: str = "training_file",
) -> list[Row]:
    """One row an example, in the same order. Nothing is left out; longer ones are refused, or cut at the end.

    Raises: TrainingDataError naming every line that is too long, that the template refuses, or of which cutting
        leaves nothing to learn; InvalidInputError if the tokenizer has no chat template.
    """

    def build(example: Example) -> Row:
        row = build_row(tokenizer, example)
        return row if len(row.input_ids) <= max_tokens else _shorten(row, max_tokens, over_long)

    return _build_all(tokenizer, examples, build, shown_as, param)


def build_preference_rows(
    tokenizer: Any,
    preferences: Sequence[Preference],
    *,
    max_tokens: int,
    shown_as: str,
    over_long: OverLong = "refuse",
    param: str = "training_file",
) -> list[PreferenceRow]:
    """The same for preferences. `max_tokens` holds for the prompt with the longer answer.

    Raises: as build_rows.
    """

    def build(preference: Preference) -> PreferenceRow:
        row = build_preference_row(tokenizer, preference)
        longest = len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids))
        return row if longest <= max_tokens else _shorten_preference(row, longest, max_tokens, over_long)

    return _build_all(tokenizer, preferences, build, shown_as, param)


def build_row(tokenizer: Any, example: Example) -> Row:
    """Raises: UnusableTemplateError."""
    text, spans = trained_spans(tokenizer, example.messages, example.tools)
    input_ids, inside = _tokens(tokenizer, text, spans)
    labels = [token if trained else IGNORED for token, trained in zip(input_ids, inside, strict=True)]
    return Row(example.line, input_ids, labels)


def build_preference_row(tokenizer: Any, preference: Preference) -> PreferenceRow:
    """The prompt is what both conversations begin with, up to the answers: the generation prompt included.

    Each is tokenised whole. Where a tokenizer merges the prompt's end with an answer's first character, the token
    belongs to the answer, and with it what the other conversation has in its place.

    Raises: UnusableTemplateError.
    """
    chosen, chosen_start = _answered(tokenizer, preference, preference.preferred)
    rejected, rejected_start = _answered(tokenizer, preference, preference.rejected)
    if chosen == rejected:
        raise UnusableTemplateError("the model's chat template renders both outputs the same")
    start = _common_start(chosen[:chosen_start], rejected[:rejected_start])
    return PreferenceRow(preference.line, chosen[:start], chosen[start:], rejected[start:])


def _answered(tokenizer: Any, preference: Preference, answer: Message) -> tuple[list[int], int]:
    """The tokens of the conversation through the end of `answer`, and the position of the answer's first one."""
    messages = [*preference.messages, replace(answer, trained=True)]
    text, spans = trained_spans(tokenizer, messages, preference.tools)
    tokens, inside = _tokens(tokenizer, text, spans)
    end = max(position for position, trained in enumerate(inside) if trained) + 1
    return tokens[:end], inside.index(True)


def _tokens(tokenizer: Any, text: str, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
    """The tokens of a text, and which of them have characters in a span; the spans are in order."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [span.end for span in spans]
    inside = []
    for start, end in encoded["offset_mapping"]:
        next_span = bisect_right(ends, start)  # the first that ends after the token's start
        inside.append(next_span < len(spans) and spans[next_span].start < max(end, start + 1))
    return encoded["input_ids"], inside


class _Numbered(Protocol):
    @property
    def line(self) -> int: ...


Source = TypeVar("Source", bound=_Numbered)
Built = TypeVar("Built")


class _TooLongError(Exception):
    """Why a row cannot be made to fit."""


def _build_all(
    tokenizer: Any, sources: Sequence[Source], build: Callable[[Source], Built], shown_as: str, param: str
) -> list[Built]:
    if not tokenizer.chat_template:
        raise InvalidInputError("the model's tokenizer has no chat template", param="model")
    rows, problems, too_long = [], [], False
    for source in sources:
        try:
            rows.append(build(source))
        except (UnusableTemplateError, _TooLongError) as refusal:
            problems.append(Problem(source.line, str(refusal)))
            too_long = too_long or isinstance(refusal, _TooLongError)
    if problems:
        hint = {"hint": MEND_LENGTH} if too_long else {}
        raise TrainingDataError(shown_as, problems, param=param, **hint)
    return rows


def _shorten(row: Row, max_tokens: int, over_long: OverLong) -> Row:
    length = len(row.input_ids)
    _refuse_length(length, max_tokens, over_long)
    cut = Row(row.line, row.input_ids[:max_tokens], row.labels[:max_tokens], length - max_tokens)
    if not cut.trained_tokens:
        raise _TooLongError(f"{length} tokens, of which the first {max_tokens} hold nothing to learn")
    return cut


def _shorten_preference(row: PreferenceRow, longest: int, max_tokens: int, over_long: OverLong) -> PreferenceRow:
    _refuse_length(longest, max_tokens, over_long)
    room = max(0, max_tokens - len(row.prompt_ids))
    chosen, rejected = row.chosen_ids[:room], row.rejected_ids[:room]
    if chosen == rejected:
        raise _TooLongError(f"{longest} tokens, of which the first {max_tokens} are the same for both outputs")
    cut = len(row.chosen_ids) - len(chosen) + len(row.rejected_ids) - len(rejected)
    return PreferenceRow(row.line, row.prompt_ids, chosen, rejected, cut)


def _refuse_length(length: int, max_tokens: int, over_long: OverLong) -> None:
    if over_long == "refuse":
        raise _TooLongError(f"{length} tokens; at most {max_tokens} (training.max_tokens)")


def _common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((position for position, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
