"""Chat through the official client: four strategies, streaming and not, with citations."""

from typing import Any

import httpx
import openai
import pytest

from .conftest import QuickstartRun, RunningServer

pytestmark = pytest.mark.engine

QUESTION: Any = [
    {"role": "user", "content": "How long must I hold trigger and side key to factory reset a scanner?"}
]
BASE = "SmolLM2-135M-Instruct"
PROFILES = ["quillon-base", "quillon-fine-tuned", "quillon-rag", "quillon-hybrid"]


def ask(client: openai.OpenAI, model: str, **options: Any) -> Any:
    options = {"max_tokens": 100, "temperature": 0, **options}
    return client.chat.completions.create(model=model, messages=QUESTION, **options)


def test_a_hosted_name_stands_for_the_base_and_the_answer_names_the_real_one(client: openai.OpenAI) -> None:
    assert ask(client, "gpt-4o-mini", max_tokens=5).model == BASE
    assert ask(client, BASE, max_tokens=5).model == BASE


def test_the_adapter_answers_by_its_name(client: openai.OpenAI, quickstart: QuickstartRun) -> None:
    answer = ask(client, quickstart.result["fine_tuned_model"])
    assert answer.model == quickstart.result["fine_tuned_model"]
    assert answer.choices[0].message.content == quickstart.result["answers"]["fine_tuned"]


@pytest.mark.parametrize("model", PROFILES)
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, model: str) -> None:
    whole = ask(client, model).choices[0].message
    chunks = list(ask(client, model, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.content
    last = [chunk for chunk in chunks if chunk.choices][-1].choices[0]
    assert last.finish_reason in ("stop", "length")
    assert getattr(last.delta, "citations", None) == getattr(whole, "citations", None)


@pytest.mark.parametrize("model", ["quillon-rag", "quillon-hybrid"])
def test_citations_point_to_the_very_characters_on_our_server(
    client: openai.OpenAI, server: RunningServer, model: str
) -> None:
    message = ask(client, model).choices[0].message
    assert message.citations
    for citation in message.citations:
        assert f"[{citation['index']}]" in message.content
        page = httpx.get(citation["url"])
        assert page.status_code == 200
        marked = page.text.split('<mark id="cited">')[1].split("</mark>")[0]
        assert marked.replace("&quot;", '"').replace("&#x27;", "'").replace("&amp;", "&") == citation["quote"]
    for annotation in message.annotations:
        inside = annotation.url_citation
        assert message.content[inside.start_index : inside.end_index].strip().startswith("[")
        assert inside.url.startswith(server.url)


@pytest.mark.parametrize("model", ["quillon-base", "quillon-fine-tuned"])
def test_answers_without_context_carry_no_citations(client: openai.OpenAI, model: str) -> None:
    assert not hasattr(ask(client, model, max_tokens=10).choices[0].message, "citations")


def test_no_marker_goes_into_json(client: openai.OpenAI) -> None:
    schema = {
        "name": "meaning", "schema": {
            "type": "object", "properties": {"meaning": {"type": "string", "maxLength": 80}},
            "required": ["meaning"], "additionalProperties": False,
        },
    }  # fmt: skip
    answer = ask(client, "quillon-rag", response_format={"type": "json_schema", "json_schema": schema})
    assert answer.choices[0].message.content.strip().endswith("}")
    assert "[" not in answer.choices[0].message.content


def test_models_lists_base_adapters_and_profiles(client: openai.OpenAI, quickstart: QuickstartRun) -> None:
    names = {model.id for model in client.models.list()}
    assert {BASE, quickstart.result["fine_tuned_model"], *PROFILES} <= names
    assert client.models.retrieve(quickstart.result["fine_tuned_model"]).object == "model"


def test_an_unknown_model_is_the_clients_not_found(client: openai.OpenAI) -> None:
    for name in ("gpt-17", "ft:SmolLM2-135M-Instruct:local:x:zzzzzzzz", "../../etc/passwd"):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, name)
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"


def test_the_engines_refusals_come_in_our_envelope(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, BASE, temperature=-3)
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": "word " * 9000}])


def test_an_image_at_an_inner_address_is_never_fetched(client: openai.OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
    with pytest.raises(openai.BadRequestError, match="data: URL only"):
        client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": [image]}])  # type: ignore[list-item,misc]


def test_a_bare_completion_passes_through(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=BASE, prompt="The capital of France is", max_tokens=3, temperature=0)
    assert "Paris" in answer.choices[0].text


def test_routes_of_the_engine_that_are_not_ours_are_closed(server: RunningServer) -> None:
    for path in ("/v1/load_lora_adapter", "/tokenize", "/invocations", "/metrics/x", "/v1/unload_lora_adapter"):
        answer = httpx.post(f"{server.url}{path}", json={})
        assert answer.status_code in (404, 405)
        assert "error" in answer.json()
