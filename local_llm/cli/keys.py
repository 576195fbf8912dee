"""local-llm keys: who may use the server."""

from typing import Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table
from local_llm.keys import KeyStore
from local_llm.permissions import Role
from local_llm.state import Key

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")


@app.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    role: Annotated[Role, typer.Option(help="What the key may do.")] = "member",
    principal: Annotated[list[str] | None, typer.Option(help="user:NAME or group:NAME; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Creates a key and shows it, once. From the first key on, every request needs one."""
    box: CommandContext = context.obj
    new = KeyStore(box.state).create(box.caller.project_id, name, role=role, principals=principal or [])
    emit({**_describe(new.key), "secret": new.secret}, new.secret, as_json=as_json)


@app.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists the keys; not their secrets, which are not kept."""
    box: CommandContext = context.obj
    rows = [_describe(key) for key in KeyStore(box.state).list(box.caller.project_id)]
    columns = ["id", "name", "role", "principals", "redacted", "revoked"]
    emit_table(rows, columns, as_json=as_json, empty="no keys: the server listens on loopback only")


@app.command("revoke")
def revoke_key(context: typer.Context, key_id: str, as_json: AsJson = False) -> None:
    """Revokes a key, at once and for good."""
    box: CommandContext = context.obj
    KeyStore(box.state).revoke(box.caller.project_id, key_id)
    emit({"revoked": key_id}, f"revoked {key_id}", as_json=as_json)


def _describe(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "principals": key.principals,
        "redacted": key.redacted,
        "revoked": key.revoked_at is not None,
    }
