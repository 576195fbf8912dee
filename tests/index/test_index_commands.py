"""`local-llm index`, as a person or a script uses it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from local_llm.cli.app import run

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def box(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(home))


@pytest.mark.slow
def test_documents_in_passages_out(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    def result(*arguments: str) -> object:
        assert run(["index", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    path = str(write("battery.md", "# Battery\n\nThe battery charges in four hours.\n"))
    made = result("create", "handbook")
    assert isinstance(made, dict)
    assert made["id"].startswith("vs_")
    added = result("add", "handbook", path, "--allow", "group:support", "--attribute", "area=device")
    assert isinstance(added, dict)
    assert added["added"] == 1
    search = ("search", "handbook", "charging", "-k", "1")
    found = result(*search)
    assert isinstance(found, list)
    assert found[0]["text"] == "The battery charges in four hours."
    assert result(*search, "--principal", "group:support") == found
    assert result(*search, "--principal", "group:sales") == []
    assert result("stats", "handbook")["documents"] == 1  # type: ignore[index]
    assert result("remove", "handbook", "battery.md") == {"removed": 1}
    assert result(*search) == []


def test_add_creates_no_collection(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["index", "add", "nowhere", str(write("a.md", "text"))]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "local-llm index create nowhere" in captured.err
