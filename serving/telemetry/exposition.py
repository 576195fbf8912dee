"""/metrics as Prometheus reads it: numbers of all gateway processes, what lies behind them, the engine's own."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from sqlalchemy import func, select

from local_llm.hardware import GPU, gpus
from local_llm.state import Collection, Job, State
from serving.telemetry.metrics import Metrics
from serving.telemetry.series import Row, Series, Timing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Which gateway process counted: each starts at 0 by itself.
PROCESS = "process"

Snapshots = Mapping[str, Mapping[str, list[Row]]]


def write(metrics: Metrics, snapshots: Snapshots, more: Iterable[Metric]) -> bytes:
    """`snapshots` by process; `metrics` tells of the series' names and bounds only."""
    families = [_family(series, snapshots) for series in metrics.series()]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*families, *more]))
    return generate_latest(registry)


async def behind(state: State, up: Mapping[str, bool]) -> list[Metric]:
    """What there is behind the gateway; `up` tells of the parts."""
    counts, found = await asyncio.gather(asyncio.to_thread(_counts, state), asyncio.to_thread(gpus))
    return [_up(up), *counts, *(_gpu_families(found) if found else [])]


class _Collected:
    def __init__(self, families: list[Metric]):
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _family(series: Series, snapshots: Snapshots) -> Metric:
    labels = [*series.labels, PROCESS]
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    family = kinds[series.kind](series.name, series.about, labels=labels)
    for process, snapshot in sorted(snapshots.items()):
        for key, value in snapshot.get(series.name, []):
            whose = [*key, process]
            if isinstance(series, Timing):
                family.add_metric(whose, _buckets(series, value), value[-1])
            else:
                family.add_metric(whose, value)
    return family


def _buckets(series: Timing, row: list[float]) -> list[tuple[str, float]]:
    """Prometheus counts all that is below a bound."""
    buckets, sum_ = [], 0.0
    for bound, count in zip([*map(str, map(float, series.bounds)), "+Inf"], row[:-1], strict=True):
        sum_ += count
        buckets.append((bound, sum_))
    return buckets


def _up(up: Mapping[str, bool]) -> Metric:
    family = GaugeMetricFamily("local_llm_up", "Whether a part of the server answers.", labels=["part"])
    for part, answers in up.items():
        family.add_metric([part], int(answers))
    return family


def _counts(state: State) -> list[Metric]:
    with state.reading() as session:
        collections = session.scalar(select(func.count()).select_from(Collection)) or 0
        jobs = session.execute(select(Job.status, func.count()).group_by(Job.status)).all()
    family = GaugeMetricFamily("local_llm_jobs", "Fine-tuning jobs by status.", labels=["status"])
    for status, count in jobs:
        family.add_metric([status], count)
    return [GaugeMetricFamily("local_llm_collections", "Collections of documents.", value=collections), family]


def _gpu_families(found: list[GPU]) -> list[Metric]:
    """A figure that the driver does not tell is left out."""
    families: list[Metric] = []
    for name, about in (
        ("memory_used_bytes", "Memory in use."),
        ("memory_bytes", "Memory that it has."),
        ("utilization_ratio", "Share of the time in which it computed."),
        ("temperature_celsius", "Temperature."),
        ("power_watts", "Power drawn."),
    ):
        family = GaugeMetricFamily(f"local_llm_gpu_{name}", about, labels=["gpu", "name"])
        for gpu in found:
            value = getattr(gpu, name)
            if value is not None:
                family.add_metric([str(gpu.index), gpu.name], value)
        families.append(family)
    return families
