"""Where the assistant's turns lie in a rendered conversation, found through the tokenizer's own chat template.

The text is always the one that serving renders. Three ways, the first that works is taken:

1. Prefixes: a turn goes from the end of the generation prompt before it to the end of the conversation up to it.
   This holds for every template that renders a turn the same whatever follows.
2. Marks: the template's own `{% generation %}` blocks, taken through the end-of-turn token if they leave it out.
3. Probes: the turn's text is replaced by a probe; what stays the same around it shows where it is rendered. For
   templates without marks that change earlier turns once others follow (Qwen3 leaves out their thinking, Mistral
   moves the system prompt): trained is then what is left of the turn, and its end.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jinja2

from training.examples.data import Message

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it
# What a template may raise: jinja2's own, and Python's for what it does with a value that it did not expect.
TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, RecursionError)

REWRITTEN = (
    "the model's chat template renders a turn differently once others follow, so it cannot be told "
    "which tokens are the assistant's"
)
ENDLESS = "the model's chat template does not mark the end of the assistant's turn"


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a rendered conversation."""

    start: int
    end: int


class UnusableTemplateError(Exception):
    """Why a chat template cannot be used for a conversation."""


class _RewrittenError(UnusableTemplateError):
    """One way of finding turns does not work for this template and conversation."""

    def __init__(self) -> None:
        super().__init__(REWRITTEN)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except TEMPLATE_ERRORS as error:
        raise UnusableTemplateError(f"the model's chat template refuses it: {error}") from None


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template with the tools of one conversation."""

    tokenizer: Any
    tools: tuple[dict[str, Any], ...] = ()

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """Raises: UnusableTemplateError."""
        conversation = [message.for_template() for message in messages]
        with _told():
            return self.tokenizer.apply_chat_template(
                conversation, tools=list(self.tools) or None, tokenize=False, add_generation_prompt=prompt
            )

    @property
    def source(self) -> str:
        return self.tokenizer.get_chat_template(tools=list(self.tools) or None)

    def render_marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The text, and what lies in its `{% generation %}` blocks; empty ones are left out.

        In characters, because the token mask of `apply_chat_template` rounds them. Raises: UnusableTemplateError.
        """
        if not GENERATION.search(self.source):
            raise _RewrittenError
        from transformers.utils.chat_template_utils import render_jinja_template

        conversation = [message.for_template() for message in messages]
        with _told():
            texts, marks = render_jinja_template(
                conversations=[conversation],
                tools=list(self.tools) or None,
                chat_template=self.source,
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        return texts[0], [Span(start, end) for start, end in marks[0] if end > start]


def trained_spans(
    tokenizer: Any, messages: Sequence[Message], tools: tuple[dict[str, Any], ...] = ()
) -> tuple[str, list[Span]]:
    """The rendered conversation, and where its trained turns lie in it, each with its end-of-turn token.

    Raises: UnusableTemplateError, also if the template leaves out tools, their calls or their results.
    """
    template = Template(tokenizer, tools)
    text = template.render(messages)
    _refuse_what_is_left_out(template, messages, text)
    trained = [position for position, message in enumerate(messages) if message.trained]
    return text, [_find(template, messages, position, text) for position in trained]


def _find(template: Template, messages: Sequence[Message], position: int, text: str) -> Span:
    """Where the turn at `position` lies in `text`, by the first way that works."""
    refusals = []
    for way in (_by_prefix, _by_marks, _by_probe):
        try:
            span = way(template, messages, position, text)
            _refuse_endless(template, messages, position, text[span.start : span.end])
        except UnusableTemplateError as refusal:
            refusals.append(refusal)
        else:
            return span
    raise refusals[0]


# The three ways.


def _by_prefix(template: Template, messages: Sequence[Message], position: int, text: str) -> Span:
    head = _head(template, messages, position)
    through = text if position == len(messages) - 1 else template.render(messages[: position + 1])
    if not text.startswith(through):  # Phi ends the conversation, not each turn, with the end-of-text token
        through = through.rstrip().removesuffix(template.tokenizer.eos_token or "")
    if not (head and text.startswith(through) and through.startswith(head)):
        raise _RewrittenError
    return Span(len(head), len(through.rstrip()))  # the newline after the end of a turn belongs to the next one


def _by_marks(template: Template, messages: Sequence[Message], position: int, text: str) -> Span:
    turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
    marked, marks = template.render_marked(messages)
    if marked != text or len(marks) != len(turns):
        raise _RewrittenError
    mark = marks[turns.index(position)]
    through, marks_through = template.render_marked(messages[: position + 1])
    end_of_turn = through[marks_through[-1].end :].rstrip() if marks_through else ""
    if end_of_turn and text.startswith(end_of_turn, mark.end):
        return Span(mark.start, mark.end + len(end_of_turn))
    return Span(mark.start, mark.start + len(text[mark.start : mark.end].rstrip()))


def _by_probe(template: Template, messages: Sequence[Message], position: int, text: str) -> Span:
    probe = _unused(text)
    probed = [*messages[:position], _with_probe(messages[position], probe), *messages[position + 1 :]]
    before, after = _around(template.render(probed), probe)
    before_alone, after_alone = _around(template.render(probed[: position + 1]), probe)
    rest_of_turn = after_alone.rstrip()
    if not (text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text)):
        raise _RewrittenError
    if not (rest_of_turn and after.startswith(rest_of_turn)):
        raise _RewrittenError
    lead = _lead(template, messages, position, before, before_alone)
    return Span(len(before) - len(lead), len(text) - len(after) + len(rest_of_turn))


def _lead(template: Template, messages: Sequence[Message], position: int, before: str, before_alone: str) -> str:
    """What the turn holds before its probe: of what it would hold were it the last turn, as much as is left."""
    head = _head(template, messages, position)
    if head and before_alone.startswith(head):
        whole = before_alone.removeprefix(head)
        left = _common_end(before, whole).lstrip()  # the header before it may end in the same newlines
        header = head.removeprefix(template.render(messages[:position])).split("\n")[0]
        if left == whole.lstrip() or (header and before.removesuffix(left).rstrip().endswith(header)):
            return left
    if not messages[position].content.strip():
        raise _RewrittenError  # the probe is in the middle of a call
    return ""


def _head(template: Template, messages: Sequence[Message], position: int) -> str:
    """The conversation before a turn with the generation prompt; "" before the first message."""
    return template.render(messages[:position], prompt=True) if position else ""


def _with_probe(message: Message, probe: str) -> Message:
    """The probe stands for the turn's text or, where there is none, for the first function that it calls."""
    if message.content.strip():
        return replace(message, content=probe)
    first, *others = message.tool_calls
    return replace(message, tool_calls=(_renamed(first, probe), *others))


def _around(text: str, probe: str) -> tuple[str, str]:
    if text.count(probe) != 1:
        raise _RewrittenError
    before, _, after = text.partition(probe)
    return before, after


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-length - 1] == other[-length - 1]:
        length += 1
    return one[len(one) - length :]


# What a template must not do


def _refuse_endless(template: Template, messages: Sequence[Message], position: int, turn: str) -> None:
    """A model that is trained on turns without an end never stops."""
    message = messages[position]
    if not message.tool_calls and not turn.endswith(message.content.rstrip()):
        return
    # It may be that nothing follows the text: another text in its place shows what does.
    probe = _unused(turn)
    answer = Message("assistant", probe, trained=True)
    end = template.render([*messages[:position], answer]).rpartition(probe)[2].rstrip()
    special = tuple(str(token) for token in template.tokenizer.added_tokens_decoder.values() if token.special)
    if not end or not (turn.endswith(end) or (message.tool_calls and turn.endswith(special))):
        raise UnusableTemplateError(ENDLESS)


def _refuse_what_is_left_out(template: Template, messages: Sequence[Message], text: str) -> None:
    """Texts and names are replaced by probes: those that do not come up again were silently left out."""
    probe = _unused(text)
    tools = [_renamed(tool, f"{probe}_tool{number}_") for number, tool in enumerate(template.tools)]
    probed = [_with_all_probes(message, f"{probe}_{number}_") for number, message in enumerate(messages)]
    rendered = replace(template, tools=tuple(tools)).render(probed)
    if not all(_name(tool) in rendered for tool in tools):
        raise UnusableTemplateError("the model's chat template leaves out the tools")
    for position, message in enumerate(probed):
        if not all(_name(call) in rendered for call in message.tool_calls):
            raise UnusableTemplateError(f"the model's chat template leaves out the calls of messages[{position}]")
        if message.content.strip() not in rendered:
            raise UnusableTemplateError(f"the model's chat template leaves out the text of messages[{position}]")


def _with_all_probes(message: Message, probe: str) -> Message:
    calls = tuple(_renamed(call, f"{probe}call{number}_") for number, call in enumerate(message.tool_calls))
    return replace(message, tool_calls=calls, content=f"{probe}text_" if message.content.strip() else "")


def _name(tool_or_call: dict[str, Any]) -> str:
    return tool_or_call["function"]["name"]


def _renamed(tool_or_call: dict[str, Any], name: str) -> dict[str, Any]:
    return {**tool_or_call, "function": {**tool_or_call["function"], "name": name}}


def _unused(text: str) -> str:
    """A word that is not in the text, plain enough for every template."""
    number = 0
    while (probe := f"probe{number}zq") in text:
        number += 1
    return probe
