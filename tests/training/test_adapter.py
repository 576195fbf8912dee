"""The trainer learns what it is given, all of it, and the same whatever fits through at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_llm.adapters import CONFIG, refuse_unservable
from local_llm.errors import LocalLLMError
from training.adapter import Outcome, _refuse_lost_rows
from training.checkpoints import EPOCHS
from training.examples.data import Example, Message
from training.examples.labels import PreferenceRow, Row, build_rows
from training.failures import LossError
from training.progress import RunLog

from .runs import EVERY_STEP, RECIPE, SELDOM, Heard, same_weights, train, weights

Run = Callable[..., tuple[Outcome, Path]]


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Row]:
    """Twenty rows: two full batches of eight and one of four."""
    examples = [
        Example(n, (Message("user", f"Question {n}?", False), Message("assistant", "Aye. " * (n % 5 + 1), True)))
        for n in range(1, 21)
    ]
    return build_rows(tokenizer, examples, max_tokens=200, shown_as="f")


@pytest.fixture
def run(tiny_folder: Path, rows: list[Row], tmp_path: Path) -> Run:
    def start(**options: Any) -> tuple[Outcome, Path]:
        output = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return train(output, tiny_folder, options.pop("rows", rows), **options), output

    return start


def losses(folder: Path) -> list[float]:
    return [entry.loss for entry in RunLog(folder).steps()]


def test_the_loss_falls_every_row_is_trained_and_the_adapter_can_be_served(
    run: Run, rows: list[Row], tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    heard = Heard()
    outcome, folder = run(listener=heard, validation_rows=rows[:4])
    assert capfd.readouterr().out == "", "stdout belongs to the result"

    assert outcome.steps == outcome.step == 6  # 2 epochs of 3 batches
    assert [(metrics.step, total) for metrics, total in heard.steps] == [(n, 6) for n in range(1, 7)]
    assert outcome.tokens == 2 * sum(len(row.input_ids) for row in rows)
    assert outcome.trained_tokens == 2 * sum(row.trained_tokens for row in rows)
    assert outcome.final_loss < outcome.first_loss - 0.5
    assert losses(folder) == [metrics.loss for metrics, _ in heard.steps]
    assert all(metrics.accuracy is not None and 0 <= metrics.accuracy <= 1 for metrics, _ in heard.steps)

    assert [(metrics.epoch, metrics.step) for metrics in heard.epochs] == [(1, 3), (2, 6)]
    first, second = (metrics.valid_loss for metrics in heard.epochs)
    assert first is not None
    assert second is not None
    assert second < first
    assert heard.checkpoints == [3, 6]
    assert outcome.probe_loss_before != outcome.probe_loss_after
    assert outcome.peak_memory_bytes > 100 * 1024**2

    config = refuse_unservable(outcome.adapter, max_rank=8)
    assert config["base_model_name_or_path"] == "tiny"
    assert str(tiny_folder) not in (outcome.adapter / CONFIG).read_text()
    assert {name.rpartition(".")[2] for name in config["target_modules"]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), outcome.adapter)
    assert model.active_adapters == ["default"]


def test_on_4_bit_weights_the_loss_falls_and_the_adapter_is_an_ordinary_one(run: Run) -> None:
    outcome, _ = run(recipe=replace(RECIPE, quantization="4bit"))
    assert outcome.final_loss < outcome.first_loss - 0.5
    assert "quant" not in (outcome.adapter / CONFIG).read_text().replace('"qalora', "")
    refuse_unservable(outcome.adapter, max_rank=8)
    plain, _ = run()
    assert {name: tensor.shape for name, tensor in weights(outcome.adapter).items()} == {
        name: tensor.shape for name, tensor in weights(plain.adapter).items()
    }


def test_rslora_is_trained_and_said_so_in_the_configuration(run: Run) -> None:
    outcome, _ = run(recipe=replace(RECIPE, rslora=True, epochs=1))
    assert refuse_unservable(outcome.adapter, max_rank=8)["use_rslora"] is True


def test_a_batch_of_8_trains_what_8_accumulated_rows_train(run: Run) -> None:
    """Rows differ in length and in trained tokens, so a mean of means would show."""
    whole, folder = run()
    accumulated, other_folder = run(limits=replace(SELDOM, micro_batch_tokens=1))
    assert losses(other_folder) == pytest.approx(losses(folder), abs=0.02)  # bf16 rounds at 2**-8 of about 10
    one, other = weights(whole.adapter), weights(accumulated.adapter)
    for name, tensor in one.items():
        difference = (tensor - other[name]).norm() / tensor.norm()
        assert difference < 0.05, (name, difference)


def test_the_first_loss_is_the_bases_own(run: Run, rows: list[Row], tiny_folder: Path) -> None:
    """Computed by transformers' own loss, over the rows of the first batch and their padding."""
    import torch
    from transformers import AutoModelForCausalLM

    from training.batches import pad_right
    from training.order import epoch_order

    outcome, _ = run(recipe=replace(RECIPE, epochs=1))
    first = epoch_order([row.tokens for row in rows], batch_size=8, seed=RECIPE.seed, epoch=0)[:8]
    batch = pad_right([rows[index].columns() for index in first], 0)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    with torch.no_grad():
        expected = model(**batch).loss.item()
    assert outcome.first_loss == pytest.approx(expected, rel=0.005)  # the trainer computes in bf16


def test_the_same_seed_trains_the_same_adapter(run: Run) -> None:
    recipe = replace(RECIPE, epochs=1)
    (one, folder), (same, _), (_, other) = (
        run(recipe=recipe),
        run(recipe=recipe),
        run(recipe=replace(recipe, seed=8)),
    )
    assert same_weights(one.adapter, same.adapter)
    assert losses(folder) != losses(other)


def test_of_early_stopping_the_best_epoch_remains(run: Run, rows: list[Row], tiny_folder: Path) -> None:
    """A rate that ruins the model: the first epoch is the best, and after two worse ones it ends."""
    heard = Heard()
    recipe = replace(RECIPE, epochs=9, learning_rate=1.0, early_stopping_epochs=2)
    outcome, folder = run(recipe=recipe, validation_rows=rows[:4], listener=heard)
    validated = [metrics.valid_loss for metrics in heard.epochs]
    best = min(range(len(validated)), key=lambda index: validated[index] or 0)
    assert len(validated) == best + 3 < 9
    assert outcome.step == 3 * (best + 1)
    assert outcome.adapter == folder / EPOCHS / str(outcome.step)
    assert outcome.adapter.exists()
    # As if it had been killed before the adapter was published.
    again = train(folder, tiny_folder, rows, recipe=recipe, validation_rows=rows[:4])
    assert (again.steps, again.step, again.tokens) == (outcome.steps, outcome.step, outcome.tokens)


def test_what_the_listener_raises_ends_the_run_after_a_checkpoint(run: Run) -> None:
    def refuse(metrics: Any) -> None:
        raise OSError("enough")

    heard = Heard(raises=refuse)
    with pytest.raises(OSError, match="enough"):
        run(listener=heard)
    assert len(heard.steps) == 1


def test_a_loss_that_is_no_number_ends_the_run(run: Run) -> None:
    with pytest.raises(LossError, match="the loss became"):
        run(recipe=replace(RECIPE, learning_rate=1e30))


def test_lost_rows_are_an_error() -> None:
    with pytest.raises(LocalLLMError, match="19 rows were trained; expected 20"):
        _refuse_lost_rows(19, 20)


def test_preferences_are_learned_and_batches_of_pairs_add_up(run: Run, tokenizer: Any) -> None:
    pairs = [
        PreferenceRow(
            n,
            tokenizer(f"Question {n}?")["input_ids"],
            tokenizer("Aye. " * (n % 3 + 1))["input_ids"],
            tokenizer("No. " * (n % 4 + 1))["input_ids"],
        )
        for n in range(1, 13)
    ]
    recipe = replace(RECIPE, method="dpo", batch_size=4, learning_rate=1e-2, epochs=3)
    heard = Heard()
    outcome, folder = run(rows=pairs, recipe=recipe, listener=heard, validation_rows=pairs[:4])
    assert outcome.first_loss == pytest.approx(0.6931, abs=1e-3)  # ln 2: nothing is preferred yet
    assert outcome.final_loss < 0.4
    assert heard.steps[-1][0].reward_accuracy == 1.0
    assert heard.epochs[-1].valid_loss is not None
    assert heard.epochs[-1].valid_loss < 0.5
    refuse_unservable(outcome.adapter, max_rank=8)
    _, one_by_one = run(rows=pairs, recipe=recipe, limits=replace(EVERY_STEP, micro_batch_tokens=1))
    assert losses(one_by_one) == pytest.approx(losses(folder), abs=0.05)


def test_each_validation_pair_and_each_trained_pair_weighs_the_same(run: Run, tokenizer: Any) -> None:
    """Whatever the pairs are batched with: the last batch is short, and micro-batches differ in size."""
    pairs = [
        PreferenceRow(
            n,
            tokenizer(f"Question {n}?")["input_ids"],
            tokenizer("Aye. " * (9 if n == 5 else 1))["input_ids"],
            tokenizer(f"No {n}. " * (n % 3 + 1))["input_ids"],
        )
        for n in range(1, 12)
    ]
    backwards = [replace(row, chosen_ids=row.rejected_ids, rejected_ids=row.chosen_ids) for row in pairs[8:]]
    recipe = replace(RECIPE, method="dpo", batch_size=4, learning_rate=1e-2, epochs=1)

    def validated(rows: list[PreferenceRow], **values: Any) -> tuple[float, list[float | None]]:
        heard = Heard()
        run(rows=pairs, recipe=recipe, listener=heard, validation_rows=rows, **values)
        assert heard.epochs[-1].valid_loss is not None
        return heard.epochs[-1].valid_loss, [metrics.reward_accuracy for metrics, _ in heard.steps]

    whole, accuracies = validated(pairs[:8] + backwards)
    (first, _), (rest, _) = validated(pairs[:8]), validated(backwards)
    assert abs(first - rest) > 0.1  # or this test shows nothing
    assert whole == pytest.approx((8 * first + 3 * rest) / 11, abs=1e-3)
    longest = max(row.tokens for row in pairs)
    _, in_parts = validated(backwards, limits=replace(SELDOM, micro_batch_tokens=2 * longest))
    assert in_parts == pytest.approx(accuracies)
