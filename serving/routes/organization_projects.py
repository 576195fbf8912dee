"""/v1/organization/projects and /v1/organization/audit_logs. Owners only."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from serving.bodies import read_json_object
from serving.organization import requests
from serving.organization.answers import Json, audit_as_json, listed, page_of, project_as_json
from serving.organization.requests import owner_of
from serving.services import services_of
from serving.vector_stores.requests import read

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/v1/organization/projects")
async def create_project(request: Request) -> Json:
    services, caller = services_of(request), owner_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    asked = read(requests.CreateProject, body)
    row = await run_in_threadpool(services.projects.create, asked.name, **asked.values())
    services.audit.note(caller, "project.created", row.id, {"name": row.name}, project_id=row.id)
    return project_as_json(row)


@router.get("/v1/organization/projects")
def list_projects(
    request: Request, after: str | None = None, limit: Limit = 20, include_archived: bool = False
) -> Json:
    owner_of(request)
    rows = services_of(request).projects.list(archived=include_archived)
    return page_of(rows, project_as_json, after=after, limit=limit)


@router.get("/v1/organization/projects/{project_id}")
def retrieve_project(request: Request, project_id: str) -> Json:
    owner_of(request)
    return project_as_json(services_of(request).projects.get(project_id))


@router.post("/v1/organization/projects/{project_id}")
async def update_project(request: Request, project_id: str) -> Json:
    services, caller = services_of(request), owner_of(request)
    body = await read_json_object(request, services.settings.server.max_body_bytes)
    asked = read(requests.UpdateProject, body)
    row = await run_in_threadpool(services.projects.update, project_id, name=asked.name, **asked.values())
    changed = {"name": row.name, **asked.values()}
    services.audit.note(caller, "project.updated", row.id, changed, project_id=row.id)
    return project_as_json(row)


@router.post("/v1/organization/projects/{project_id}/archive")
def archive_project(request: Request, project_id: str) -> Json:
    services, caller = services_of(request), owner_of(request)
    row = services.projects.archive(caller, project_id)
    services.audit.note(caller, "project.archived", row.id, project_id=row.id)
    return project_as_json(row)


@router.get("/v1/organization/audit_logs")
def list_audit_logs(request: Request) -> Json:
    """The newest first. Entries trail what happened by a second at most."""
    services = services_of(request)
    owner_of(request)
    rows, has_more = services.audit.find(requests.audit_query(request))
    names = {project.id: project.name for project in services.projects.list(archived=True)}
    return listed([audit_as_json(row, names) for row in rows], has_more)
