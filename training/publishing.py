"""A job's models become visible: after each epoch as a checkpoint, at the end as the finished model."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select

from local_llm.adapters import AdapterRegistry, AdapterRun, checkpoint_name
from local_llm.permissions import Allow, shared
from local_llm.settings import Settings
from local_llm.state import Adapter, Job, State
from training import jobs, leases
from training.audience import audience_of
from training.leases import Lease
from training.preparation import Prepared
from training.progress import EpochMetrics
from training.recipe import Recipe

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
# As the hosted API keeps them.
CHECKPOINTS_KEPT = 3


class Publisher:
    """Publishes for one job, under its lease. Doing anything twice, after a crash, is harmless."""

    def __init__(
        self, settings: Settings, state: State, lease: Lease, job: Job, prepared: Prepared, recipe: Recipe
    ):
        assert job.output_name is not None
        self._registry = AdapterRegistry(settings, state)
        self._state = state
        self._lease = lease
        self._job = job
        self._name = job.output_name
        self._prepared = prepared
        self._recipe = recipe

    def publish_checkpoint(self, metrics: EpochMetrics, adapter: Path) -> None:
        """Publishes the model after an epoch; of more than three the oldest goes. Raises: LeaseLostError."""
        name = checkpoint_name(self._name, metrics.step)
        if metrics.step not in self._published():
            self._publish(name, adapter, checkpoint_metrics(metrics), metrics.step)
        self._list(metrics, name)
        self._keep_newest()

    def publish_finished(self, adapter: Path, metrics: EpochMetrics, facts: dict[str, Any]) -> Adapter:
        """Publishes the finished model, which is the checkpoint of its epoch as well. Raises: LeaseLostError."""
        row = self._published().get(None) or self._publish(self._name, adapter, facts, None)
        self.list_finished(metrics)
        return row

    def list_finished(self, metrics: EpochMetrics) -> None:
        """Makes the published model the checkpoint of its epoch. Raises: LeaseLostError."""
        self._list(metrics, self._name)
        self._keep_newest()

    def withdraw_all(self) -> None:
        """Deletes what an earlier attempt published, where it trained something else. Raises: LeaseLostError."""
        for row in jobs.checkpoints_of(self._state, self._job.id):
            leases.remove_checkpoint(self._state, self._lease, row.step_number)
        for adapter in self._published().values():
            self._registry.delete(adapter)

    def _list(self, metrics: EpochMetrics, name: str) -> None:
        leases.add_checkpoint(
            self._state,
            self._lease,
            step_number=metrics.step,
            model_name=name,
            metrics=checkpoint_metrics(metrics),
        )

    def _publish(self, name: str, adapter: Path, metrics: dict[str, Any], step_number: int | None) -> Adapter:
        run = AdapterRun(
            data_sha256=self._prepared.data_sha256,
            settings={**asdict(self._recipe), **self._prepared.resolved.to_json()},
            metrics=metrics,
            versions={name: version(name) for name in LIBRARIES},
            job_id=self._job.id,
        )
        return self._registry.publish(
            adapter,
            base=self._prepared.base,
            name=name,
            project_id=self._job.project_id,
            run=run,
            step_number=step_number,
            allow=self.allow(),
        )

    def allow(self) -> Allow:
        """Who may see what is published now: a file may have been restricted, or deleted, meanwhile."""
        return shared(self._prepared.allow, audience_of(self._state, self._job))

    def _keep_newest(self) -> None:
        """Whatever is published but not listed goes too: of an earlier attempt, killed between the two."""
        rows = jobs.checkpoints_of(self._state, self._job.id)
        for row in rows[:-CHECKPOINTS_KEPT]:
            leases.remove_checkpoint(self._state, self._lease, row.step_number)
        kept = {row.model_name for row in rows[-CHECKPOINTS_KEPT:]}
        for step, adapter in self._published().items():
            if step is not None and adapter.name not in kept:
                self._registry.delete(adapter)

    def _published(self) -> dict[int | None, Adapter]:
        return adapters_of(self._state, self._job.id)


def adapters_of(state: State, job_id: str) -> dict[int | None, Adapter]:
    """A job's published models by their step; the finished one by None."""
    with state.reading() as session:
        rows = session.scalars(select(Adapter).where(Adapter.job_id == job_id))
        return {row.step_number: row for row in rows}


def checkpoint_metrics(metrics: EpochMetrics) -> dict[str, Any]:
    """An epoch's metrics under the API's names."""
    named = {
        "step": metrics.step,
        "train_loss": metrics.train_loss,
        "train_mean_token_accuracy": metrics.train_accuracy,
        "valid_loss": metrics.valid_loss,
        "valid_mean_token_accuracy": metrics.valid_accuracy,
        "full_valid_loss": metrics.valid_loss,
        "full_valid_mean_token_accuracy": metrics.valid_accuracy,
    }
    return {name: value for name, value in named.items() if value is not None}


def withdraw_ended(settings: Settings, state: State) -> None:
    """Deletes what should not be published of jobs that ended without a model: all of failed ones, and of cancelled
    ones the finished model. Whoever failed or was cancelled may have been killed before it could do so itself.
    """
    unwanted = or_(Job.status == "failed", (Job.status == "cancelled") & Adapter.step_number.is_(None))
    with state.reading() as session:
        rows = list(session.scalars(select(Adapter).join(Job, Adapter.job_id == Job.id).where(unwanted)))
    registry = AdapterRegistry(settings, state)
    for row in rows:
        registry.delete(row)
