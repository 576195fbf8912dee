"""A published adapter is whole, never changes, and nothing of one is left that was not published."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from local_llm.adapters import AdapterRegistry, AdapterRun, Published, checkpoint_name
from local_llm.errors import ConflictError, IntegrityError, InvalidInputError, ModelNotFoundError
from local_llm.locks import exclusive_lock
from local_llm.models import Model, ModelStore
from local_llm.permissions import Caller
from local_llm.servable import CONFIG
from local_llm.settings import Settings
from local_llm.state import Adapter, Job, JobCheckpoint, State

from ..handmade_adapters import lora, write_adapter, write_base

RUN = AdapterRun(
    data_sha256="d" * 64,
    settings={"learning_rate": 2e-4, "epochs": 3, "batch_size": 8},
    metrics={"examples": 120, "tokens": 4567, "final_loss": 0.5},
    versions={"peft": "0.21.2"},
)
Publish = Callable[..., Adapter]


@pytest.fixture
def registry(settings: Settings, state: State) -> AdapterRegistry:
    return AdapterRegistry(settings, state)


@pytest.fixture
def base(settings: Settings, state: State, tmp_path: Path) -> Model:
    return ModelStore(settings.place.models).import_folder(
        write_base(tmp_path / "tiny"), name="tiny", licence="Apache-2.0"
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


@pytest.fixture
def publish(registry: AdapterRegistry, base: Model, source: Path, admin: Caller) -> Publish:
    def call(name: str = "ft:tiny:local::one", run: AdapterRun = RUN, step_number: int | None = None) -> Adapter:
        return registry.publish(
            source, base=base, name=name, project_id=admin.project_id, run=run, step_number=step_number
        )

    return call


def folders(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.place.adapters.iterdir())


def test_a_name_holds_base_organization_and_suffix_and_is_new_each_time(registry: AdapterRegistry) -> None:
    name = registry.new_name("tiny", "support")
    assert name.startswith("ft:tiny:local:support:")
    assert name != registry.new_name("tiny", "support")
    assert registry.new_name("tiny", None).startswith("ft:tiny:local::")
    assert checkpoint_name(name, 12) == f"{name}:ckpt-step-12"
    with pytest.raises(InvalidInputError, match="suffix"):
        registry.new_name("tiny", "../x")


def test_a_published_adapter_is_found_with_its_files_manifest_and_card(
    registry: AdapterRegistry, publish: Publish, admin: Caller
) -> None:
    row = publish(step_number=6)
    assert registry.get(row.name, admin).step_number == 6
    path = registry.verify(row)
    manifest = registry.manifest(row)
    assert set(manifest["files"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in path.iterdir()} == {*manifest["files"], "manifest.json"}
    assert (manifest["name"], manifest["data_sha256"], manifest["step_number"]) == (row.name, "d" * 64, 6)
    assert manifest["lora"] == {"rank": 8, "alpha": 16, "rslora": False, "modules": ["q_proj"]}


@pytest.mark.parametrize("file", ["README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"])
def test_a_changed_file_is_noticed(registry: AdapterRegistry, publish: Publish, file: str) -> None:
    row = publish()
    with (registry.path(row.id) / file).open("ab") as handle:
        handle.write(b" ")
    with pytest.raises(IntegrityError, match="not the published one"):
        registry.verify(row)


def test_a_name_is_given_once(registry: AdapterRegistry, publish: Publish, settings: Settings) -> None:
    row = publish()
    with pytest.raises(ConflictError, match="already there"):
        publish()
    assert folders(settings) == [row.id]


def test_a_folder_that_a_killed_process_left_is_no_obstacle(
    registry: AdapterRegistry, publish: Publish, settings: Settings, state: State, admin: Caller
) -> None:
    killed = publish()
    with state.session() as session:  # as if it had died before the row
        session.delete(session.get_one(Adapter, killed.id))
    row = publish()
    assert [one.name for one in registry.list(admin)] == [row.name]
    registry.remove_abandoned()
    assert folders(settings) == [row.id]
    registry.verify(row)


def test_half_written_folders_are_removed_at_the_next_start(
    registry: AdapterRegistry, publish: Publish, settings: Settings
) -> None:
    row = publish()
    half = settings.place.adapters / ".staging-0123"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    registry.remove_abandoned()
    assert folders(settings) == [row.id]


def test_an_adapter_that_is_just_being_published_is_no_leftover(
    registry: AdapterRegistry, publish: Publish, settings: Settings
) -> None:
    """Another process holds the lock from the first byte to the row."""
    row = publish()
    unlisted = settings.place.adapters / "adapter-unlisted"
    cleaner = threading.Thread(target=registry.remove_abandoned)
    with exclusive_lock(settings.place.run / "adapters.lock", "a publication"):
        unlisted.mkdir()
        cleaner.start()
        cleaner.join(0.3)
        assert cleaner.is_alive()
        assert unlisted.exists()
    cleaner.join()
    assert folders(settings) == [row.id]


def test_what_the_engine_could_not_serve_leaves_nothing(
    registry: AdapterRegistry, base: Model, tmp_path: Path, settings: Settings, admin: Caller
) -> None:
    strange = write_adapter(tmp_path / "strange", lora("model.layers.9.self_attn.q_proj", 8, 8))
    for folder in (write_adapter(tmp_path / "dora", use_dora=True), strange):
        with pytest.raises(InvalidInputError):
            registry.publish(folder, base=base, name="ft:x", project_id=admin.project_id, run=RUN)
    assert (registry.list(admin), folders(settings)) == ([], [])


def test_a_deleted_adapter_is_gone_with_its_place_among_the_checkpoints(
    registry: AdapterRegistry, publish: Publish, settings: Settings, state: State, admin: Caller
) -> None:
    with state.session() as session:
        session.add(queued_job(admin.project_id))
        session.flush()
        for step, name in ((6, "ft:tiny:local::one:ckpt-step-6"), (12, "ft:tiny:local::one")):
            values = {"id": f"ckpt_{step}", "job_id": "ftjob-1", "step_number": step, "model_name": name}
            session.add(JobCheckpoint(**values, metrics={}, created_at=0))
    checkpoint, finished = publish("ft:tiny:local::one:ckpt-step-6", step_number=6), publish()
    # The oldest first, by name within a second.
    oldest_first = sorted((checkpoint, finished), key=lambda row: (row.created_at, row.name))
    assert [row.name for row in registry.list(admin)] == [row.name for row in oldest_first]

    registry.delete(checkpoint)
    registry.delete(checkpoint)  # another process may have been faster
    with pytest.raises(ModelNotFoundError):
        registry.get(checkpoint.name, admin)
    assert folders(settings) == [finished.id]
    with state.reading() as session:
        assert [row.id for row in session.query(JobCheckpoint)] == ["ckpt_12"]


def queued_job(project_id: str) -> Job:
    return Job(
        id="ftjob-1", project_id=project_id, model="tiny", training_file="file-1", seed=1, method={},
        hyperparameters={}, job_metadata={}, status="running", created_at=0,
    )  # fmt: skip


def test_an_adapter_of_another_project_is_not_found(
    registry: AdapterRegistry, publish: Publish, admin: Caller
) -> None:
    row = publish()
    stranger = Caller("proj_other", "admin")
    assert registry.list(stranger) == []
    with pytest.raises(ModelNotFoundError):
        registry.get(row.name, stranger)


class TestModelCard:
    def card(self, registry: AdapterRegistry, row: Adapter) -> str:
        return (registry.path(row.id) / "README.md").read_text()

    def test_it_says_what_it_is_how_it_was_made_and_how_to_use_it(
        self, registry: AdapterRegistry, publish: Publish, base: Model
    ) -> None:
        run = AdapterRun(**{**vars(RUN), "job_id": "ftjob-7"})
        card = self.card(registry, publish(run=run))
        for fact in (
            "# ft:tiny:local::one", '\nbase_model: "tiny"\n', base.manifest.sha256, "| rank | 8 |", "| alpha | 16;",
            "| method | supervised |", "d" * 64, "| examples | 120 |", "| tokens | 4567 |",
            "| learning_rate | 0.0002 |", "| final_loss | 0.5 |", "| peft | 0.21.2 |", "| job | ftjob-7 |",
            'model="ft:tiny:local::one"', "PeftModel.from_pretrained",
            "local-llm train export ft:tiny:local::one --output FOLDER",
            "the licence of `tiny` (noted as Apache-2.0) applies",
        ):  # fmt: skip
            assert fact in card, fact

    def test_the_code_in_it_is_code(self, registry: AdapterRegistry, publish: Publish) -> None:
        for block in self.card(registry, publish()).split("```python\n")[1:]:
            compile(block.partition("```")[0], "card", "exec")

    def test_of_an_imported_adapter_it_says_what_is_not_known(
        self, registry: AdapterRegistry, publish: Publish
    ) -> None:
        imported = AdapterRun(data_sha256="unknown", settings={"imported_from": "x"}, metrics={}, versions={})
        card = self.card(registry, publish(run=imported))
        assert "| method | unknown |" in card
        assert "| examples | unknown |" in card
        assert "| job | none here: imported |" in card
        assert "## Measured" not in card

    def test_a_checkpoint_says_so(self, registry: AdapterRegistry, publish: Publish) -> None:
        assert "A checkpoint, after step 6," in self.card(registry, publish(step_number=6))

    def test_no_value_breaks_out_of_its_cell(self, registry: AdapterRegistry, publish: Publish) -> None:
        odd = AdapterRun(**{**vars(RUN), "settings": {"note": "a | b\n# c", "list": [1, {"x": None}]}})
        card = self.card(registry, publish(run=odd))
        assert "| note | a \\| b # c |" in card
        assert f"| list | {json.dumps([1, {'x': None}])} |" in card


def test_what_is_published_tells_an_engine_how_large_ranks_are(
    registry: AdapterRegistry, base: Model, admin: Caller, tmp_path: Path
) -> None:
    assert registry.published(base.manifest.sha256) == Published(0, 0)
    for name, changes in (("one", {}), ("two", {"rank_pattern": {"q_proj": 8, "other": 24}})):
        registry.publish(
            write_adapter(tmp_path / name, **changes),
            base=base, name=f"ft:tiny:local::{name}", project_id=admin.project_id, run=RUN,
        )  # fmt: skip
    assert registry.published(base.manifest.sha256) == Published(2, 24)
    assert registry.published("another base") == Published(0, 0)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"r": "eight"}', '{"rank_pattern": {"q": 9}}', None])
def test_a_damaged_adapter_keeps_no_engine_from_starting(
    registry: AdapterRegistry, publish: Publish, base: Model, damage: str | None
) -> None:
    """One unreadable file ended the supervisor, and the server with it."""
    file = registry.path(publish().id) / CONFIG
    file.unlink()
    if damage is not None:
        file.write_text(damage)
    published = registry.published(base.manifest.sha256)
    assert published == Published(1, 8)
