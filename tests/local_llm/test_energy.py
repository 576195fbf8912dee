"""Energy is what drivers counted, across the ends of their counters, and nothing where they do not count."""

from dataclasses import dataclass, field
from pathlib import Path

from local_llm.energy import UNKNOWN, EnergyMeter, nvidia_gpus, powercap_zones, summed


@dataclass
class Handmade:
    """A counter that stands where it was set; none: it cannot be read."""

    name: str
    readings: list[float] = field(default_factory=list)
    wraps_at: float | None = None

    def read(self) -> float:
        if not self.readings:
            raise OSError("no reading")
        return self.readings[0]


def zone(folder: Path, number: str, name: str, microjoules: int) -> Path:
    made = folder / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text("10000000\n")
    return made


def test_packages_and_their_memory_count_and_what_is_within_them_does_not(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 1_000_000)
    zone(tmp_path, "0:0", "core", 5)
    dram = zone(tmp_path, "0:1", "dram", 2_000_000)
    zone(tmp_path, "1", "psys", 5)
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl:2").mkdir()  # one that tells nothing
    with EnergyMeter(powercap_zones(tmp_path)) as meter:
        (package / "energy_uj").write_text("4500000")
        (dram / "energy_uj").write_text("2250000")
        assert meter.facts() == {"energy_joules": 3.75, "energy_of": ["package-0", "dram"]}


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 9_000_000)
    with EnergyMeter(powercap_zones(tmp_path)) as meter:
        for reading in (9_500_000, 500_000, 9_900_000, 100_000):
            (package / "energy_uj").write_text(str(reading))
            found = meter.joules()
    assert found is not None
    assert round(found, 6) == 0.5 + 1.0 + 9.4 + 0.2


def test_after_its_end_a_meter_counts_no_more() -> None:
    counter = Handmade("GPU 0", [10.0])
    with EnergyMeter([counter]) as meter:
        counter.readings[:] = [30.0]
    counter.readings[:] = [90.0]
    assert meter.joules() == 20.0


def test_where_nothing_counts_nothing_is_told(tmp_path: Path) -> None:
    assert powercap_zones(tmp_path / "none") == []
    with EnergyMeter([]) as meter:
        assert meter.facts() == UNKNOWN


def test_counters_that_may_not_be_read_count_for_nothing(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 1)
    (package / "energy_uj").unlink()  # as for whoever may not read it
    assert powercap_zones(tmp_path) == []


def test_a_counter_that_fails_on_the_way_leaves_no_figure() -> None:
    counters = [Handmade("GPU 0", [1.0]), Handmade("GPU 1", [1.0])]
    with EnergyMeter(counters) as meter:
        counters[0].readings[:] = [5.0]
        counters[1].readings.clear()
        assert meter.joules() is None
    assert meter.facts() == UNKNOWN


def test_a_process_without_gpus_counts_none() -> None:
    assert nvidia_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_parts_are_summed_only_if_all_are_known() -> None:
    parts = [{"energy_joules": 1.5, "energy_of": ["GPU 0"]}, {"energy_joules": 2.0, "energy_of": ["GPU 0", "dram"]}]
    assert summed(parts) == {"energy_joules": 3.5, "energy_of": ["GPU 0", "dram"]}
    assert summed([*parts, UNKNOWN]) == summed([]) == UNKNOWN
