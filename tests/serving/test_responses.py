"""/v1/responses through the real client: requests told as chats, answers and events as the client reads them."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel
from starlette.testclient import TestClient

from local_llm.permissions import Caller
from local_llm.profiles import Profile, ProfileStore
from local_llm.settings import Settings
from local_llm.state import State

from .conftest import BASE
from .recording_engine import SmallEngine, running
from .replies import Reply

PIXEL = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    "strict": True,
}


@pytest.fixture
def engine(settings: Settings) -> Iterator[SmallEngine]:
    small = SmallEngine()
    with running(small, settings.place.ensure().socket("engine")):
        yield small


def sent(engine: SmallEngine) -> dict[str, Any]:
    """The last chat that the engine was asked."""
    return next(body for path, body in reversed(engine.asked) if path == "/v1/chat/completions")


def comparable(response: Response) -> dict[str, Any]:
    """Without what is another each time."""
    seen = response.to_dict()
    for item in seen["output"]:
        item["id"] = "id"
        for part in item.get("content") or []:
            part.pop("parsed", None)
        item.pop("parsed_arguments", None)
    return {**seen, "id": "id", "created_at": 0, "completed_at": 0}


def streamed(client: openai.OpenAI, **request: Any) -> tuple[list[Any], Response]:
    with client.responses.stream(model=BASE, **request) as stream:
        events = list(stream)
    return events, events[-1].response


def test_a_question_is_answered_as_a_chat_would_answer_it(client: openai.OpenAI, engine: SmallEngine) -> None:
    engine.reply = Reply("Aye, captain.")
    response = client.responses.create(
        model="gpt-4o-mini", instructions="Be a pirate.", input="Hello", temperature=0.5, max_output_tokens=50,
        metadata={"ship": "Pearl"}, user="ana",
    )  # fmt: skip
    assert (response.output_text, response.status, response.model) == ("Aye, captain.", "completed", BASE)
    assert (response.metadata, response.instructions, response.temperature) == (
        {"ship": "Pearl"},
        "Be a pirate.",
        0.5,
    )
    assert response.usage is not None
    assert (response.usage.output_tokens, response.usage.input_tokens_details.cached_tokens) == (2, 3)
    assert response.usage.total_tokens == response.usage.input_tokens + 2
    asked = sent(engine)
    assert asked["messages"] == [
        {"role": "system", "content": "Be a pirate."}, {"role": "user", "content": "Hello"},
    ]  # fmt: skip
    assert (asked["temperature"], asked["max_completion_tokens"], asked["model"]) == (0.5, 50, BASE)
    assert asked["cache_salt"]
    assert "metadata" not in asked


REPLIES = {
    "text": (Reply("One. Two three."), {}),
    "cut off": (Reply("One two", finish_reason="length"), {}),
    "calls": (Reply(calls=[("weather", '{"town": "Ulm"}'), ("weather", '{"town": "Bonn"}')]), {"tools": [WEATHER]}),
    "text and a call": (Reply("Let me see.", calls=[("weather", '{"town": "Ulm"}')]), {"tools": [WEATHER]}),
    "reasoning": (Reply("Four.", reasoning="Two and two"), {"reasoning": {"effort": "low"}}),
    "nothing": (Reply(""), {}),
    "logprobs": (Reply("One two."), {"include": ["message.output_text.logprobs"], "top_logprobs": 1}),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_a_streamed_answer_is_the_one_that_is_not_streamed(
    client: openai.OpenAI, engine: SmallEngine, kind: str
) -> None:
    engine.reply, request = REPLIES[kind]
    whole = client.responses.create(model=BASE, input="Go", **request)
    events = list(client.responses.create(model=BASE, input="Go", stream=True, **request))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[0].response.status == "in_progress"
    assert events[-1].type == ("response.incomplete" if kind == "cut off" else "response.completed")
    assert comparable(events[-1].response) == comparable(whole)
    assert_accumulates(events)
    _, final = streamed(client, input="Go", **request)
    assert comparable(final) == comparable(whole)
    assert client.responses.retrieve(whole.id).output_text == whole.output_text


def assert_accumulates(events: list[Any]) -> None:
    """The deltas of each item make up what its end tells, and the ended items are the response's output."""
    texts: dict[tuple[int, str], str] = {}
    for event in events:
        kind = event.type.removeprefix("response.").rpartition(".")
        if kind[2] == "delta":
            key = (event.output_index, kind[0])
            texts[key] = texts.get(key, "") + event.delta
        elif kind[0] in ("output_text", "reasoning_text") and kind[2] == "done":
            assert texts[event.output_index, kind[0]] == event.text
        elif event.type == "response.function_call_arguments.done":
            assert texts[event.output_index, kind[0]] == event.arguments
    added = [event for event in events if event.type == "response.output_item.added"]
    done = sorted((e for e in events if e.type == "response.output_item.done"), key=lambda e: e.output_index)
    assert [event.output_index for event in added] == list(range(len(added)))
    assert [event.item.id for event in added] == [event.item.id for event in done]
    assert all(event.item.status == "in_progress" for event in added)
    assert [event.item.to_dict() for event in done] == [item.to_dict() for item in events[-1].response.output]


def test_events_come_in_the_order_of_the_api(client: openai.OpenAI, engine: SmallEngine) -> None:
    engine.reply = Reply("Let me see.", calls=[("weather", '{"town": "Ulm"}')], reasoning="Hm")
    events = client.responses.create(model=BASE, input="Go", stream=True, tools=[WEATHER])
    kinds = [event.type.removeprefix("response.") for event in events]
    assert list(dict.fromkeys(kinds)) == [
        "created", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done", "output_text.delta",
        "function_call_arguments.delta", "output_text.done", "function_call_arguments.done", "completed",
    ]  # fmt: skip


def test_a_length_that_is_reached_is_told(client: openai.OpenAI, engine: SmallEngine) -> None:
    engine.reply = Reply("One two", finish_reason="length")
    response = client.responses.create(model=BASE, input="Count", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.output[0].status, response.completed_at) == ("incomplete", None)


def test_functions_are_called_and_answered(client: openai.OpenAI, engine: SmallEngine) -> None:
    engine.reply = Reply(calls=[("weather", '{"town": "Ulm"}')])
    first = client.responses.create(
        model=BASE, input="How is Ulm?", tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}
    )
    call = first.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"town": "Ulm"})
    asked = sent(engine)
    assert asked["tools"] == [{"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}

    engine.reply = Reply("Rain.")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    for request in (
        {"previous_response_id": first.id, "input": [output]},
        {"input": [{"role": "user", "content": "How is Ulm?"}, *first.output, output]},
    ):
        second = client.responses.create(model=BASE, tools=[WEATHER], **request)
        assert second.output_text == "Rain."
        assert sent(engine)["messages"] == [
            {"role": "user", "content": "How is Ulm?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": call.call_id,
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"town": "Ulm"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.call_id, "content": "rain"},
        ]
    assert sent(engine)["tool_choice"] == "auto"


def test_a_schema_is_asked_for_as_chats_do(client: openai.OpenAI, engine: SmallEngine) -> None:
    class Town(BaseModel):
        name: str

    engine.reply = Reply('{"name": "Ulm"}')
    parsed = client.responses.parse(model=BASE, input="Which?", text_format=Town)
    assert parsed.output_parsed == Town(name="Ulm")
    response_format = sent(engine)["response_format"]
    assert (response_format["type"], response_format["json_schema"]["name"]) == ("json_schema", "Town")
    assert response_format["json_schema"]["schema"]["properties"]["name"]["type"] == "string"
    client.responses.create(model=BASE, input="JSON, please", text={"format": {"type": "json_object"}})
    assert sent(engine)["response_format"] == {"type": "json_object"}


def test_images_and_what_the_assistant_said_are_passed_on(client: openai.OpenAI, engine: SmallEngine) -> None:
    items: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Look"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I see."}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "And this?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
            ],
        },
    ]
    client.responses.create(model=BASE, input=items)
    assert sent(engine)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": "I see."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        },
    ]


def test_a_profile_may_be_the_model(
    client: openai.OpenAI, engine: SmallEngine, state: State, admin: Caller
) -> None:
    ProfileStore(state).set(admin, Profile("brief", "base", prompt="Be brief."))
    response = client.responses.create(model="brief", input="Hello")
    assert response.model == BASE
    assert sent(engine)["messages"][0] == {"role": "system", "content": "Be brief."}


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"role": "captain", "content": "Hi"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/x"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{**USER, "id": 3}]}, "input[0].id"),
        ({"input": [{**USER, "id": "m" * 257}]}, "input[0].id"),
        ({"input": [{"type": "reasoning", "summary": 3}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "content": [{"text": "x" * (1 << 20)}]}]}, "input[0].content"),
        ({"input": [{"type": "file_search_call", "queries": [3]}]}, "input[0].queries"),
        (
            {
                "input": [
                    {
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "x", "annotations": ["x" * (1 << 18)]}],
                    }
                ]
            },
            "input[0].content[0].annotations",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}]},
            "input[0].arguments",
        ),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools.0.vector_store_ids"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["a"]}] * 2}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"include": ["everything"]}, "include.0"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"messages": [USER]}, "messages"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_wrong_request_is_told_by_field(
    gateway: TestClient, engine: SmallEngine, body: dict[str, Any], param: str
) -> None:
    answer = gateway.post("/v1/responses", json={"model": BASE, "input": "Hi", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert engine.asked == []


def test_encrypted_reasoning_may_be_asked_for(client: openai.OpenAI, engine: SmallEngine) -> None:
    """Clients that keep nothing on the server ask for it with every request."""
    client.responses.create(model=BASE, input="Hi", store=False, include=["reasoning.encrypted_content"])


def test_what_is_unknown_and_what_is_not_here_are_told_apart(gateway: TestClient) -> None:
    unknown = gateway.post("/v1/responses", json={"model": BASE, "input": "Hi", "colour": 1}).json()["error"]
    assert (unknown["code"], unknown["message"]) == ("unknown_parameter", "Unknown parameter: 'colour'.")
    known = gateway.post("/v1/responses", json={"model": BASE, "input": "Hi", "prompt": {"id": "p"}}).json()[
        "error"
    ]
    assert known["code"] == "unsupported_parameter"


def test_unknown_models_and_an_engine_that_is_down_are_told_as_statuses_also_of_streams(
    client: openai.OpenAI,
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nope", input="Hi", stream=stream)
        with pytest.raises(openai.InternalServerError) as refusal:
            client.responses.create(model=BASE, input="Hi", stream=stream)
        assert refusal.value.status_code == 503


def test_an_engine_that_ends_in_mid_stream_is_an_event(client: openai.OpenAI, engine: SmallEngine) -> None:
    engine.reply = Reply("One two three.", breaks_after=3)
    events = list(client.responses.create(model=BASE, input="Go", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "failed"
    assert events[-1].response.error.code == "server_error"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(events[0].response.id)


def test_tokens_are_counted_as_the_engine_reads_them(client: openai.OpenAI, engine: SmallEngine) -> None:
    counted = client.responses.input_tokens.count(model=BASE, instructions="Be brief.", input="How are you?")
    response = client.responses.create(model=BASE, instructions="Be brief.", input="How are you?")
    assert response.usage is not None
    assert counted.input_tokens == response.usage.input_tokens
    assert client.responses.input_tokens.count(input="How are you?").object == "response.input_tokens"
