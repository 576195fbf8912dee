"""/v1/responses on the real engine, as the `openai` client reads it."""

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

pytestmark = pytest.mark.engine

BASE = "SmolLM2-135M-Instruct"
WEATHER: Any = {
    "type": "function", "name": "get_weather", "strict": False,
    "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"], "additionalProperties": False,
    },
}  # fmt: skip
SEARCHED = ["response.file_search_call.in_progress", "response.file_search_call.searching"]
PART = ["response.content_part.added", "response.output_text.delta", "response.output_text.done"]


class City(BaseModel):
    city: Literal["Paris", "Rome"]


def ask(client: openai.OpenAI, text: Any, **options: Any) -> Any:
    asked = {"model": BASE, "input": text, "max_output_tokens": 80, "temperature": 0, **options}
    return client.responses.create(**asked)


def streamed(client: openai.OpenAI, text: str, **options: Any) -> tuple[list[str], Any]:
    """The types of the events in their order, repeated ones once, and the response."""
    asked = {"model": BASE, "input": text, "max_output_tokens": 80, "temperature": 0, **options}
    kinds: list[str] = []
    with client.responses.stream(**asked) as stream:
        for number, event in enumerate(stream):
            assert event.sequence_number == number
            if not kinds or kinds[-1] != event.type:
                kinds.append(event.type)
        return kinds, stream.get_final_response()


def test_a_stream_has_its_events_in_order_and_says_what_the_whole_says(client: openai.OpenAI) -> None:
    kinds, response = streamed(client, "Say hi")
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", *PART,
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert response.output_text == ask(client, "Say hi").output_text
    assert response.usage.output_tokens > 0


def test_a_conversation_goes_on_from_what_is_kept(client: openai.OpenAI) -> None:
    first = ask(client, "My name is Ada.", max_output_tokens=16)
    second = ask(client, "What is my name?", previous_response_id=first.id, max_output_tokens=16)
    assert second.usage.input_tokens > first.usage.total_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    assert [item.content[0].text for item in client.responses.input_items.list(second.id)] == ["What is my name?"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        ask(client, "And now?", previous_response_id=second.id)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_a_function_is_called_and_its_output_read(client: openai.OpenAI, choice: Any) -> None:
    first = ask(client, "Weather in Paris?", tools=[WEATHER], tool_choice=choice)
    (call,) = first.output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")
    kinds, response = streamed(client, "Weather in Paris?", tools=[WEATHER], tool_choice=choice)
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert json.loads(response.output[0].arguments) == json.loads(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    last = ask(client, [output], previous_response_id=first.id, tools=[WEATHER], max_output_tokens=8)
    assert last.output[0].type == "message"


def test_a_search_is_told_and_cited(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="manual")
    text = b"# Battery\n\nThe battery charges in four hours from a wall socket.\n"
    client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("battery.md", text))
    options: Any = {
        "tools": [{"type": "file_search", "vector_store_ids": [store.id]}],
        "include": ["file_search_call.results"],
        "instructions": "Answer in the words of the context.",
    }
    question = "How long does the battery take to charge?"
    kinds, response = streamed(client, question, **options)
    assert kinds[2:7] == [
        "response.output_item.added", *SEARCHED, "response.file_search_call.completed",
        "response.output_item.done",
    ]  # fmt: skip
    assert "response.output_text.annotation.added" in kinds
    search, message = response.output
    assert [result.filename for result in search.results] == ["battery.md"]
    (part,) = message.content
    assert {annotation.type for annotation in part.annotations} == {"file_citation"}
    for annotation in part.annotations:
        assert annotation.filename == "battery.md"
        assert text.decode()[annotation.start : annotation.end] == annotation.quote
        assert part.text[annotation.index :].lstrip().startswith("[")
    whole = ask(client, question, **options)
    assert whole.output_text == response.output_text
    client.vector_stores.delete(store.id)


def test_a_schema_holds(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model=BASE, input="Paris?", text_format=City, max_output_tokens=60)
    assert isinstance(parsed.output_parsed, City)
