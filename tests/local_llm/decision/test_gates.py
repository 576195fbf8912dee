"""Gates: what is ruled out before anything is weighed."""

from typing import Any

import pytest

from local_llm.decision.gates import gates, open_ways

OPEN: dict[str, Any] = {
    "air_gapped": False,
    "residency": None,
    "hosted_regions": (),
    "gpu": True,
    "gpu_told": True,
}


def test_without_gates_every_way_is_open() -> None:
    assert gates(**OPEN) == ()
    assert open_ways(()) == ("hosted", "local_gpu", "local_cpu")


@pytest.mark.parametrize(
    ("told", "name", "left"),
    [
        ({"air_gapped": True}, "air_gap", ("local_gpu", "local_cpu")),
        ({"residency": "EU"}, "residency", ("local_gpu", "local_cpu")),
        ({"residency": "EU", "hosted_regions": ("US",)}, "residency", ("local_gpu", "local_cpu")),
        ({"residency": "EU", "hosted_regions": ("US", "eu")}, "residency", ("hosted", "local_gpu", "local_cpu")),
        ({"gpu": False}, "no_gpu", ("hosted", "local_cpu")),
    ],
)
def test_each_gate_closes_its_ways(told: dict[str, Any], name: str, left: tuple[str, ...]) -> None:
    found = gates(**OPEN | told)
    assert [gate.name for gate in found] == [name]
    assert open_ways(found) == left


def test_processors_alone_are_always_left() -> None:
    found = gates(**OPEN | {"air_gapped": True, "residency": "EU", "gpu": False})
    assert [gate.name for gate in found] == ["air_gap", "residency", "no_gpu"]
    assert open_ways(found) == ("local_cpu",)


def test_no_gpu_says_who_says_so_and_that_figures_are_not_a_gpus() -> None:
    (told,) = gates(**OPEN | {"gpu": False})
    (seen,) = gates(**OPEN | {"gpu": False, "gpu_told": False})
    assert "is seen on this machine" in seen.means
    assert "is seen on this machine" not in told.means
    assert "no figure that is measured so speaks of a GPU" in told.means
