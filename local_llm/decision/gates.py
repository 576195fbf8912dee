"""What rules ways out before anything is weighed: the network, where data may be, the hardware."""

from dataclasses import dataclass
from typing import Literal

# hosted: a vendor's API. The others: this product, on a GPU or on processors alone.
Way = Literal["hosted", "local_gpu", "local_cpu"]
WAYS: tuple[Way, ...] = ("hosted", "local_gpu", "local_cpu")
GateName = Literal["air_gap", "residency", "no_gpu"]


@dataclass(frozen=True)
class Gate:
    """`closes`: ways that it rules out; none if it asks for attention only."""

    name: GateName
    closes: tuple[Way, ...]
    means: str


def gates(
    *, air_gapped: bool, residency: str | None, hosted_regions: tuple[str, ...], gpu: bool, gpu_told: bool
) -> tuple[Gate, ...]:
    """The gates that apply.

    `residency`: where data has to stay; None: anywhere. `hosted_regions`: where the vendor keeps it, by contract.
    `gpu_told`: `gpu` is what the user said; else what the driver shows on this machine.
    """
    found: list[Gate] = []
    if air_gapped:
        found.append(
            Gate("air_gap", ("hosted",), "no vendor can be reached: training, retrieval and serving run here")
        )
    if residency is not None:
        found.append(_residency(residency, hosted_regions))
    if not gpu:
        found.append(_no_gpu(gpu_told))
    return tuple(found)


def open_ways(found: tuple[Gate, ...]) -> tuple[Way, ...]:
    closed = {way for gate in found for way in gate.closes}
    return tuple(way for way in WAYS if way not in closed)


def _residency(residency: str, hosted_regions: tuple[str, ...]) -> Gate:
    if residency.casefold() in {region.casefold() for region in hosted_regions}:
        return Gate("residency", (), f"data stays in {residency}: the vendor, too, keeps it there, as you said")
    return Gate(
        "residency",
        ("hosted",),
        f"data stays in {residency}: neither examples nor questions may be sent to a vendor, unless its contract "
        f"keeps them there (--hosted-region {residency})",
    )


def _no_gpu(told: bool) -> Gate:
    seen = "there is no GPU" if told else "no NVIDIA GPU is seen on this machine"
    return Gate(
        "no_gpu",
        ("local_gpu",),
        f"{seen}: adapters train and models answer on processors only, many times slower, which small models "
        "bear; no figure that is measured so speaks of a GPU",
    )
