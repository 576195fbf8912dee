"""Other projects' suites for stores run over an index of ours: here what they need of the environment."""

import os

import pytest

# Haystack reads it when it is imported: it would look for a home folder and report uses.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
# LangChain brings LangSmith along, which sends traces where these say so.
for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
    os.environ.pop(name, None)


def pytest_configure(config: pytest.Config) -> None:
    for marker in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{marker}: of a plugin that langchain-tests wants and that is off here")
