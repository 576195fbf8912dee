"""Every wish in the body of a job is read or refused by name."""

from typing import Any

import pytest

from local_llm.errors import InvalidInputError
from training.hyperparameters import Hyperparameters
from training.job_request import request_from_api


def body(**values: Any) -> dict[str, Any]:
    return {"model": "m", "training_file": "file-1", **values}


def test_both_places_of_hyperparameters_in_the_api_are_read() -> None:
    asked = {"n_epochs": 2, "batch_size": "auto"}
    method = {"type": "supervised", "supervised": {"hyperparameters": asked}, "dpo": None}
    for given in ({"hyperparameters": asked}, {"method": method}, {"method": method, "hyperparameters": asked}):
        request = request_from_api(body(**given), model="tiny")
        assert request.hyperparameters == Hyperparameters(n_epochs=2)


def test_preference_training_is_asked_for_as_in_the_api() -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    request = request_from_api(body(method=method), model="tiny")
    assert (request.method, request.hyperparameters) == ("dpo", Hyperparameters(beta=0.2))
    assert request_from_api(body(method={"type": "dpo"}), model="tiny").hyperparameters.beta == "auto"


def test_our_own_options_are_kept_with_the_method() -> None:
    lora = {"rank": 8, "alpha": 16, "rslora": True, "quantization": "4bit", "early_stopping_epochs": None}
    request = request_from_api(body(lora=lora), model="tiny")
    assert (request.rank, request.alpha, request.rslora, request.quantization) == (8, 16, True, "4bit")
    kept = {"rank": 8, "alpha": 16, "rslora": True, "quantization": "4bit"}
    auto = Hyperparameters().to_json()
    assert request.method_json() == {"type": "supervised", "supervised": {"hyperparameters": auto}, "lora": kept}


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"training_file": 1}, "training_file"),
        ({"training_file": None}, "training_file"),
        ({"training_file": ""}, "training_file"),
        ({"validation_file": {}}, "validation_file"),
        ({"suffix": ["x"]}, "suffix"),
        ({"suffix": ""}, "suffix"),
        ({"seed": "1"}, "seed"),
        ({"seed": True}, "seed"),
        ({"method": "supervised"}, "method"),
        ({"method": {}}, "method.type"),
        ({"method": {"type": ["dpo"]}}, "method.type"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {"hyperparameters": {}}}}, "method.type"),
        ({"method": {"type": "supervised", "rlhf": {}}}, "method.rlhf"),
        ({"method": {"type": "supervised", "supervised": 1}}, "method.supervised"),
        ({"method": {"type": "supervised", "supervised": {"epochs": 1}}}, "method.supervised.epochs"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 0.1}}}},
            "method.supervised.hyperparameters.beta",
        ),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 0}}}},
            "method.dpo.hyperparameters.n_epochs",
        ),
        (
            {
                "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1}}},
                "hyperparameters": {"n_epochs": 2},
            },
            "hyperparameters",
        ),
        ({"hyperparameters": [1]}, "hyperparameters"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"integrations": "wandb"}, "integrations"),
        ({"lora": 16}, "lora"),
        ({"lora": {"rank": "16"}}, "lora.rank"),
        ({"lora": {"dropout": 0.1}}, "lora.dropout"),
        ({"n_epochs": 3}, "n_epochs"),
    ],
)
def test_a_body_that_cannot_be_right_names_its_field(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        request_from_api(body(**values), model="tiny")
    assert caught.value.param == param
