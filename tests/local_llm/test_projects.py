"""Projects: what they hold apart, and that archiving deletes nothing while removing leaves nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from local_llm.audit import Audit, AuditQuery
from local_llm.errors import AuthenticationError, ConflictError, InvalidInputError, NotFoundError
from local_llm.fileio import write_json
from local_llm.files import FileStore, QuotaExceededError
from local_llm.keys import KeyStore
from local_llm.locks import exclusive_lock
from local_llm.permissions import Caller, local_admin
from local_llm.profiles import Profile, ProfileStore
from local_llm.projects import FLAGS, QUOTAS, VALUES, ProjectStore
from local_llm.provenance import fingerprint, remember
from local_llm.settings import Settings
from local_llm.state import MIGRATIONS, Key, Project, Row, State
from local_llm.usage import Usage
from tests.postgresql import environment_of

BOTH_DATABASES = True


@pytest.fixture
def projects(state: State) -> ProjectStore:
    return ProjectStore(state)


@pytest.fixture
def run(settings: Settings):
    def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **environment_of(settings)}
        line = [sys.executable, "-m", "local_llm", *arguments]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run_command


def test_projects_are_found_by_id_and_name(projects: ProjectStore) -> None:
    made = projects.create("support", log_content=True)
    assert projects.get("support").id == projects.get(made.id).id == made.id
    assert [row.name for row in projects.list()] == ["local", "support"]
    changed = projects.update("support", name="help desk", store_chats=True, file_quota_bytes=7)
    assert (changed.id, changed.log_content, changed.store_chats, changed.file_quota_bytes) == (
        made.id,
        True,
        True,
        7,
    )
    assert projects.update("help desk", file_quota_bytes=None).file_quota_bytes is None


def test_commands_set_and_show_all_that_can_be_set(run) -> None:
    made = json.loads(run("projects", "create", "support", "--no-store-responses", "--json").stdout)
    assert made["store_responses"] is False
    options = ("--log-content", "--store-chats", "--store-responses", "--file-quota-bytes", "7")
    update = run("projects", "update", "support", *options, "--collection-quota-bytes", "8", "--json")
    changed = json.loads(update.stdout)
    assert {name: changed[name] for name in VALUES} == dict.fromkeys(FLAGS, True) | {QUOTAS[0]: 7, QUOTAS[1]: 8}
    for flag in FLAGS:
        assert flag in run("projects", "list").stdout


def test_what_a_project_cannot_be(projects: ProjectStore, admin: Caller) -> None:
    projects.create("support")
    with pytest.raises(ConflictError):
        projects.create("support")
    for name in ("", "  ", "x" * 129, "a\nb", "proj_x"):
        with pytest.raises(InvalidInputError):
            projects.create(name)
    for values in ({"log_content": 1}, {"file_quota_bytes": 0}, {"collection_quota_bytes": True}):
        with pytest.raises(InvalidInputError):
            projects.update("support", **values)  # type: ignore[arg-type]
    for refused in (lambda: projects.update("local", name="x"), lambda: projects.archive(admin, "local")):
        with pytest.raises(ConflictError):
            refused()
    with pytest.raises(NotFoundError):
        projects.get("nothing")


def test_nobody_archives_the_project_of_the_key_that_asks(projects: ProjectStore) -> None:
    made = projects.create("support")
    with pytest.raises(ConflictError):
        projects.archive(local_admin(made.id), "support")


def test_archiving_deletes_nothing(projects: ProjectStore, state: State, settings: Settings, admin: Caller) -> None:
    made = projects.create("support")
    secret = KeyStore(state).create(made.id, "ana").secret
    files = FileStore(settings, state)
    row = files.add([b"hello"], filename="a.txt", purpose="user_data", project_id=made.id)
    projects.archive(admin, made.id)
    assert [one.name for one in projects.list()] == ["local"]
    assert [one.name for one in projects.list(archived=True)] == ["local", "support"]
    assert files.path(row.id).read_bytes() == b"hello"
    with pytest.raises(AuthenticationError):
        KeyStore(state).authenticate(secret)
    with pytest.raises(ConflictError):
        projects.active("support")


def test_a_project_has_a_quota_of_its_own(projects: ProjectStore, state: State, settings: Settings) -> None:
    made = projects.create("support", file_quota_bytes=10)
    files = FileStore(settings, state)
    files.add([b"12345678"], filename="a", purpose="user_data", project_id=made.id)
    with pytest.raises(QuotaExceededError):
        files.add([b"abcdefgh"], filename="b", purpose="user_data", project_id=made.id)
    files.add([b"abcdefgh"], filename="b", purpose="user_data", project_id=state.local_project_id())


def runs_of(settings: Settings, project: str) -> list[Path]:
    """A retriever's run that published nothing, an evaluation, answers that were kept."""
    place = settings.place.ensure()
    trained, evaluated = place.retrievers / f"ret-{project}", place.evaluations / "runs" / f"eval_{project}"
    answers = place.evaluations / "answers" / project
    for folder in (trained, evaluated, answers):
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"12345")
    write_json(trained / "request.json", {"project": project})
    write_json(evaluated / "report.json", {"project": project})
    return [trained, evaluated, answers]


def aged(folder: Path, days: float) -> None:
    moment = time.time() - days * 24 * 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (moment, moment))


def what(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {row["what"] for row in json.loads(done.stdout)}


def test_runs_are_garbage_once_their_project_is_gone(run, state: State, settings: Settings) -> None:
    place = settings.place
    of_nobody, ours = runs_of(settings, "proj_gone"), runs_of(settings, state.local_project_id())
    not_begun, unreadable = place.retrievers / "ret-killed", place.evaluations / "runs" / "eval_damaged"
    for folder in (not_begun, unreadable):
        folder.mkdir()
    (unreadable / "report.json").write_text("{")
    assert what(run("gc", "--json")) == set()  # all of today
    for folder in (*of_nobody, *ours, not_begun, unreadable):
        aged(folder, 100)
    assert what(run("gc", "--json")) == {str(path.relative_to(place.root)) for path in (*of_nobody, not_begun)}
    assert run("gc", "--apply").returncode == 0
    assert not any(path.exists() for path in (*of_nobody, not_begun))
    assert all(path.exists() for path in (*ours, unreadable))


def test_unpublished_runs_go_only_when_asked_for_by_age(run, state: State, settings: Settings) -> None:
    place, project = settings.place, state.local_project_id()
    kept_aside = runs_of(settings, project)[0]
    published, at_work, young = (place.retrievers / name for name in ("ret-published", "ret-at-work", "ret-young"))
    for folder in (published, at_work, young):
        folder.mkdir()
        write_json(folder / "request.json", {"project": project})
    write_json(published / "published.json", {"name": "mine"})
    with exclusive_lock(at_work / "run.lock", "the run"):
        for folder in (kept_aside, published, at_work, young):
            aged(folder, 40)
        aged(young, 20)
        os.utime(young, (0, 0))  # what counts is what lies in it
        assert what(run("gc", "--json")) == set()
        assert run("gc", "--unpublished-days", "30", "--apply").returncode == 0
    assert not kept_aside.exists()
    assert all(folder.exists() for folder in (published, at_work, young))


def test_removing_leaves_nothing_of_it_and_everything_of_others(run, state: State, settings: Settings) -> None:
    assert run("keys", "create", "boss", "--role", "owner").returncode == 0
    for project in ("local", "support"):
        assert project == "local" or run("projects", "create", project).returncode == 0
        assert run("--project", project, "keys", "create", "ana").returncode == 0
        assert run("--project", project, "profiles", "set", "plain", "--strategy", "base").returncode == 0
    support = ProjectStore(state).get("support")
    files = FileStore(settings, state)
    kept = files.add([b"x"], filename="x", purpose="user_data", project_id=state.local_project_id())
    gone = files.add([b"y"], filename="y", purpose="user_data", project_id=support.id)
    remember(state, support.id, {fingerprint("a row of a training file"): ["user:ana"]})
    usage = Usage(state)
    usage.count(local_admin(support.id), "tiny", "completions", input_tokens=1)
    usage.flush()
    of_others, of_support = (runs_of(settings, project) for project in (state.local_project_id(), support.id))

    refused = run("projects", "remove", "support", "--yes")
    assert refused.returncode == 1
    assert "not archived" in refused.stderr
    assert run("projects", "archive", "support").returncode == 0
    assert "--yes" in run("projects", "remove", "support").stderr
    done = run("projects", "remove", "support", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert {**json.loads(done.stdout), "removed": None} == {
        "removed": None,
        "keys": 1,
        "files": 1,
        "adapters": 0,
        "jobs": 0,
        "retriever_runs": 1,
        "evaluations": 1,
    }
    with state.reading() as session:
        for table in Row.metadata.sorted_tables:
            if "project_id" in table.columns:
                ids = set(session.scalars(table.select().with_only_columns(table.c.project_id)))
                assert support.id not in ids, table
    assert files.path(kept.id).exists()
    assert not files.path(gone.id).exists()
    assert all(path.exists() for path in of_others)
    assert not any(path.exists() for path in of_support)
    assert len(ProfileStore(state).list(local_admin(state.local_project_id()))) == 1
    (last,) = Audit(state).find(AuditQuery(limit=1))[0]
    assert (last.action, last.object_id) == ("project.deleted", support.id)


def test_the_project_with_the_only_keys_stays(run, state: State) -> None:
    """Without it the box would have no keys, and answer anybody on this machine."""
    run("projects", "create", "support")
    run("--project", "support", "keys", "create", "ana")
    run("projects", "archive", "support")
    done = run("projects", "remove", "support", "--yes")
    assert done.returncode == 1
    assert "only keys" in done.stderr
    assert KeyStore(state).any_created()


def test_commands_work_in_the_project_named(run, state: State) -> None:
    run("projects", "create", "support")
    run("--project", "support", "profiles", "set", "plain", "--strategy", "base")
    assert json.loads(run("--project", "support", "profiles", "list", "--json").stdout)[0]["name"] == "plain"
    assert json.loads(run("profiles", "list", "--json").stdout) == []
    unknown = run("--project", "nothing", "profiles", "list")
    assert unknown.returncode == 1
    assert "no project 'nothing'" in unknown.stderr


def test_garbage_is_listed_first_and_removed_when_told(run, state: State, settings: Settings) -> None:
    place = settings.place
    left = [place.adapters / "adapter-x", place.collections / "vs_x", place.jobs / "ftjob-x"]
    left += [place.derived / "encoder-0000"]
    for folder in left:
        folder.mkdir()
        (folder / "data").write_bytes(b"12345")
    left.append(place.files / "file-x")
    left[-1].write_bytes(b"12345")
    files, project = FileStore(settings, state), state.local_project_id()
    kept = files.add([b"y"], filename="y", purpose="user_data", project_id=project)
    young = place.adapters / "adapter-young"
    young.mkdir()
    for path in (*left, files.path(kept.id)):
        os.utime(path, (0, 0))
    audit = Audit(state)
    audit.note(local_admin(project), "file.created", "file-x")
    audit.flush()
    with state.session() as session:
        session.execute(text("UPDATE audit SET created_at = 5"))
    listed = json.loads(run("gc", "--json").stdout)
    assert {row["what"] for row in listed} == {
        *(str(path.relative_to(place.root)) for path in left),
        "1 past their time",
    }
    assert all(path.exists() for path in left)
    assert run("gc", "--apply").returncode == 0
    assert not any(path.exists() for path in left)
    assert young.exists()
    assert files.path(kept.id).exists()
    assert json.loads(run("gc", "--json").stdout) == []


def back_and_forth(state: State) -> None:
    """To before there were owners: theirs were admins' keys."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    for step, revision in ((command.downgrade, "0003"), (command.upgrade, "head")):
        with state._engine.begin() as connection:
            config.attributes["connection"] = connection
            step(config, revision)


def test_after_the_migration_the_oldest_good_key_of_an_admin_is_an_owners(state: State) -> None:
    """Nobody could manage keys over the API after an upgrade."""
    keys, project = KeyStore(state), state.local_project_id()
    made = {
        name: keys.create(project, name, role="member" if name == "member" else "admin").key.id
        for name in ("member", "revoked", "expired", "good", "another")
    }
    keys.revoke(project, made["revoked"])
    with state.session() as session:
        session.get_one(Key, made["expired"]).expires_at = 5
    back_and_forth(state)
    roles = {key.name: key.role for key in keys.list(project)}
    assert roles == {
        "member": "member",
        "revoked": "admin",
        "expired": "admin",
        "good": "owner",
        "another": "admin",
    }


def test_the_migration_makes_nobody_an_owner_over_several_projects(state: State) -> None:
    keys = KeyStore(state)
    ProjectStore(state).create("other")
    keys.create(state.local_project_id(), "boss", role="admin")
    back_and_forth(state)
    assert keys.owners() == []


def test_the_migration_goes_back_and_forth_with_keys_in_place(state: State, tmp_path: Path) -> None:
    project = state.local_project_id()
    secret = KeyStore(state).create(project, "boss", role="owner").secret
    ProfileStore(state).set(local_admin(project), Profile("plain", "base"))
    back_and_forth(state)
    assert KeyStore(state).authenticate(secret).role == "owner"
    (key,) = KeyStore(state).list(project)
    assert key.account_id == f"svc_acct_{key.id.removeprefix('key_')}"
    with state.reading() as session:
        assert session.get_one(Project, project).log_content is False


def test_the_migrated_schema_is_the_one_that_rows_are_written_for(state: State) -> None:
    found = inspect(state._engine)
    for table in Row.metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == {c.name for c in table.columns}
