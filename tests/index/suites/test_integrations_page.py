"""What docs/integrations.md says is so."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "integrations.md"


def test_the_example_runs(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_LLM_HOME", str(home))
    [example] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {})
    [line] = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0\.\d\d  The battery charges in four hours\.  {'area': 'device', 'year': 2025}", line)


def test_the_table_counts_the_suites_tests() -> None:
    """A suite that lost tests, or of which we left some out, does not go unnoticed."""
    pytest.importorskip("haystack", reason="the development requirements are not installed")
    pytest.importorskip("langchain_tests", reason="the development requirements are not installed")
    from test_haystack_suite import TestHaystack
    from test_langchain_suite import TestLangChain

    for suite in (TestHaystack, TestLangChain):
        tests = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
        failing = [test for test in tests if any(mark.name == "xfail" for mark in getattr(test, "pytestmark", []))]
        base = next(base for base in suite.__mro__ if base.__module__.startswith(("haystack", "langchain_tests")))
        [row] = re.findall(rf"^\|.*`{base.__name__}`.*", PAGE.read_text(), re.MULTILINE)
        passed, total = (int(cell) for cell in row.split("|")[4:6])
        assert (passed, total) == (len(tests) - len(failing), len(tests))
        assert all(test.__name__ in row for test in failing)
