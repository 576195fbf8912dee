"""The README's snippet works as printed."""

import re
import subprocess
import sys

import pytest

from .conftest import REPOSITORY, RunningServer, environment

pytestmark = pytest.mark.engine


def test_the_snippet_uploads_trains_and_chats_without_a_restart(server: RunningServer) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    variables = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none"}
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=REPOSITORY, env={**environment(server.home), **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "scanner-factory-reset.md" in done.stdout
    models = [model.id for model in server.client().models.list()]
    assert any(":support-tone:" in name for name in models)
