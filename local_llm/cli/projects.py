"""local-llm projects: the tenants of a box."""

from typing import Annotated, Any

import typer

from local_llm.audit import Audit
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table
from local_llm.errors import InvalidInputError
from local_llm.permissions import local_admin
from local_llm.profiles import ProfileStore
from local_llm.projects import FLAGS, VALUES, ProjectStore, values_of
from local_llm.state import Project

app = typer.Typer(no_args_is_help=True, help="Projects: who shares keys, files, models and collections.")

LogContent = Annotated[bool | None, typer.Option(help="Keep questions and answers in the audit log.")]
StoreChats = Annotated[bool | None, typer.Option(help="Keep chats that clients send with store=true.")]
StoreResponses = Annotated[bool | None, typer.Option(help="Keep what /v1/responses answers.")]
FileQuota = Annotated[int | None, typer.Option(min=1, help="Space for uploads; else server.project_quota_bytes.")]
CollectionQuota = Annotated[
    int | None, typer.Option(min=1, help="Space for collections; else index.project_quota_bytes.")
]


@app.command("create")
def create_project(
    context: typer.Context,
    name: str,
    log_content: LogContent = None,
    store_chats: StoreChats = None,
    store_responses: StoreResponses = None,
    file_quota_bytes: FileQuota = None,
    collection_quota_bytes: CollectionQuota = None,
    as_json: AsJson = False,
) -> None:
    """Makes a project. `local-llm --project NAME …` works in it."""
    box: CommandContext = context.obj
    values = _given(log_content, store_chats, store_responses, file_quota_bytes, collection_quota_bytes)
    project = ProjectStore(box.state).create(name, **values)
    _note(box, "project.created", project, name=name)
    emit(_describe(project), f"{project.name}: {project.id}", as_json=as_json)


@app.command("list")
def list_projects(
    context: typer.Context,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lists the projects."""
    box: CommandContext = context.obj
    rows = [_describe(project) for project in ProjectStore(box.state).list(archived=archived)]
    emit_table(rows, ["id", "name", "status", *FLAGS], as_json=as_json, empty="no projects")


@app.command("update")
def update_project(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="Id or name.")],
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    log_content: LogContent = None,
    store_chats: StoreChats = None,
    store_responses: StoreResponses = None,
    file_quota_bytes: FileQuota = None,
    collection_quota_bytes: CollectionQuota = None,
    as_json: AsJson = False,
) -> None:
    """Changes what is given."""
    box: CommandContext = context.obj
    values = _given(log_content, store_chats, store_responses, file_quota_bytes, collection_quota_bytes)
    changed = ProjectStore(box.state).update(project, name=name, **values)
    _note(box, "project.updated", changed, **values)
    emit(_describe(changed), f"{changed.name}: changed", as_json=as_json)


@app.command("archive")
def archive_project(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="Id or name.")],
    as_json: AsJson = False,
) -> None:
    """Its keys are refused from now on; nothing is deleted."""
    box: CommandContext = context.obj
    archived = ProjectStore(box.state).archive(box.caller, project)
    _note(box, "project.archived", archived)
    emit(_describe(archived), f"{archived.name}: archived", as_json=as_json)


@app.command("remove")
def remove_project(
    context: typer.Context,
    project: Annotated[str, typer.Argument(help="Id or name of an archived project.")],
    yes: Annotated[bool, typer.Option("--yes", help="Really.")] = False,
    as_json: AsJson = False,
) -> None:
    """Deletes an archived project with its keys, files, models, jobs, collections, usage and audit log."""
    box: CommandContext = context.obj
    projects = ProjectStore(box.state)
    row = projects.removable(project)
    if not yes:
        raise InvalidInputError(
            f"the project {row.name!r} would be deleted with everything in it, for good",
            hint=f"local-llm projects remove {row.name} --yes",
        )
    _end_work(box, row)
    removed = projects.remove(box.settings, row.id)
    audit = Audit(box.state)
    audit.note(box.caller, "project.deleted", row.id, {"name": row.name, **vars(removed)})
    audit.flush()
    emit({"removed": row.id, **vars(removed)}, f"removed {row.name}", as_json=as_json)


def _end_work(box: CommandContext, project: Project) -> None:
    """Ends the jobs of a project and deletes its collections, which others hold."""
    from index.access import open_index
    from training.jobs import cancel_job, unfinished_jobs

    caller = local_admin(project.id)
    for job_id in unfinished_jobs(box.state, caller):
        cancel_job(box.state, job_id, caller)
    profiles = ProfileStore(box.state)
    for profile in profiles.list(caller):
        profiles.remove(caller, profile.name)
    with open_index(box.settings, box.state) as index:
        for collection in index.collections(caller):
            index.delete(caller, collection.id)


def _given(*values: Any) -> dict[str, Any]:
    """`values`: as VALUES names them."""
    return {name: value for name, value in zip(VALUES, values, strict=True) if value is not None}


def _note(box: CommandContext, action: str, project: Project, **detail: Any) -> None:
    audit = Audit(box.state)
    audit.note(box.caller, action, project.id, detail, project_id=project.id)
    audit.flush()


def _describe(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "status": "active" if project.archived_at is None else "archived",
        "created_at": project.created_at,
        **values_of(project),
    }
