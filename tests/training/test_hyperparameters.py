"""`auto` gives what the vendor's cookbook gives; everything else has limits."""

from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from training.hyperparameters import Hyperparameters, auto_epochs, auto_multiplier, refuse_seed


@pytest.mark.parametrize(
    ("examples", "epochs"),
    [
        (10, 10),  # 3 * 10 < 100, 100 // 10
        (3, 25),  # 100 // 3 = 33, at most 25
        (33, 3),  # 3 * 33 = 99 < 100, 100 // 33
        (34, 3),
        (8_333, 3),  # 24,999
        (8_334, 2),  # 25,002 > 25,000, 25,000 // 8,334
        (100_000, 1),
    ],
)
def test_auto_epochs_are_the_cookbooks(examples: int, epochs: int) -> None:
    assert auto_epochs(examples) == epochs


def test_auto_learning_rate_is_the_usual_one_for_8b_and_larger_for_smaller_models() -> None:
    assert auto_multiplier(4096) == 1.0
    assert auto_multiplier(576) == 4.63  # (4096 / 576) ** 0.781


def test_what_was_asked_for_is_kept() -> None:
    asked = Hyperparameters(n_epochs=2, batch_size=4, learning_rate_multiplier=0.5)
    assert asked.resolve(1_000_000, 576).to_json() == asked.to_json()


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"n_epochs": 0}, "n_epochs"),
        ({"n_epochs": 51}, "n_epochs"),
        ({"n_epochs": True}, "n_epochs"),
        ({"n_epochs": "many"}, "n_epochs"),
        ({"batch_size": 257}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"learning_rate_multiplier": 0}, "learning_rate_multiplier"),
        ({"learning_rate_multiplier": float("inf")}, "learning_rate_multiplier"),
        ({"learning_rate_multiplier": "fast"}, "learning_rate_multiplier"),
        ({"learning_rate_multiplier": 10**400}, "learning_rate_multiplier"),
        ({"beta": 0}, "beta"),
        ({"beta": 2.1}, "beta"),
        ({"beta": False}, "beta"),
        ({"beta": None}, "beta"),
        ({"n_epochs": [3]}, "n_epochs"),
        ({"momentum": 1}, "momentum"),
    ],
)
def test_values_out_of_their_limits_are_refused_by_name(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Hyperparameters.from_json(values)
    assert caught.value.param == f"hyperparameters.{param}"


def test_only_preference_training_has_a_beta() -> None:
    asked = Hyperparameters(n_epochs=1, batch_size=8, learning_rate_multiplier=1.0)
    assert asked.for_method("dpo").to_json() == {**asked.to_json(), "beta": "auto"}
    assert asked.for_method("dpo").resolve(100, 4096).to_json() == {**asked.to_json(), "beta": 0.1}
    assert Hyperparameters(beta=0.3).for_method("dpo").resolve(100, 4096).beta == 0.3
    assert "beta" not in asked.for_method("supervised").resolve(100, 4096).to_json()
    with pytest.raises(InvalidInputError, match="beta is there for dpo"):
        Hyperparameters(beta="auto").for_method("supervised")


def test_what_was_resolved_is_read_again_as_it_is() -> None:
    resolved = Hyperparameters().for_method("dpo").resolve(500, 576)
    assert Hyperparameters.from_json(resolved.to_json()).resolve(10, 4096) == resolved


@pytest.mark.parametrize("seed", [-1, 2**31, True, 1.0])
def test_seeds_out_of_their_limits_are_refused(seed: Any) -> None:
    with pytest.raises(InvalidInputError, match="seed is"):
        refuse_seed(seed)
