"""Clients who meet an engine that is down are told when to come back: neither at once nor never."""

import time

import pytest

from local_llm.settings import Settings
from serving import outlook


@pytest.mark.parametrize(("left", "told"), [(None, 2), (30, 30), (500, 60), (0.1, 2), (-100, 2)])
def test_when_to_come_back(settings: Settings, left: float | None, told: int) -> None:
    home = settings.place.ensure()
    assert outlook.retry_after_seconds(home) == 2, "nobody has said anything"
    outlook.write(home, outlook.Outlook(None if left is None else time.monotonic() + left, 106.0))
    assert outlook.read(home).start_took_seconds == 106.0
    assert abs(outlook.retry_after_seconds(home) - told) <= 1


@pytest.mark.parametrize("text", ["", "[]", '{"colour": 1}', "\0"])
def test_a_damaged_file_is_no_obstacle(settings: Settings, text: str) -> None:
    home = settings.place.ensure()
    (home.run / "engine.json").write_text(text)
    assert outlook.read(home) == outlook.Outlook()
    assert outlook.retry_after_seconds(home) == 2
