"""Every shape in which the API asks a model, on the real engine: tools, formats, log-probabilities, streams."""

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

pytestmark = pytest.mark.engine

BASE = "SmolLM2-135M-Instruct"
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"], "additionalProperties": False,
        },
    },
}  # fmt: skip
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


class City(BaseModel):
    city: Literal["Paris", "Rome"]
    kind: Literal["capital", "village"]


def chat(client: openai.OpenAI, **options: Any) -> Any:
    asked = {"model": BASE, "messages": QUESTION, "max_tokens": 60, "temperature": 0, **options}
    return client.chat.completions.create(**asked)


def complete(client: openai.OpenAI, **options: Any) -> Any:
    asked = {"model": BASE, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, **options}
    return client.completions.create(**asked)


@pytest.mark.parametrize(("choice", "reason"), [("required", "tool_calls"), (NAMED, "stop")])
def test_a_call_that_must_be_made_is_made_with_arguments_of_its_schema(
    client: openai.OpenAI, choice: Any, reason: str
) -> None:
    answer = chat(client, tools=[WEATHER], tool_choice=choice).choices[0]
    assert answer.finish_reason == reason
    (call,) = answer.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")

    pieces = [
        piece
        for chunk in chat(client, tools=[WEATHER], tool_choice=choice, stream=True)
        for piece in chunk.choices[0].delta.tool_calls or ()
    ]
    assert pieces[0].function.name == "get_weather"
    assert pieces[0].id
    arguments = "".join(piece.function.arguments or "" for piece in pieces)
    assert json.loads(arguments) == json.loads(call.function.arguments)


def test_a_model_may_leave_its_tools_alone_and_reads_what_they_said(client: openai.OpenAI) -> None:
    for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"}):
        answer = chat(client, tools=[WEATHER], max_tokens=4, **choice).choices[0].message
        assert answer.content
        assert not answer.tool_calls
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    said = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ]
    assert chat(client, messages=said, tools=[WEATHER], max_tokens=4).choices[0].message.content


def test_tools_of_another_form_are_told_and_not_passed_over(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"functions is not supported \(send tools\)"):
        chat(client, functions=[WEATHER["function"]])
    with pytest.raises(
        openai.BadRequestError, match=r"tools\.0\.type: Input should be 'function'; tools"
    ) as caught:
        chat(client, tools=[{"type": "custom", "custom": {"name": "x"}}])
    assert caught.value.param == "tools.0.type"


def test_a_schema_holds(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=BASE, messages=QUESTION, response_format=City, max_tokens=60, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, City)
    whole = chat(client, response_format={"type": "json_object"}, max_tokens=12).choices[0].message.content
    assert whole.lstrip().startswith("{")


def test_log_probabilities_come_with_their_alternatives(client: openai.OpenAI) -> None:
    (first, second) = chat(client, logprobs=True, top_logprobs=3, max_tokens=2).choices[0].logprobs.content
    for one in (first, second):
        assert one.logprob <= 0
        assert len(one.top_logprobs) == 3
        assert bytes(one.bytes).decode() == one.token
    told = complete(client, logprobs=2).choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 4
    streamed = list(chat(client, logprobs=True, max_tokens=2, stream=True))
    tokens = [one.token for chunk in streamed for one in getattr(chunk.choices[0].logprobs, "content", None) or ()]
    assert tokens == [first.token, second.token]


def test_several_answers_to_one_question_are_repeatable_by_their_seed(client: openai.OpenAI) -> None:
    def answers() -> list[str]:
        found = chat(client, n=3, seed=7, temperature=1, max_tokens=8).choices
        assert [choice.index for choice in found] == [0, 1, 2]
        return [choice.message.content for choice in found]

    texts = answers()
    assert len(set(texts)) > 1
    assert answers() == texts
    streamed: dict[int, str] = {}
    for chunk in chat(client, n=3, seed=7, temperature=1, max_tokens=8, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + (choice.delta.content or "")
    assert [streamed[index] for index in range(3)] == texts


def test_an_answer_ends_where_it_should(client: openai.OpenAI) -> None:
    answer = chat(client, stop=["\n", "."]).choices[0]
    assert answer.finish_reason == "stop"
    assert "." not in answer.message.content
    assert chat(client, max_completion_tokens=3, max_tokens=None).choices[0].finish_reason == "length"


def test_a_stream_ends_with_its_usage_if_asked(client: openai.OpenAI) -> None:
    chunks = list(chat(client, max_tokens=3, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3
    assert not any(chunk.usage for chunk in chunks[:-1])
    assert all(chunk.choices for chunk in chat(client, max_tokens=3, stream=True))


def test_a_bare_completion_has_its_shapes(client: openai.OpenAI) -> None:
    assert complete(client, echo=True).choices[0].text.startswith("The capital of France is")
    several = complete(client, prompt=["One, two,", "A, B,"], n=2, temperature=1, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert complete(client, prompt=[504, 3575, 282]).usage.prompt_tokens == 3
    streamed = "".join(chunk.choices[0].text for chunk in complete(client, stream=True))
    assert streamed == complete(client).choices[0].text


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"n": 0}, "n"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "?"}}}}, None),
    ],
)
def test_what_the_engine_refuses_is_a_bad_request_of_ours(
    client: openai.OpenAI, wrong: dict[str, Any], param: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, stream=stream, **wrong)
        assert caught.value.type == "invalid_request_error"
        assert caught.value.param == param


def test_a_prompt_that_is_too_long_has_the_code_that_clients_look_for(client: openai.OpenAI) -> None:
    long: Any = "word " * 9000
    for ask, param in (
        (lambda: chat(client, messages=[{"role": "user", "content": long}]), "messages"),
        (lambda: complete(client, prompt=long), "prompt"),
        (lambda: client.responses.create(model=BASE, input=long), "input"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", param)
