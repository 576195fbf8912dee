"""Exactly the assistant's turns are trained, with the token that ends them."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from local_llm.errors import InvalidInputError, TrainingDataError
from training.examples.data import Example, Message, Preference
from training.examples.labels import (
    IGNORED,
    PreferenceRow,
    build_preference_row,
    build_preference_rows,
    build_row,
    build_rows,
)
from training.examples.preview import pieces
from training.examples.turns import UnusableTemplateError

from . import templates

TOOLS = tuple(
    {"type": "function", "function": {"name": name, "description": None, "parameters": {"type": "object"}}}
    for name in ("weather", "clock")
)


def user(text: str) -> Message:
    return Message("user", text, trained=False)


def system(text: str) -> Message:
    return Message("system", text, trained=False)


def assistant(text: str, *, trained: bool = True) -> Message:
    return Message("assistant", text, trained)


def calling(*names: str, text: str = "", trained: bool = True) -> Message:
    calls = tuple(
        {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": {"city": "Köln"}}}
        for name in names
    )
    return Message("assistant", text, trained, tool_calls=calls)


def result(text: str, name: str = "weather") -> Message:
    return Message("tool", text, trained=False, tool_call_id=f"call_{name}")


def example(*turns: Message, line: int = 1, tools: tuple[dict[str, Any], ...] = ()) -> Example:
    return Example(line, turns, tools)


def with_template(tokenizer: Any, template: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"additional_special_tokens": templates.SPECIAL_TOKENS})
    other.chat_template = template
    return other


def trained_texts(tokenizer: Any, row: Any) -> list[str]:
    return [text for text, trained in pieces(tokenizer, row) if trained]


TURNS = (user("Hi there"), assistant("Hello!\n\nHow are you?  "), user("¿Qué tal? 日本🙂"), assistant("Bién 🙂"))
LONG = (
    system("Be brief."),
    user("a"),
    assistant("One."),
    user("b"),
    assistant("Two."),
    user("c"),
    assistant("Three."),
)
WITH_CALL = (
    user("Warm?"),
    calling("weather"),
    result("21"),
    assistant("Yes."),
    user("And now?"),
    assistant("Still."),
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>'
NO_THOUGHT = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "before", "end"),
    [
        (None, "", "<|im_end|>"),
        (templates.LLAMA3, "", "<|eot_id|>"),
        (templates.QWEN25, "", "<|im_end|>"),
        (templates.MISTRAL, " ", "</s>"),
        (templates.GEMMA, "", "<end_of_turn>"),
    ],
    ids=["chatml", "llama3", "qwen2.5", "mistral", "gemma"],
)
def test_labels_decode_to_the_assistants_turns_and_their_end(
    tokenizer: Any, template: str | None, before: str, end: str
) -> None:
    chosen = with_template(tokenizer, template or tokenizer.chat_template)
    row = build_row(chosen, example(*TURNS))
    trims = template in (templates.LLAMA3, templates.GEMMA)
    answers = [turn.content.strip() if trims else turn.content for turn in TURNS[1::2]]
    assert trained_texts(chosen, row) == [before + answer + end for answer in answers]
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        (templates.QWEN3, LONG, ["One.<|im_end|>", "Two.<|im_end|>", NO_THOUGHT + "Three.<|im_end|>"]),
        (
            templates.QWEN3,
            (
                user("a"),
                assistant("<think>\nOne?\n</think>\n\nOne."),
                user("b"),
                assistant("<think>\nTwo?\n</think>\n\nTwo."),
            ),
            ["One.<|im_end|>", "<think>\nTwo?\n</think>\n\nTwo.<|im_end|>"],
        ),
        # The system prompt moves on to the last question; the blank before earlier answers is not theirs alone.
        (templates.MISTRAL, LONG, [" One.</s>", " Two.</s>", " Three.</s>"]),
        (templates.PHI, LONG, ["One.<|end|>", "Two.<|end|>", "Three.<|end|>\n<|im_end|>"]),
        (templates.MARKED, LONG, ["One.<|im_end|>", "Two.<|im_end|>", "<think>\n</think>\nThree.<|im_end|>"]),
        (
            templates.MARKED_THROUGH,
            LONG,
            ["One.<|im_end|>", "Two.<|im_end|>", "<think>\n</think>\nThree.<|im_end|>"],
        ),
    ],
    ids=["qwen3", "qwen3 with thoughts", "mistral", "phi", "marks", "marks with the end"],
)
def test_turns_are_found_where_a_template_changes_them_once_others_follow(
    tokenizer: Any, template: str, turns: tuple[Message, ...], expected: list[str]
) -> None:
    chosen = with_template(tokenizer, template)
    row = build_row(chosen, example(*turns))
    assert trained_texts(chosen, row) == expected
    rendered = chosen.apply_chat_template([turn.for_template() for turn in turns], return_dict=False)
    assert row.input_ids == rendered, "the row is what the template makes of the whole conversation"


@pytest.mark.parametrize(
    "template", [None, templates.QWEN3, templates.MISTRAL, templates.MARKED, templates.MARKED_THROUGH]
)
def test_a_turn_of_weight_zero_is_context_only(tokenizer: Any, template: str | None) -> None:
    chosen = with_template(tokenizer, template or tokenizer.chat_template)
    turns = [replace(turn, trained=turn.content == "Two.") for turn in LONG]
    (trained,) = trained_texts(chosen, build_row(chosen, example(*turns)))
    assert trained.strip() in ("Two.<|im_end|>", "Two.</s>")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (templates.QWEN25, [CALL, "Yes.<|im_end|>", "Still.<|im_end|>"]),
        (templates.QWEN3, [CALL, "Yes.<|im_end|>", NO_THOUGHT + "Still.<|im_end|>"]),
        (
            templates.LLAMA3,
            ['{"name": "weather", "parameters": {"city": "Köln"}}<|eot_id|>', "Yes.<|eot_id|>", "Still.<|eot_id|>"],
        ),
        (
            templates.MISTRAL,
            ['[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Köln"}}]</s>', " Yes.</s>", " Still.</s>"],
        ),
    ],
    ids=["qwen2.5", "qwen3", "llama3", "mistral"],
)
def test_calls_of_tools_are_trained_and_their_results_are_not(
    tokenizer: Any, template: str, expected: list[str]
) -> None:
    chosen = with_template(tokenizer, template)
    row = build_row(chosen, example(*WITH_CALL, tools=TOOLS))
    assert trained_texts(chosen, row) == expected
    assert all(tool["function"]["name"] in chosen.decode(row.input_ids) for tool in TOOLS)


def test_several_calls_and_a_text_in_one_turn(tokenizer: Any) -> None:
    chosen = with_template(tokenizer, templates.QWEN25)
    turns = (
        user("?"),
        calling("weather", "clock", text="Let me look."),
        result("21"),
        result("noon", "clock"),
        assistant("."),
    )
    first, second = trained_texts(chosen, build_row(chosen, example(*turns, tools=TOOLS)))
    assert first.startswith("Let me look.\n<tool_call>")
    assert first.endswith('{"name": "clock", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>')
    assert second == ".<|im_end|>"


def test_a_row_may_end_with_a_call(tokenizer: Any) -> None:
    chosen = with_template(tokenizer, templates.QWEN3)
    row = build_row(chosen, example(user("Warm?"), calling("weather"), tools=TOOLS))
    assert trained_texts(chosen, row) == [NO_THOUGHT + CALL]


def test_a_greeting_before_any_question_is_trained_without_its_header(tokenizer: Any) -> None:
    row = build_row(tokenizer, example(assistant("Welcome!"), user("Hi"), assistant("Ho")))
    assert trained_texts(tokenizer, row) == ["Welcome!<|im_end|>", "Ho<|im_end|>"]


def test_the_row_is_what_serving_renders(tokenizer: Any) -> None:
    row = build_row(tokenizer, example(*TURNS))
    served = tokenizer.apply_chat_template([turn.for_template() for turn in TURNS], return_dict=False)
    assert row.input_ids == served


def test_the_newline_after_the_end_of_turn_is_not_trained(tokenizer: Any) -> None:
    row = build_row(tokenizer, example(user("Hi"), assistant("Ho")))
    assert tokenizer.decode(row.input_ids[-1]) == "\n"
    assert row.labels[-1] == IGNORED
    assert row.labels[-2] == tokenizer.eos_token_id


def test_a_token_that_begins_in_the_prompt_counts_to_the_answer(tokenizer: Any) -> None:
    """The newline that ends the header and those that begin the answer are one token."""
    row = build_row(tokenizer, example(user("Hi"), assistant("\n\nHo")))
    (trained,) = trained_texts(tokenizer, row)
    assert trained == "\n\n\nHo<|im_end|>"
    text = tokenizer.apply_chat_template(
        [user("Hi").for_template(), assistant("\n\nHo").for_template()], tokenize=False
    )
    assert tokenizer.decode(row.input_ids) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (templates.FORGETS_EARLIER_TURNS, r"leaves out the text of messages\[1\]"),
        (templates.ENDS_EARLIER_TURNS_OTHERWISE, "differently once others follow"),
        (templates.NEVER_ENDS, "does not mark the end"),
        (templates.REFUSES, "roles must alternate"),
        (templates.ADDS_NUMBERS, "refuses it: can only concatenate"),
    ],
)
def test_a_template_that_cannot_be_labelled_is_refused(tokenizer: Any, template: str, reason: str) -> None:
    with pytest.raises(UnusableTemplateError, match=reason):
        build_row(with_template(tokenizer, template), example(*TURNS))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "leaves out the tools"),
        (templates.GEMMA, "leaves out the tools"),
        (templates.QWEN25.replace("m.tool_calls", "m.calls"), r"leaves out the calls of messages\[1\]"),
        (
            templates.QWEN25.replace("+ m.content + '\n</tool_response>", "+ '</tool_response>"),
            r"text of messages\[2\]",
        ),
        (templates.CALLS_NEVER_END, "does not mark the end"),
    ],
    ids=["chatml", "gemma", "no calls", "no results", "no end"],
)
def test_a_template_that_drops_tools_is_refused(tokenizer: Any, template: str | None, reason: str) -> None:
    chosen = with_template(tokenizer, template or tokenizer.chat_template)
    with pytest.raises(UnusableTemplateError, match=reason):
        build_row(chosen, example(*WITH_CALL, tools=TOOLS))


def test_a_template_that_drops_the_text_beside_a_call_is_refused(tokenizer: Any) -> None:
    turns = (user("?"), calling("weather", text="Let me look."))
    with pytest.raises(UnusableTemplateError, match=r"leaves out the text of messages\[1\]"):
        build_row(with_template(tokenizer, templates.LLAMA3), example(*turns, tools=TOOLS))


def test_what_a_template_refuses_is_told_with_the_line(tokenizer: Any) -> None:
    chosen = with_template(tokenizer, templates.GEMMA)
    examples = [example(*TURNS), example(*LONG, line=7)]
    with pytest.raises(TrainingDataError, match=r"line 7: .*System role not supported") as caught:
        build_rows(chosen, examples, max_tokens=999, shown_as="f", param="validation_file")
    assert caught.value.param == "validation_file"
    assert caught.value.hint == "mend these lines and try again"


def test_a_tokenizer_without_template_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidInputError, match="no chat template"):
        build_rows(with_template(tokenizer, None), [example(*TURNS)], max_tokens=99, shown_as="f")


def test_examples_that_are_too_long_are_named_by_line_and_never_cut(tokenizer: Any) -> None:
    examples = [example(user("a"), assistant("word " * count), line=count) for count in (5, 100, 6, 200)]
    with pytest.raises(TrainingDataError) as caught:
        build_rows(tokenizer, examples, max_tokens=60, shown_as="f.jsonl")
    assert [problem.line for problem in caught.value.problems] == [100, 200]
    assert "at most 60" in caught.value.message
    assert caught.value.hint is not None
    assert "training.max_tokens" in caught.value.hint
    assert "training.over_long" in caught.value.hint


def test_examples_are_cut_at_the_end_where_that_is_asked_for_and_none_is_lost(tokenizer: Any) -> None:
    examples = [example(user("a"), assistant("word " * count), line=count) for count in (5, 100, 6, 200)]
    whole = build_rows(tokenizer, examples, max_tokens=999, shown_as="f")
    cut = build_rows(tokenizer, examples, max_tokens=60, shown_as="f", over_long="cut")
    assert [row.line for row in cut] == [row.line for row in whole]
    for row, original in zip(cut, whole, strict=True):
        assert row.input_ids == original.input_ids[:60]
        assert row.labels == original.labels[:60]
        assert len(row.input_ids) + row.cut_tokens == len(original.input_ids)
    assert [row.cut_tokens > 0 for row in cut] == [False, True, False, True]


def test_an_example_of_which_cutting_leaves_nothing_to_learn_is_refused(tokenizer: Any) -> None:
    examples = [example(user("a"), assistant("b")), example(user("word " * 100), assistant("b"), line=2)]
    with pytest.raises(TrainingDataError, match=r"line 2: .*the first 60 hold nothing to learn"):
        build_rows(tokenizer, examples, max_tokens=60, shown_as="f", over_long="cut")


# Preferences


def preference(
    preferred: Message, rejected: Message, *asked: Message, line: int = 1, tools: tuple[dict[str, Any], ...] = ()
) -> Preference:
    turns = (preferred, rejected, *(asked or (user("Hi"),)))
    first, second, *before = (replace(turn, trained=False) for turn in turns)
    return Preference(line, tuple(before), tools, first, second)


def answered(tokenizer: Any, row: PreferenceRow) -> tuple[str, str, str]:
    return tuple(tokenizer.decode(tokens) for tokens in (row.prompt_ids, row.chosen_ids, row.rejected_ids))


@pytest.mark.parametrize(
    ("template", "prompt", "preferred", "rejected"),
    [
        (
            templates.QWEN25,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            "Ho.<|im_end|>",
            "No!<|im_end|>",
        ),
        (
            templates.QWEN3,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            NO_THOUGHT + "Ho.<|im_end|>",
            NO_THOUGHT + "No!<|im_end|>",
        ),
        (templates.MISTRAL, "<s>[INST] Hi[/INST]", " Ho.</s>", " No!</s>"),
        (
            templates.GEMMA,
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
            "Ho.<end_of_turn>",
            "No!<end_of_turn>",
        ),
    ],
    ids=["qwen2.5", "qwen3", "mistral", "gemma"],
)
def test_a_preference_is_one_prompt_and_two_answers_with_their_ends(
    tokenizer: Any, template: str, prompt: str, preferred: str, rejected: str
) -> None:
    chosen = with_template(tokenizer, template)
    row = build_preference_row(chosen, preference(assistant("Ho."), assistant("No!")))
    assert answered(chosen, row) == (prompt, preferred, rejected)


def test_what_came_before_a_preference_is_context(tokenizer: Any) -> None:
    row = build_preference_row(tokenizer, preference(assistant("Ho."), assistant("No!"), *LONG[:-1]))
    prompt, preferred, _ = answered(tokenizer, row)
    assert "Two.<|im_end|>" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    assert preferred == "Ho.<|im_end|>"


def test_a_call_may_be_preferred_to_an_answer(tokenizer: Any) -> None:
    chosen = with_template(tokenizer, templates.QWEN25)
    row = build_preference_row(chosen, preference(calling("weather"), assistant("No idea."), tools=TOOLS))
    assert answered(chosen, row)[1:] == (CALL, "No idea.<|im_end|>")


@pytest.mark.parametrize(
    ("preferred", "rejected"), [("Ho", "No"), ("\n\nHo", "No"), ("\nHo", "\n\nNo"), ("🙂", "🙃")]
)
def test_prompt_and_answer_are_the_tokens_of_the_whole_conversation(
    tokenizer: Any, preferred: str, rejected: str
) -> None:
    """Also where the tokenizer merges the newline that ends the prompt with those that begin an answer."""
    row = build_preference_row(tokenizer, preference(assistant(preferred), assistant(rejected)))
    for text, tokens in ((preferred, row.chosen_ids), (rejected, row.rejected_ids)):
        conversation = [user("Hi").for_template(), assistant(text).for_template()]
        whole = tokenizer.apply_chat_template(conversation, return_dict=False)
        assert row.prompt_ids + tokens == whole[:-1], "all but the newline after the end of the turn"
        assert text in tokenizer.decode(tokens)


def test_long_preferences_are_refused_or_cut_by_the_longer_answer(tokenizer: Any) -> None:
    short, long = assistant("word " * 10), assistant("other " * 100)
    pairs = [preference(short, assistant("no")), preference(short, long, line=2)]
    with pytest.raises(TrainingDataError, match=r"line 2: .* at most 60") as caught:
        build_preference_rows(tokenizer, pairs, max_tokens=60, shown_as="f")
    assert "training.over_long" in (caught.value.hint or "")
    whole = build_preference_row(tokenizer, pairs[1])
    first, cut = build_preference_rows(tokenizer, pairs, max_tokens=60, shown_as="f", over_long="cut")
    assert (first.cut_tokens, cut.chosen_ids) == (0, whole.chosen_ids)
    assert len(cut.prompt_ids) + len(cut.rejected_ids) == 60
    assert cut.rejected_ids == whole.rejected_ids[: len(cut.rejected_ids)]
    assert cut.cut_tokens == len(whole.rejected_ids) - len(cut.rejected_ids)


def test_a_preference_of_which_cutting_leaves_no_difference_is_refused(tokenizer: Any) -> None:
    same = "word " * 50
    pairs = [
        preference(assistant(same + "yes"), assistant(same + "no"), line=3),
        preference(assistant("yes"), assistant("no"), user(same), line=4),
    ]
    with pytest.raises(TrainingDataError) as caught:
        build_preference_rows(tokenizer, pairs, max_tokens=60, shown_as="f", over_long="cut")
    assert [problem.line for problem in caught.value.problems] == [3, 4]
    assert "the same for both outputs" in caught.value.problems[0].reason


def test_outputs_that_are_rendered_the_same_are_refused(tokenizer: Any) -> None:
    chosen = with_template(tokenizer, templates.GEMMA)
    with pytest.raises(UnusableTemplateError, match="renders both outputs the same"):
        build_preference_row(chosen, preference(assistant("Ho"), assistant("Ho ")))
