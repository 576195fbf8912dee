"""What docs/engines.md shows can be used as it stands."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from local_llm.models import Manifest, Model
from local_llm.settings import Settings, load_settings
from serving import engine

PAGE = Path(__file__).parent.parent.parent / "docs" / "engines.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S)


@pytest.mark.parametrize("text", blocks("toml"))
def test_its_settings_are_settings(text: str) -> None:
    Settings.model_validate({"home": "/h", **tomllib.loads(text)})


def test_an_engine_elsewhere_is_told_what_one_here_is() -> None:
    [text] = blocks("bash")
    theirs = [word for word in shlex.split(text) if word.startswith("--")]
    model = Model(Path("/m"), Manifest("m", "base", "test", "MIT", 0, {}))
    ours = engine.command(load_settings(environment={"LOCAL_LLM_HOME": "/h"}), model, Path("/s"))
    names = {word for word in ours if word.startswith("--")}
    assert names - set(theirs) == {"--uds", "--enforce-eager"}
    assert set(theirs) - names == {"--host", "--port", "--ssl-certfile", "--ssl-keyfile"}
    assert engine.MODULE in text
    for variable in ("VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "HF_HUB_OFFLINE=1"):
        assert variable in text
