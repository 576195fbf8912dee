import pytest

from local_llm.errors import InvalidInputError
from serving.bodies import dump_json, parse_json_object


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
