"""How training and the engine share the device: `gpu.sharing`.

`split`: side by side, each in its share of the memory. `separate`: each sees devices of its own.
`stop`: one after the other, by two locks in run/ that the kernel frees when their holders die:

    training-wants-device.lock   held by whoever trains, from before the wait for the device to after its use
    device.lock                  held by whoever is on the device: the engine, or training

Training takes the first, then waits for the second. The supervisor stops the engine while the first is held, and
then gives the second back; once the first is free it takes the second again and starts the engine. With no server
running the second is free, and training starts at once. Both are inherited by the process that uses the device:
a killed supervisor or trainer does not free it before what it started has ended.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from local_llm.errors import SettingsError
from local_llm.home import Home
from local_llm.locks import Lock, holder_of
from local_llm.settings import Settings

# Less would hold neither a model's weights nor a useful key-value cache.
SMALLEST_ENGINE_SHARE = 0.1
# The engine stays stopped between two jobs that follow each other: it takes longer to start than this.
LULL_SECONDS = 1.0

ENGINE = "the engine"


def require_sharing(settings: Settings) -> None:
    """Raises: SettingsError if `gpu.sharing` asks for what cannot be."""
    if settings.gpu.sharing == "split":
        _require_shares(settings)
    elif settings.gpu.sharing == "separate":
        _require_devices(settings)


def engine_memory_share(settings: Settings, gpu_memory_gib: float | None = None) -> float:
    """The share of the GPU's memory that is the engine's own. Where the size of that memory is known and the index
    server computes on it too, no more than what the encoder leaves: vLLM does not start unless its share is free.
    """
    whole = settings.engine.gpu_memory_share
    if gpu_memory_gib and settings.index.device != "cpu":
        whole = min(whole, 1 - settings.gpu.encoder_memory_gib / gpu_memory_gib)
    if settings.gpu.sharing == "split":
        whole -= settings.gpu.training_memory_share
    # Rounded: 0.85 - 0.4 is 0.44999999999999996.
    return round(whole, 4)


def engine_environment(settings: Settings) -> dict[str, str]:
    """The variables that show the serving processes their devices."""
    return _visible(settings, settings.gpu.engine_devices)


def training_environment(settings: Settings) -> dict[str, str]:
    """The variables that show training its devices. They count only if set before torch is imported."""
    return _visible(settings, settings.gpu.training_devices)


def training_job(settings: Settings) -> str | None:
    """The job for which the engine is stopped, as "job ftjob-…"; None if it is not."""
    return holder_of(_wants(settings.place)) if settings.gpu.sharing == "stop" else None


@contextmanager
def training_device(
    settings: Settings,
    job_id: str,
    *,
    talk: Callable[[str], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Iterator[tuple[int, ...]]:
    """Holds the device for a job with `gpu.sharing = "stop"`, first waiting for it; does nothing otherwise.

    `talk` hears, once each, what is waited for. `meanwhile` is called every training.poll_seconds of the wait, and
    what it raises ends it. Yields the descriptors that a child process which trains must inherit.

    Raises: SettingsError, as require_sharing().
    """
    require_sharing(settings)
    if settings.gpu.sharing != "stop":
        yield ()
        return
    wants, device = Lock(_wants(settings.place)), Lock(_device(settings.place))

    def wait_for(lock: Lock, reason: str) -> None:
        told = False
        while not lock.take(f"job {job_id}"):
            holder = holder_of(lock.path)
            if holder is not None and talk is not None and not told:
                talk(f'Waiting for {holder} to {reason} (gpu.sharing = "stop")')
                told = True
            if meanwhile is not None:
                meanwhile()
            time.sleep(settings.training.poll_seconds)

    with ExitStack() as stack:
        stack.callback(wants.give_back)  # the last to go: until then the supervisor does not look at the other
        wait_for(wants, "end its training")
        stack.callback(device.give_back)
        wait_for(device, "stop")
        yield (*wants.descriptors, *device.descriptors)


class EngineTurn:
    """The supervisor's side of `stop`: whether the device is the engine's. There is one for a home."""

    def __init__(self, home: Home):
        self._wants = _wants(home)
        self._device = Lock(_device(home))
        self._wanted_at = -math.inf

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the engine inherits, so that the device is not free before it has ended."""
        return self._device.descriptors

    def wanted_by(self) -> str | None:
        """The job that has the device or waits for it, as "job ftjob-…"; None if there is none."""
        job = holder_of(self._wants)
        if job is not None:
            self._wanted_at = time.monotonic()
        return job

    def begin(self) -> bool:
        """Whether the engine may start now: the device is ours, and no job has just had it. Never waits."""
        return time.monotonic() - self._wanted_at >= LULL_SECONDS and self._device.take(ENGINE)

    def end(self) -> None:
        """Gives the device back. Only once the engine has ended."""
        self._device.give_back()


def _wants(home: Home) -> Path:
    return home.run / "training-wants-device.lock"


def _device(home: Home) -> Path:
    return home.run / "device.lock"


def _visible(settings: Settings, devices: str) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": devices} if settings.gpu.sharing == "separate" else {}


def _require_shares(settings: Settings) -> None:
    whole, training = settings.engine.gpu_memory_share, settings.gpu.training_memory_share
    left = engine_memory_share(settings)
    if left <= SMALLEST_ENGINE_SHARE:
        raise SettingsError(
            f"engine.gpu_memory_share {whole:g} less gpu.training_memory_share {training:g} leaves the engine "
            f"{left:g} of the GPU's memory; expected more than {SMALLEST_ENGINE_SHARE}",
            hint='set gpu.training_memory_share lower, or gpu.sharing = "stop"',
        )


def _require_devices(settings: Settings) -> None:
    engine, training = _devices(settings.gpu.engine_devices), _devices(settings.gpu.training_devices)
    problem = None
    if not engine or not training:
        empty = "gpu.training_devices" if engine else "gpu.engine_devices"
        problem = f"{empty} names no device"
    elif both := sorted(engine & training):
        problem = f"gpu.engine_devices and gpu.training_devices both name {', '.join(both)}"
    elif len(engine) < settings.engine.gpus_here and not settings.engine.urls:
        problem = f"gpu.engine_devices names {len(engine)} for {settings.engine.gpus_here} of the engine"
    elif len(training) < settings.training.processes:
        problem = f"gpu.training_devices names {len(training)} for {settings.training.processes} training.processes"
    if problem:
        raise SettingsError(
            f'gpu.sharing is "separate", but {problem}',
            hint='set for instance gpu.engine_devices = "0" and gpu.training_devices = "1", or another gpu.sharing',
        )


def _devices(text: str) -> set[str]:
    return {name.strip() for name in text.split(",") if name.strip()}
