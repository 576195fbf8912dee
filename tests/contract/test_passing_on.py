"""Between the client and the engine: nothing is added, and nothing goes on that nobody waits for."""

import json
import re
import time
from typing import Any

import httpx
import openai
import pytest

from .conftest import RunningServer
from .test_survival import wait_for

pytestmark = pytest.mark.engine

BASE = "SmolLM2-135M-Instruct"
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "logprobs": True, "top_logprobs": 2}
FREED_SECONDS = 1.0


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "One, two,", "echo": True})]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_the_engines_byte_for_byte(
    server: RunningServer, path: str, body: dict[str, Any], stream: bool
) -> None:
    asked = {"model": BASE, "max_tokens": 6, "temperature": 0, "stream": stream, **body}
    if stream:
        asked["stream_options"] = {"include_usage": True}
    socket = httpx.HTTPTransport(uds=str(server.home / "run" / "engine.sock"))
    with httpx.Client(transport=socket, timeout=60) as direct:
        expected = direct.post(f"http://engine{path}", json=asked)
    answer = httpx.post(f"{server.url}{path}", json=asked, timeout=60)
    assert without_identity(answer.content) == without_identity(expected.content)
    assert answer.headers["content-type"] == expected.headers["content-type"]


def without_identity(body: bytes) -> bytes:
    return re.sub(rb'"(id)":"[^"]*"|"(created)":\d+|"(cached_tokens)":\d+', rb"", body)


def test_a_client_that_leaves_frees_the_engine_within_a_second(
    client: openai.OpenAI, server: RunningServer, figures: dict[str, object]
) -> None:
    stream = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "Tell a long story."}], max_tokens=3000, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    for _ in range(3):
        next(iter(stream))
    assert running(server) == 1
    stream.close()
    left = time.monotonic()
    wait_for(lambda: running(server) == 0, FREED_SECONDS)
    figures["from a client's leaving to its freed slot, seconds"] = round(time.monotonic() - left, 2)


def running(server: RunningServer) -> float:
    """Requests that the engine is at work on, as it says itself."""
    text = httpx.get(f"{server.url}/metrics").text
    return sum(float(value) for value in re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.M))


def test_a_batch_is_answered_from_end_to_end(client: openai.OpenAI) -> None:
    def line(number: int, url: str, body: dict[str, Any]) -> str:
        return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": url, "body": body})

    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    lines = [line(1, "/v1/chat/completions", chat), line(2, "/v1/chat/completions", {**chat, "temperature": 9})]
    file = client.files.create(file=("requests.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    def ended() -> bool:
        return client.batches.retrieve(batch.id).status not in ("validating", "in_progress", "finalizing")

    wait_for(ended)
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 1)
    (answer,) = map(json.loads, client.files.content(batch.output_file_id or "").text.splitlines())
    assert answer["custom_id"] == "r1"
    assert answer["response"]["body"]["choices"][0]["message"]["content"]
    (error,) = map(json.loads, client.files.content(batch.error_file_id or "").text.splitlines())
    assert error["custom_id"] == "r2"
    assert "temperature" in json.dumps(error)


def test_vectors_come_in_both_encodings(client: openai.OpenAI) -> None:
    def vectors(**options: Any) -> list[list[float]]:
        made = client.embeddings.create(model="all-MiniLM-L6-v2", input=["charging", "returns"], **options)
        assert made.usage.total_tokens > 0
        return [one.embedding for one in made.data]

    packed, plain = vectors(), vectors(encoding_format="float")  # the client asks for base64 by itself
    assert [pytest.approx(vector, abs=1e-5) for vector in plain] == packed
