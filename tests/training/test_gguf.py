"""The embedded model comes out of its GGUF file as plain weights that know the capital of France."""

from pathlib import Path

import pytest

from local_llm.embedded import CHAT, locate
from local_llm.errors import InvalidInputError
from local_llm.fileio import read_json
from training.examples.labels import load_tokenizer
from training.gguf import write_as_safetensors


@pytest.mark.slow
def test_the_embedded_model_answers_after_conversion_and_names_no_path(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    write_as_safetensors(locate(CHAT), tmp_path)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")

    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    tokenizer = load_tokenizer(tmp_path)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, do_sample=False, max_new_tokens=12)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])

    config = read_json(tmp_path / "config.json")
    assert "quantization_config" not in config
    for path in tmp_path.glob("*.json"):
        assert str(locate(CHAT).parent) not in path.read_text(), path.name


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        write_as_safetensors(tmp_path / "none.gguf", tmp_path)


def test_another_kind_of_file_is_one_message(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(InvalidInputError, match="is not a GGUF file"):
        write_as_safetensors(file, tmp_path)


@pytest.mark.parametrize("size", [4, 100, 200_000])
def test_a_damaged_file_is_one_message(tmp_path: Path, size: int, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(locate(CHAT).read_bytes()[:size])
    with pytest.raises(InvalidInputError, match="cannot be read as a GGUF model") as caught:
        write_as_safetensors(file, tmp_path / "out")
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""
