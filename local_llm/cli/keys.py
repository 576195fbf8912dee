"""local-llm keys: who may use the server, with what, and how much."""

import time
from typing import Annotated, Any

import typer

from local_llm.audit import Audit
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table
from local_llm.keys import OVERLAP_SECONDS, KeyStore, NewKey, Scopes, limits_of
from local_llm.permissions import Limits, Role
from local_llm.state import Key

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, rotate, revoke.")

DAY_SECONDS = 24 * 3600
Seconds = Annotated[int, typer.Option(min=0, help="How long the old secret still opens; 0: not any more.")]


@app.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    role: Annotated[
        Role,
        typer.Option(help="What the key may do; an owner manages all projects, an admin administers its own."),
    ] = "member",
    principal: Annotated[list[str] | None, typer.Option(help="user:NAME or group:NAME; may be repeated.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model or profile that it may name, all if none is given; `ft:…*`: all beginning so."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="A collection that it reaches, all if none is given; may be repeated.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Most requests in a minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Most tokens in a minute.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Most tokens in a day (UTC).")] = None,
    expires_days: Annotated[float | None, typer.Option(min=0, help="After so many days it opens nothing.")] = None,
    as_json: AsJson = False,
) -> None:
    """Creates a key and shows it, once. From the first key on, every request needs one."""
    box: CommandContext = context.obj
    new = KeyStore(box.state).create(
        box.caller.project_id,
        name,
        role=role,
        principals=principal or [],
        scopes=Scopes(model or None, collection or None),
        limits=Limits(requests_per_minute, tokens_per_minute, tokens_per_day),
        expires_at=None if expires_days is None else int(time.time() + expires_days * DAY_SECONDS),
    )
    _show(box, new, "api_key.created", as_json=as_json)


@app.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists the project's keys; not their secrets, which are not kept."""
    box: CommandContext = context.obj
    rows = [_describe(key) for key in KeyStore(box.state).list(box.caller.project_id)]
    columns = ["id", "name", "role", "principals", "models", "collections", "redacted", "expires_at", "revoked"]
    emit_table(rows, columns, as_json=as_json, empty="no keys: the server listens on loopback only")


@app.command("rotate")
def rotate_key(
    context: typer.Context, key_id: str, overlap_seconds: Seconds = OVERLAP_SECONDS, as_json: AsJson = False
) -> None:
    """Gives a key a new secret and shows it, once. Id, role, scopes, limits and usage stay."""
    box: CommandContext = context.obj
    new = KeyStore(box.state).rotate(box.caller.project_id, key_id, overlap_seconds=overlap_seconds)
    _show(box, new, "api_key.rotated", as_json=as_json)


@app.command("revoke")
def revoke_key(context: typer.Context, key_id: str, as_json: AsJson = False) -> None:
    """Revokes a key, at once and for good."""
    box: CommandContext = context.obj
    KeyStore(box.state).revoke(box.caller.project_id, key_id)
    _note(box, "api_key.deleted", key_id)
    emit({"revoked": key_id}, f"revoked {key_id}", as_json=as_json)


def _show(box: CommandContext, new: NewKey, action: str, *, as_json: bool) -> None:
    _note(box, action, new.key.id)
    emit({**_describe(new.key), "secret": new.secret}, new.secret, as_json=as_json)


def _note(box: CommandContext, action: str, key_id: str) -> None:
    audit = Audit(box.state)
    audit.note(box.caller, action, key_id)
    audit.flush()


def _describe(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "principals": key.principals,
        "models": key.models,
        "collections": key.collections,
        **vars(limits_of(key)),
        "redacted": key.redacted,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "old_secret_until": key.previous_expires_at,
        "revoked": key.revoked_at is not None,
    }
