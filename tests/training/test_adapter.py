"""The trainer learns what it is given, all of it, and the same whatever fits through at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_llm.adapters import CONFIG, WEIGHTS, refuse_unservable
from local_llm.errors import LocalLLMError
from training.adapter import LOSS_LOG, Outcome, Recipe, _refuse_lost_rows, train_adapter
from training.data import Example, Message
from training.labels import Row, build_rows

RECIPE = Recipe(rank=8, alpha=16, learning_rate=1e-2, epochs=2, batch_size=8, seed=7)


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Row]:
    """Twenty rows: two full batches of eight and one of four."""
    examples = [
        Example(n, (Message("user", f"Question {n}?", False), Message("assistant", "Aye. " * (n % 5 + 1), True)))
        for n in range(1, 21)
    ]
    return build_rows(tokenizer, examples, max_tokens=200, shown_as="f")


@pytest.fixture
def train(
    tiny_folder: Path, tokenizer: Any, rows: list[Row], tmp_path: Path
) -> Callable[..., tuple[Outcome, Path]]:
    def run(recipe: Recipe, report: Callable[[int, int, float], None] = lambda *_: None) -> tuple[Outcome, Path]:
        output = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        output.mkdir()
        outcome = train_adapter(
            base=tiny_folder, base_name="tiny", tokenizer=tokenizer, rows=rows, recipe=recipe, output=output,
            report=report,
        )  # fmt: skip
        return outcome, output

    return run


def test_on_4_bit_weights_the_loss_falls_and_the_adapter_is_an_ordinary_one(
    train: Callable[..., tuple[Outcome, Path]],
) -> None:
    outcome, folder = train(replace(RECIPE, quantization="4bit"))
    assert outcome.final_loss < outcome.first_loss - 0.5
    assert "quant" not in (folder / CONFIG).read_text().replace('"qalora', "")
    refuse_unservable(folder, max_rank=8)
    _, plain = train(RECIPE)
    assert {name: tensor.shape for name, tensor in weights(folder).items()} == {
        name: tensor.shape for name, tensor in weights(plain).items()
    }


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / WEIGHTS)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / LOSS_LOG).read_text().splitlines()]


def test_the_loss_falls_every_row_is_trained_and_the_adapter_can_be_served(
    train: Callable[..., tuple[Outcome, Path]],
    rows: list[Row],
    tiny_folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    reported: list[tuple[int, int, float]] = []
    outcome, folder = train(RECIPE, lambda *step: reported.append(step))
    assert capfd.readouterr().out == "", "stdout belongs to the result"

    assert outcome.steps == 6  # 2 epochs of 3 batches
    assert [step[:2] for step in reported] == [(n, 6) for n in range(1, 7)]
    assert outcome.tokens == 2 * sum(len(row.input_ids) for row in rows)
    assert outcome.trained_tokens == 2 * sum(row.trained_tokens for row in rows)
    assert outcome.final_loss < outcome.first_loss - 0.5
    assert losses(folder) == [loss for _, _, loss in reported]

    config = refuse_unservable(folder, max_rank=8)
    assert config["base_model_name_or_path"] == "tiny"
    assert str(tiny_folder) not in (folder / CONFIG).read_text()
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    assert model.active_adapters == ["default"]


def test_a_batch_of_8_trains_what_8_accumulated_rows_train(train: Callable[..., tuple[Outcome, Path]]) -> None:
    """Rows differ in length and in trained tokens, so a mean of means would show."""
    _, whole = train(RECIPE)
    _, accumulated = train(replace(RECIPE, micro_batch_tokens=1))
    assert losses(accumulated) == pytest.approx(losses(whole), abs=0.02)  # bf16 rounds at 2**-8 of about 10
    one, other = weights(whole), weights(accumulated)
    for name, tensor in one.items():
        difference = (tensor - other[name]).norm() / tensor.norm()
        assert difference < 0.05, (name, difference)


def test_the_same_seed_trains_the_same_adapter(train: Callable[..., tuple[Outcome, Path]]) -> None:
    recipe = replace(RECIPE, epochs=1)
    (_, one), (_, same), (_, other) = train(recipe), train(recipe), train(replace(recipe, seed=8))
    assert losses(one) == losses(same)
    assert all((tensor == weights(same)[name]).all() for name, tensor in weights(one).items())
    assert losses(one) != losses(other)


def test_what_the_report_raises_ends_the_run(train: Callable[..., tuple[Outcome, Path]]) -> None:
    def report(done: int, total: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, report)


def test_a_loss_that_is_no_number_ends_the_run(train: Callable[..., tuple[Outcome, Path]]) -> None:
    with pytest.raises(LocalLLMError, match="the loss became"):
        train(replace(RECIPE, learning_rate=1e30))


def test_lost_rows_are_an_error() -> None:
    with pytest.raises(LocalLLMError, match="19 rows were trained; expected 20"):
        _refuse_lost_rows(19, 20)


@pytest.mark.parametrize(
    ("batch_size", "longest_tokens", "size"),
    [(8, 100, 8), (8, 300, 4), (8, 5000, 1), (6, 500, 3), (7, 400, 1), (256, 64, 32)],
)
def test_micro_batches_divide_the_batch_and_fit(batch_size: int, longest_tokens: int, size: int) -> None:
    recipe = replace(RECIPE, batch_size=batch_size, micro_batch_tokens=2048)
    assert recipe.micro_batch_size(longest_tokens) == size
