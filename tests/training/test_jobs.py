"""Jobs: one holder at a time, and whoever lost the lease changes nothing any more."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local_llm.errors import ConflictError, InvalidInputError, LocalLLMError, NotFoundError
from local_llm.files import FINE_TUNE, FileStore
from local_llm.permissions import Caller, local_admin
from local_llm.settings import Settings
from local_llm.state import Job, Project, State
from training import jobs, leases
from training.hyperparameters import Hyperparameters
from training.job_request import JobRequest
from training.jobs import KeyReusedError, Receipt
from training.leases import Lease, LeaseLostError

BOTH_DATABASES = True


@pytest.fixture
def file_id(settings: Settings, state: State, admin: Caller, training_file: Path) -> str:
    store = FileStore(settings, state)
    return store.add(training_file, filename="training.jsonl", purpose=FINE_TUNE, project_id=admin.project_id).id


def create(state: State, admin: Caller, file_id: str, **values: Any) -> Job:
    return jobs.create_job(state, admin, JobRequest(model="tiny", training_file=file_id, **values))


def messages(state: State, job: Job, admin: Caller) -> list[str]:
    """Oldest first."""
    return [event.message for event in reversed(jobs.list_events(state, job.id, admin, limit=100)[0])]


def test_jobs_of_one_second_are_taken_and_listed_in_the_order_in_which_they_came(
    state: State, admin: Caller, file_id: str
) -> None:
    made = []
    for _ in range(10):
        made.append(create(state, admin, file_id).id)
        time.sleep(0.002)
    assert [job.id for job in jobs.list_jobs(state, admin)[0]] == made[::-1]
    taken = [leases.claim_next(state) for _ in made]
    assert [lease.job_id for lease in taken if lease] == made


def test_of_two_claimants_one_wins(state: State, admin: Caller, file_id: str) -> None:
    for _ in range(5):
        create(state, admin, file_id)
    with ThreadPoolExecutor(8) as pool:
        won = [lease for lease in pool.map(lambda _: leases.claim_next(state), range(20)) if lease]
    assert len({lease.job_id for lease in won}) == len(won) == 5


def test_a_claimed_job_cannot_be_claimed_again(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    leases.claim(state, job.id, admin, "cli")
    with pytest.raises(ConflictError, match="held by another"):
        leases.claim(state, job.id, admin, "cli")
    assert leases.claim_next(state) is None


def test_a_fenced_out_holder_can_write_nothing(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    slow = leases.claim_next(state, lease_seconds=-1)
    assert slow is not None
    successor = leases.claim_next(state)
    assert successor is not None
    for write in (
        lambda: leases.renew(state, slow),
        lambda: leases.report_event(state, slow, "Step 1/2"),
        lambda: leases.set_hyperparameters(state, slow, {}),
        lambda: leases.set_output_name(state, slow, "ft:mine"),
        lambda: leases.set_micro_batch_tokens(state, slow, 1),
        lambda: leases.set_result_files(state, slow, ["file-mine"]),
        lambda: leases.note_progress(state, slow),
        lambda: leases.add_checkpoint(state, slow, step_number=1, model_name="ft:mine", metrics={}),
        lambda: leases.remove_checkpoint(state, slow, 1),
        lambda: leases.succeed(state, slow, fine_tuned_model="ft:mine", trained_tokens=1),
        lambda: leases.fail(state, slow, LocalLLMError("no")),
        lambda: leases.put_back(state, slow, "again"),
    ):
        with pytest.raises(LeaseLostError):
            write()
    leases.succeed(state, successor, fine_tuned_model="ft:theirs", trained_tokens=2)
    done = jobs.get_job(state, job.id, admin)
    assert (done.status, done.fine_tuned_model, done.lease) == ("succeeded", "ft:theirs", None)


def test_a_renewed_lease_is_not_taken_and_an_expired_one_is_good_until_it_is(
    state: State, admin: Caller, file_id: str
) -> None:
    create(state, admin, file_id)
    lease = leases.claim_next(state, lease_seconds=-1)
    assert lease is not None
    leases.renew(state, lease)
    assert leases.claim_next(state) is None


def test_a_job_begun_three_times_fails(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    for _ in range(leases.MAXIMUM_ATTEMPTS):
        assert leases.claim_next(state, lease_seconds=-1) is not None
    assert leases.claim_next(state) is None
    failed = jobs.get_job(state, job.id, admin)
    assert failed.status == "failed"
    assert failed.error == {
        "code": "server_error",
        "message": "the training process died 3 times without progress in between; its log tells why",
        "param": None,
    }


def test_being_stopped_on_purpose_is_no_attempt(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    for _ in range(2 * leases.MAXIMUM_ATTEMPTS):
        lease = leases.claim_next(state)
        assert lease is not None
        leases.put_back(state, lease, "stopped", counts=False)
    assert jobs.get_job(state, job.id, admin).status == "queued"


def test_a_cancelled_job_leaves_its_holder_without_a_lease(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    lease = leases.claim_next(state)
    assert lease is not None
    assert jobs.cancel_job(state, job.id, admin).status == "cancelled"
    with pytest.raises(LeaseLostError):
        leases.succeed(state, lease, fine_tuned_model="ft:x", trained_tokens=1)
    with pytest.raises(ConflictError, match="is cancelled; only one that is queued or running or paused"):
        jobs.cancel_job(state, job.id, admin)
    assert messages(state, job, admin)[-1] == "Fine-tuning job cancelled"


def test_only_deaths_without_progress_in_between_count(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    for _ in range(2):
        leases.put_back(state, leases.claim(state, job.id, admin, "trainer"), "died")
    lease = leases.claim(state, job.id, admin, "trainer")
    leases.note_progress(state, lease)
    leases.put_back(state, lease, "stopped", counts=False)
    assert jobs.get_job(state, job.id, admin).attempts == 0
    for _ in range(leases.MAXIMUM_ATTEMPTS):
        assert jobs.get_job(state, job.id, admin).status == "queued"
        leases.put_back(state, leases.claim(state, job.id, admin, "trainer"), "died")
    assert jobs.get_job(state, job.id, admin).status == "failed"


def test_the_death_of_the_trainer_itself_is_no_attempt(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    for _ in range(2 * leases.MAXIMUM_ATTEMPTS):
        leases.claim(state, job.id, admin, "trainer")
        assert leases.put_back_all(state, "trainer") == [job.id]
    assert jobs.get_job(state, job.id, admin).attempts == 0
    assert messages(state, job, admin)[-1].endswith("the job goes on from its last checkpoint")


def test_a_paused_job_waits_until_it_is_resumed(state: State, admin: Caller, file_id: str) -> None:
    job = create(state, admin, file_id)
    lease = leases.claim_next(state)
    assert lease is not None
    paused = jobs.pause_job(state, job.id, admin)
    assert (paused.status, paused.lease, paused.attempts, paused.finished_at) == ("paused", None, 0, None)
    assert "last checkpoint" in messages(state, job, admin)[-1]
    with pytest.raises(LeaseLostError, match="is paused"):
        leases.renew(state, lease)
    assert leases.claim_next(state) is None
    assert leases.put_back_all(state, "trainer") == []
    assert jobs.resume_job(state, job.id, admin).status == "queued"
    assert messages(state, job, admin)[-1] == "Fine-tuning job resumed"
    assert leases.claim_next(state) is not None


def test_a_job_waiting_to_begin_is_paused_and_a_paused_one_cancelled(
    state: State, admin: Caller, file_id: str
) -> None:
    job = create(state, admin, file_id)
    jobs.pause_job(state, job.id, admin)
    assert leases.claim_next(state) is None
    assert jobs.cancel_job(state, job.id, admin).status == "cancelled"


Change = Callable[[State, str, Caller], Job]


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        ([jobs.pause_job], jobs.pause_job),
        ([], jobs.resume_job),
        ([jobs.pause_job, jobs.resume_job], jobs.resume_job),
        ([jobs.cancel_job], jobs.cancel_job),
        ([jobs.cancel_job], jobs.pause_job),
        ([jobs.cancel_job], jobs.resume_job),
    ],
)
def test_a_change_at_the_wrong_time_names_the_status_and_changes_nothing(
    state: State, admin: Caller, file_id: str, steps: list[Change], last: Change
) -> None:
    job = create(state, admin, file_id)
    for step in steps:
        step(state, job.id, admin)
    before = jobs.get_job(state, job.id, admin).status, messages(state, job, admin)
    with pytest.raises(ConflictError, match=f"is {before[0]}; only one that is"):
        last(state, job.id, admin)
    assert (jobs.get_job(state, job.id, admin).status, messages(state, job, admin)) == before


@pytest.fixture
def lease(state: State, admin: Caller, file_id: str) -> Lease:
    return leases.claim(state, create(state, admin, file_id).id, admin, "trainer")


def test_checkpoints_are_listed_replaced_and_removed_by_step(state: State, admin: Caller, lease: Lease) -> None:
    for step in (4, 2, 6):
        leases.add_checkpoint(state, lease, step_number=step, model_name=f"ft:{step}", metrics={"train_loss": 1.5})
    again = leases.add_checkpoint(
        state, lease, step_number=4, model_name="ft:new", metrics={"train_loss": float("nan"), "valid_loss": 2.0}
    )
    assert [row.step_number for row in jobs.checkpoints_of(state, lease.job_id)] == [2, 4, 6]
    page, more = jobs.list_checkpoints(state, lease.job_id, admin, limit=2)
    assert ([row.step_number for row in page], more) == ([6, 4], True)
    assert (page[1].id, page[1].model_name) == (again.id, "ft:new")
    assert page[1].metrics == {"train_loss": None, "valid_loss": 2.0}
    rest, more = jobs.list_checkpoints(state, lease.job_id, admin, after=page[1].id)
    assert ([row.step_number for row in rest], more) == ([2], False)
    for _ in range(2):
        leases.remove_checkpoint(state, lease, 4)
    assert [row.step_number for row in jobs.checkpoints_of(state, lease.job_id)] == [2, 6]


def test_a_checkpoint_of_another_job_is_no_place_in_the_list(
    state: State, admin: Caller, file_id: str, lease: Lease
) -> None:
    other = leases.claim(state, create(state, admin, file_id).id, admin, "trainer")
    theirs = leases.add_checkpoint(state, other, step_number=1, model_name="ft:x", metrics={})
    with pytest.raises(NotFoundError) as caught:
        jobs.list_checkpoints(state, lease.job_id, admin, after=theirs.id)
    assert caught.value.param == "after"


def test_a_failed_job_has_no_checkpoints(state: State, admin: Caller, lease: Lease) -> None:
    leases.add_checkpoint(state, lease, step_number=1, model_name="ft:x", metrics={})
    leases.put_back(state, lease, "died")
    again = leases.claim(state, lease.job_id, admin, "trainer")
    assert len(jobs.checkpoints_of(state, lease.job_id)) == 1
    leases.fail(state, again, LocalLLMError("no"))
    assert jobs.checkpoints_of(state, lease.job_id) == []


def test_what_is_trained_with_is_shown_in_both_places(state: State, admin: Caller, lease: Lease) -> None:
    resolved = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.5}
    leases.set_hyperparameters(state, lease, resolved)
    leases.set_output_name(state, lease, "ft:tiny:local::abc")
    leases.set_micro_batch_tokens(state, lease, 512)
    leases.set_result_files(state, lease, ["file-r"])
    job = jobs.get_job(state, lease.job_id, admin)
    assert job.hyperparameters == job.method["supervised"]["hyperparameters"] == resolved
    assert job.method == {"type": "supervised", "supervised": {"hyperparameters": resolved}, "lora": {}}
    assert (job.output_name, job.micro_batch_tokens, job.result_files) == ("ft:tiny:local::abc", 512, ["file-r"])


def test_a_loss_that_is_no_number_is_null_in_its_event(state: State, admin: Caller, lease: Lease) -> None:
    leases.report_event(state, lease, "Step 1/2", data={"step": 1, "train_loss": float("inf")})
    assert jobs.list_events(state, lease.job_id, admin)[0][0].data == {"step": 1, "train_loss": None}


def test_a_request_sent_again_with_its_key_gives_the_same_job(state: State, admin: Caller, file_id: str) -> None:
    request, receipt = JobRequest("tiny", file_id), Receipt("hash-1", idempotency_key="k")
    job = jobs.create_job(state, admin, request, receipt)
    jobs.cancel_job(state, job.id, admin)
    assert jobs.create_job(state, admin, request, receipt).id == job.id
    found = jobs.find_earlier(state, admin, receipt)
    assert found is not None
    assert found.id == job.id
    with pytest.raises(KeyReusedError) as caught:
        jobs.create_job(state, admin, request, Receipt("hash-2", idempotency_key="k"))
    assert (caught.value.status, caught.value.code) == (400, "idempotency_key_reused")
    assert len(jobs.list_jobs(state, admin)[0]) == 1


def test_a_key_means_something_only_in_its_project(
    settings: Settings, state: State, admin: Caller, file_id: str, training_file: Path
) -> None:
    with state.session() as session:
        session.add(Project(id="proj_other", name="other", created_at=1, archived_at=None))
    stranger = local_admin("proj_other")
    theirs = FileStore(settings, state).add(
        training_file, filename="t", purpose=FINE_TUNE, project_id=stranger.project_id
    )
    receipt = Receipt("hash", idempotency_key="k")
    mine = jobs.create_job(state, admin, JobRequest("tiny", file_id), receipt)
    assert jobs.find_earlier(state, stranger, receipt) is None
    assert jobs.create_job(state, stranger, JobRequest("tiny", theirs.id), receipt).id != mine.id


def test_a_retry_gives_the_newest_job_of_the_last_ten_minutes(state: State, admin: Caller, file_id: str) -> None:
    request, receipt = JobRequest("tiny", file_id), Receipt("hash")
    old, new = (jobs.create_job(state, admin, request, receipt) for _ in range(2))
    assert old.id != new.id  # an honest second job is a second job
    with state.session() as session:
        session.get_one(Job, old.id).created_at -= 300
    retry = Receipt("hash", is_retry=True)
    assert jobs.create_job(state, admin, request, retry).id == new.id
    assert jobs.create_job(state, admin, request, Receipt("another", is_retry=True)).id not in (old.id, new.id)
    with state.session() as session:
        session.get_one(Job, new.id).created_at -= jobs.RETRY_SECONDS + 1
        session.get_one(Job, old.id).created_at -= jobs.RETRY_SECONDS + 1
    assert jobs.create_job(state, admin, request, retry).id not in (old.id, new.id)


def test_of_equal_requests_at_once_with_one_key_one_makes_a_job(state: State, admin: Caller, file_id: str) -> None:
    receipt = Receipt("hash", idempotency_key="k")
    request = JobRequest("tiny", file_id)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: jobs.create_job(state, admin, request, receipt).id, range(24)))
    assert len(set(made)) == len(jobs.list_jobs(state, admin)[0]) == 1


def test_jobs_are_found_by_all_of_their_metadata(state: State, admin: Caller, file_id: str) -> None:
    odd = {"team": "support", 'a "quoted" [key].$': "50 % it's"}
    both, one, none = (create(state, admin, file_id, metadata=m) for m in (odd, {"team": "support"}, {}))
    for pairs, expected in (
        ({"team": "support"}, {both.id, one.id}),
        (odd, {both.id}),
        ({"team": "sales"}, set()),
        ({"support": "team"}, set()),
        ({}, {none.id}),
        (None, {both.id, one.id, none.id}),
    ):
        assert {job.id for job in jobs.list_jobs(state, admin, metadata=pairs)[0]} == expected


def test_only_a_dead_trainers_jobs_are_put_back(state: State, admin: Caller, file_id: str) -> None:
    mine, theirs = create(state, admin, file_id), create(state, admin, file_id)
    leases.claim(state, mine.id, admin, "trainer")
    leases.claim(state, theirs.id, admin, "cli")
    assert leases.put_back_all(state, "trainer") == [mine.id]
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
    lease = leases.claim(state, job.id, admin, "cli")
    for number in range(5):
        leases.report_event(state, lease, f"Step {number}", data={"step": number})
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
        ({"rank": 0}, "lora.rank"),
        ({"rank": 513}, "lora.rank"),
        ({"alpha": True}, "lora.alpha"),
        ({"rslora": 1}, "lora.rslora"),
        ({"quantization": "8bit"}, "lora.quantization"),
        ({"early_stopping_epochs": -1}, "lora.early_stopping_epochs"),
        ({"early_stopping_epochs": 2}, "lora.early_stopping_epochs"),  # without a validation file
        ({"method": "reinforcement"}, "method.type"),
        ({"hyperparameters": Hyperparameters(beta=0.1)}, "hyperparameters.beta"),
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


def test_a_job_that_its_creator_runs_is_never_in_the_queue(state: State, admin: Caller, file_id: str) -> None:
    lease = jobs.create_claimed_job(state, admin, JobRequest("tiny", file_id), "cli")
    assert leases.claim_next(state) is None
    assert leases.load(state, lease).status == "running"


def test_a_seed_is_chosen_when_none_is_given(state: State, admin: Caller, file_id: str) -> None:
    assert 0 <= create(state, admin, file_id).seed < 2**31
    assert create(state, admin, file_id, seed=0).seed == 0
    assert time.time() - create(state, admin, file_id).created_at < 60
