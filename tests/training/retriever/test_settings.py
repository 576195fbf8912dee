"""Settings: everything wrong is told at once, and what is left open suits the model."""

from pathlib import Path

import pytest

from local_llm.errors import InvalidInputError
from training.retriever.choices import Chosen
from training.retriever.settings import RetrieverSettings, article, from_json, library_defaults


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidInputError) as error:
        RetrieverSettings(loss="triplet", batch_size=0, margin=2.0, epochs=0)  # type: ignore[arg-type]
    for word in ("'triplet'", "batch_size is 0", "margin is 2", "epochs is 0"):
        assert word in error.value.message


def test_settings_come_back_from_json_and_unknown_ones_do_not() -> None:
    settings = article(seed=3)
    assert from_json(settings.to_json()) == settings
    with pytest.raises(InvalidInputError, match="learning_speed"):
        from_json({"learning_speed": 1})


def test_temperature_rate_and_epochs_suit_the_model(tmp_path: Path) -> None:
    bge, other = tmp_path / "bge-base-en-v1.5", tmp_path / "all-MiniLM-L6-v2"
    assert Chosen.of(RetrieverSettings(), bge, 5000) == Chosen(0.02, 1e-5, 2)
    assert Chosen.of(RetrieverSettings(), other, 5000) == Chosen(0.02, 2e-5, 1)
    assert Chosen.of(RetrieverSettings(lora_rank=8), other, 5000).learning_rate == pytest.approx(2e-4)
    given = RetrieverSettings(temperature=0.1, learning_rate=3e-5, epochs=7)
    assert Chosen.of(given, bge, 10) == Chosen(0.1, 3e-5, 7)


def test_the_presets_are_what_they_are_named_after() -> None:
    assert (article().loss, article().batch_size, article().epochs) == ("cosine", 16, 3)
    library = library_defaults()
    assert (library.loss, library.temperature, library.negatives) == ("multiple-negatives", 0.05, 0)
    assert (library.batch_size, library.learning_rate, library.epochs) == (8, 5e-5, 3)
