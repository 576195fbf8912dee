"""Jobs: one holder at a time, and whoever lost the lease changes nothing any more."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import ConflictError, InvalidInputError, LocalLLMError, NotFoundError
from local_llm.files import FINE_TUNE, FileStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings
from local_llm.state import Job, Project, State
from training import jobs
from training.hyperparameters import Hyperparameters
from training.jobs import JobRequest, LeaseLostError


@pytest.fixture
def file_id(settings: Settings, state: State, admin: Caller, training_file: Path) -> str:
    store = FileStore(settings, state)
    return store.add(training_file, filename="training.jsonl", purpose=FINE_TUNE, project_id=admin.project_id).id


def create(state: State, admin: Caller, file_id: str, **values: Any) -> Job:
    return jobs.create_job(state, admin, JobRequest(model="tiny", training_file=file_id, **values))


def messages(state: State, job: Job, admin: Caller) -> list[str]:
    """Oldest first."""
    return [event.message for event in reversed(jobs.list_events(state, job.id, admin, limit=100)[0])]


def test_of_two_claimants_one_wins(state: State, admin: Caller, file_id: str) -> None:
    for _ in range(5):
        create(state, admin, file_id)
    with ThreadPoolExecutor(8) as pool:
        leases = [lease for lease in pool.map(lambda _: jobs.claim_next(state), range(20)) if lease]
    assert len({lease.job_id for lease in leases}) == len(leases) == 5


def test_a_claimed_job_cannot_be_claimed_again(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    jobs.claim(state, job.id, "cli")
    with pytest.raises(ConflictError, match="is running"):
        jobs.claim(state, job.id, "cli")
    assert jobs.claim_next(state) is None


def test_a_fenced_out_holder_can_write_nothing(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    slow = jobs.claim_next(state, lease_seconds=-1)
    assert slow is not None
    successor = jobs.claim_next(state)
    assert successor is not None
    for write in (
        lambda: jobs.renew(state, slow),
        lambda: jobs.report_event(state, slow, "Step 1/2"),
        lambda: jobs.set_hyperparameters(state, slow, {}),
        lambda: jobs.succeed(state, slow, fine_tuned_model="ft:mine", trained_tokens=1),
        lambda: jobs.fail(state, slow, LocalLLMError("no")),
        lambda: jobs.put_back(state, slow, "again"),
    ):
        with pytest.raises(LeaseLostError):
            write()
    jobs.succeed(state, successor, fine_tuned_model="ft:theirs", trained_tokens=2)
    done = jobs.get_job(state, job.id, admin)
    assert (done.status, done.fine_tuned_model, done.lease) == ("succeeded", "ft:theirs", None)


def test_a_renewed_lease_is_not_taken_and_an_expired_one_is_good_until_it_is(
    state: State, admin: Caller, file_id: str
) -> None:
    create(state, admin, file_id)
    lease = jobs.claim_next(state, lease_seconds=-1)
    assert lease is not None
    jobs.renew(state, lease)
    assert jobs.claim_next(state) is None


def test_a_job_begun_three_times_fails(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    for _ in range(jobs.MAXIMUM_ATTEMPTS):
        assert jobs.claim_next(state, lease_seconds=-1) is not None
    assert jobs.claim_next(state) is None
    failed = jobs.get_job(state, job.id, admin)
    assert failed.status == "failed"
    assert failed.error == {
        "code": "server_error", "message": "the training process died 3 times; its log tells why", "param": None,
    }  # fmt: skip


def test_being_stopped_on_purpose_is_no_attempt(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    for _ in range(2 * jobs.MAXIMUM_ATTEMPTS):
        lease = jobs.claim_next(state)
        assert lease is not None
        jobs.put_back(state, lease, "stopped", counts=False)
    assert jobs.get_job(state, job.id, admin).status == "queued"


def test_a_cancelled_job_leaves_its_holder_without_a_lease(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    lease = jobs.claim_next(state)
    assert lease is not None
    assert jobs.cancel_job(state, job.id, admin).status == "cancelled"
    with pytest.raises(LeaseLostError):
        jobs.succeed(state, lease, fine_tuned_model="ft:x", trained_tokens=1)
    with pytest.raises(ConflictError, match="already cancelled"):
        jobs.cancel_job(state, job.id, admin)
    assert messages(state, job, admin)[-1] == "Fine-tuning job cancelled"


def test_only_a_dead_trainers_jobs_are_put_back(state: State, admin: Caller, file_id: str) -> None:
    mine, theirs = create(state, admin, file_id), create(state, admin, file_id)
    jobs.claim(state, mine.id, "trainer")
    jobs.claim(state, theirs.id, "cli")
    assert jobs.put_back_all(state, "trainer") == [mine.id]
    assert jobs.get_job(state, theirs.id, admin).status == "running"


def test_lists_are_the_newest_first_and_paged(state: State, admin: Caller, file_id: str) -> None:
    ids = {create(state, admin, file_id).id for _ in range(5)}
    seen, after, more = [], None, True
    while more:
        page, more = jobs.list_jobs(state, admin, after=after, limit=2)
        seen += [job.id for job in page]
        after = seen[-1]
    assert len(seen) == 5
    assert set(seen) == ids
    job = jobs.get_job(state, seen[0], admin)
    lease = jobs.claim(state, job.id, "cli")
    for number in range(5):
        jobs.report_event(state, lease, f"Step {number}", data={"step": number})
    newest, more = jobs.list_events(state, job.id, admin, limit=3)
    assert [event.message for event in newest] == ["Step 4", "Step 3", "Step 2"]
    assert more
    rest, more = jobs.list_events(state, job.id, admin, after=newest[-1].id, limit=10)
    assert [event.message for event in rest] == [
        "Step 1", "Step 0", "Fine-tuning job started", f"Created fine-tuning job: {job.id}",
    ]  # fmt: skip
    assert (newest[0].type, rest[-1].type, more) == ("metrics", "message", False)


def test_another_project_sees_neither_job_nor_file(state: State, admin: Caller, file_id: str) -> None:
    with state.session() as session:
        session.add(Project(id="proj_other", name="other", created_at=1, archived_at=None))
    stranger = local_admin("proj_other")
    job = create(state, admin, file_id)
    for look in (jobs.get_job, jobs.cancel_job, jobs.list_events):
        with pytest.raises(NotFoundError):
            look(state, job.id, stranger)
    assert jobs.list_jobs(state, stranger) == ([], False)
    with pytest.raises(InvalidInputError, match="does not exist") as caught:
        create(state, stranger, file_id)
    assert caught.value.param == "training_file"


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": "a/b"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"rank": 0}, "rank"),
        ({"method": "dpo"}, "method.type"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"validation_file": "file-none"}, "validation_file"),
    ],
)
def test_requests_that_cannot_be_right_name_their_field(
    state: State, admin: Caller, file_id: str, values: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        create(state, admin, file_id, **values)
    assert caught.value.param == param
    assert jobs.list_jobs(state, admin) == ([], False)


def test_a_file_of_another_purpose_is_refused(settings: Settings, state: State, admin: Caller) -> None:
    row = FileStore(settings, state).add(
        [b"x"], filename="a.txt", purpose="assistants", project_id=admin.project_id
    )
    with pytest.raises(InvalidInputError, match="'assistants'; expected 'fine-tune'"):
        create(state, admin, row.id)


def test_both_places_of_hyperparameters_in_the_api_are_read() -> None:
    asked = {"n_epochs": 2, "batch_size": "auto"}
    method = {"type": "supervised", "supervised": {"hyperparameters": asked}}
    for body in ({"hyperparameters": asked}, {"method": method}):
        request = jobs.request_from_api({"training_file": "file-1", "model": "m", **body}, model="tiny")
        assert request.hyperparameters == Hyperparameters(n_epochs=2)
    assert jobs.request_from_api({"method": {"type": "dpo"}}, model="tiny").method == "dpo"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"training_file": 1}, "training_file"),
        ({"training_file": "f", "suffix": ["x"]}, "suffix"),
        ({"training_file": "f", "seed": "1"}, "seed"),
        ({"training_file": "f", "method": "supervised"}, "method"),
        ({"training_file": "f", "hyperparameters": [1]}, "hyperparameters"),
        ({"training_file": "f", "metadata": "x"}, "metadata"),
    ],
)
def test_a_body_of_wrong_types_names_its_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        jobs.request_from_api(body, model="tiny")
    assert caught.value.param == param


def test_a_job_that_its_creator_runs_is_never_in_the_queue(state: State, admin: Caller, file_id: str) -> None:
    lease = jobs.create_claimed_job(state, admin, JobRequest("tiny", file_id), "cli")
    assert jobs.claim_next(state) is None
    assert jobs.load(state, lease).status == "running"


def test_a_seed_is_chosen_when_none_is_given(state: State, admin: Caller, file_id: str) -> None:
    assert 0 <= create(state, admin, file_id).seed < 2**31
    assert create(state, admin, file_id, seed=0).seed == 0
    assert time.time() - create(state, admin, file_id).created_at < 60
