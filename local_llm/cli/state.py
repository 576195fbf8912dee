"""local-llm state: the state database itself."""

from contextlib import closing

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit_table, talk
from local_llm.errors import InvalidInputError, NotFoundError
from local_llm.home import Home
from local_llm.locks import exclusive_lock
from local_llm.state import open_empty_state

app = typer.Typer(no_args_is_help=True, help="The state database: projects, keys, files, jobs, usage, audit log.")


@app.callback()
def _several() -> None:
    """So that `copy` is named even while it is the only command."""


@app.command("copy")
def copy_into_postgresql(context: typer.Context, as_json: AsJson = False) -> None:
    """Copies `state.db` into the empty PostgreSQL database that state.url names. The server must be stopped."""
    from local_llm.state_copy import copy_state

    box: CommandContext = context.obj
    place = box.settings.place
    if place.state.url is None:
        raise InvalidInputError(
            "state.url is not set: there is no database to copy to", hint="see docs/postgresql.md"
        )
    if not place.state_database.exists():
        raise NotFoundError(f"there is no {place.state_database}: nothing is to be copied")
    with exclusive_lock(place.run / "server.lock", "the copy of the state database"):
        here = open_empty_state(Home(place.root))
        with closing(here), closing(open_empty_state(place)) as there:
            counts = copy_state(here, there)
    emit_table(
        [{"table": name, "rows": count} for name, count in counts.items()],
        ["table", "rows"],
        as_json=as_json,
        empty="no tables",
    )
    talk(f"{place.state_database} is as it was, and is read no more while state.url is set")
