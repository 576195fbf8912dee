import asyncio
import time
from types import SimpleNamespace

import pytest

from local_llm.errors import InvalidInputError
from serving import bodies
from serving.bodies import LARGE_BYTES, MOST_PARTS, dump_json, parse_body, parse_json_object


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "expected an object"),
        (b"1", "expected an object"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"m": {"a": 1, "a": 2}}', "'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"a": 1e999}', "what JSON cannot"),
        (b'{"a": "\\ud800"}', "what JSON cannot"),
        (b"[" * 200_000, "nested|not JSON"),
    ],
)
def test_what_is_ambiguous_or_broken_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        parse_json_object(data)


def test_what_is_sent_on_reads_the_same() -> None:
    value = {"messages": [{"role": "user", "content": "Grüße\n\u2028"}], "temperature": 0, "n": None}
    assert parse_json_object(dump_json(value)) == value


@pytest.mark.parametrize("part", [b"{},", b"[],", b'{"a":1},'])
def test_a_body_of_nothing_but_structure_is_refused_before_it_is_built(
    part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 MiB of empty messages once held up every stream for seven seconds."""
    built: list[str] = []
    monkeypatch.setattr(bodies, "_DECODER", SimpleNamespace(decode=built.append))
    data = b'{"messages":[' + part * (16 * 1024**2 // len(part)) + b"{}]}"
    with pytest.raises(InvalidInputError, match=f"more than {MOST_PARTS:,} objects"):
        parse_json_object(data)
    assert not built


def test_a_long_text_may_hold_as_much_code_as_it_likes() -> None:
    value = {"input": 'if (a[0]) {b: "\\"}, ' * MOST_PARTS}
    assert parse_json_object(dump_json(value)) == value


def test_a_large_body_is_read_beside_the_event_loop() -> None:
    async def scenario() -> None:
        waited: list[float] = []

        async def look_on() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                waited.append(time.perf_counter() - began)

        looking = asyncio.create_task(look_on())
        data = dump_json({"messages": [{"role": "user"}] * (MOST_PARTS // 2 - 10)})
        assert len(data) > LARGE_BYTES
        await parse_body(data)
        looking.cancel()
        assert len(waited) > 3

    asyncio.run(scenario())


def test_a_key_that_is_there_twice_is_shown_cut() -> None:
    key = "k" * 5000
    with pytest.raises(InvalidInputError) as caught:
        parse_json_object(f'{{"{key}": 1, "{key}": 2}}'.encode())
    assert len(caught.value.message) < 200
    assert caught.value.param == key[:80]
