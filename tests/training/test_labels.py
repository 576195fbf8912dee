"""Exactly the assistant's turns are trained, with the token that ends them."""

import copy
from typing import Any

import pytest

from local_llm.errors import InvalidInputError, TrainingDataError
from training.data import Example, Message
from training.labels import IGNORED, UnusableTemplateError, build_row, build_rows
from training.preview import describe, pieces

LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
FORGETS_EARLIER_TURNS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and not loop.last %}{{ '<a/>' }}"
    "{% else %}{{ '<' + m['role'] + '>' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
NEVER_ENDS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
REFUSES = "{{ raise_exception('roles must alternate') }}"


def user(text: str) -> Message:
    return Message("user", text, trained=False)


def assistant(text: str, *, trained: bool = True) -> Message:
    return Message("assistant", text, trained)


def example(*turns: Message, line: int = 1) -> Example:
    return Example(line, turns)


SPECIAL = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
]


def with_template(tokenizer: Any, template: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"additional_special_tokens": SPECIAL})
    other.chat_template = template
    return other


def trained_texts(tokenizer: Any, row: Any) -> list[str]:
    return [text for text, trained in pieces(tokenizer, row) if trained]


TURNS = (user("Hi there"), assistant("Hello!\n\nHow are you?  "), user("¿Qué tal? 日本🙂"), assistant("Bién 🙂"))


@pytest.mark.parametrize(
    ("template", "before", "end"),
    [
        (None, "", "<|im_end|>"),
        (LLAMA3, "", "<|eot_id|>"),
        (MISTRAL, " ", "</s>"),
    ],
    ids=["chatml", "llama3", "mistral"],
)
def test_labels_decode_to_the_assistants_turns_and_their_end(
    tokenizer: Any, template: str | None, before: str, end: str
) -> None:
    chosen = with_template(tokenizer, template or tokenizer.chat_template)
    row = build_row(chosen, example(*TURNS))
    # Llama 3's template trims what is said.
    answers = [turn.content.strip() if template == LLAMA3 else turn.content for turn in TURNS[1::2]]
    assert trained_texts(chosen, row) == [before + answer + end for answer in answers]
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))


def test_the_row_is_what_serving_renders(tokenizer: Any) -> None:
    row = build_row(tokenizer, example(*TURNS))
    served = tokenizer.apply_chat_template([turn.for_template() for turn in TURNS], return_dict=False)
    assert row.input_ids == served


def test_the_newline_after_the_end_of_turn_is_not_trained(tokenizer: Any) -> None:
    row = build_row(tokenizer, example(user("Hi"), assistant("Ho")))
    assert tokenizer.decode(row.input_ids[-1]) == "\n"
    assert row.labels[-1] == IGNORED
    assert row.labels[-2] == tokenizer.eos_token_id


def test_a_turn_of_weight_zero_is_context_only(tokenizer: Any) -> None:
    row = build_row(tokenizer, example(user("a"), assistant("no", trained=False), user("b"), assistant("yes")))
    assert trained_texts(tokenizer, row) == ["yes<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (FORGETS_EARLIER_TURNS, "differently once others follow"),
        (NEVER_ENDS, "does not mark the end"),
        (REFUSES, "roles must alternate"),
    ],
)
def test_a_template_that_cannot_be_labelled_is_refused(tokenizer: Any, template: str, reason: str) -> None:
    with pytest.raises(UnusableTemplateError, match=reason):
        build_row(with_template(tokenizer, template), example(*TURNS))


def test_a_tokenizer_without_template_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidInputError, match="no chat template"):
        build_rows(with_template(tokenizer, None), [example(*TURNS)], max_tokens=99, shown_as="f")


def test_examples_that_are_too_long_are_named_by_line_and_never_cut(tokenizer: Any) -> None:
    examples = [example(user("a"), assistant("word " * count), line=count) for count in (5, 100, 6, 200)]
    with pytest.raises(TrainingDataError) as caught:
        build_rows(tokenizer, examples, max_tokens=60, shown_as="f.jsonl")
    assert [problem.line for problem in caught.value.problems] == [100, 200]
    assert "at most 60" in caught.value.message


def test_preview_counts_what_is_trained(tokenizer: Any) -> None:
    rows = build_rows(tokenizer, [example(*TURNS), example(*TURNS, line=2)], max_tokens=999, shown_as="f")
    shown = describe(tokenizer, rows, 1)
    assert shown["examples"] == 2
    assert shown["trained_tokens"] == 2 * rows[0].trained_tokens
    assert "".join(piece["text"] for piece in shown["rows"][0]["pieces"]) == tokenizer.decode(rows[0].input_ids)
