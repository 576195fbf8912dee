"""local-llm gc: removes what nothing refers to."""

from typing import Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit_table
from local_llm.garbage import find_garbage
from local_llm.retention import Retention


def collect_garbage(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; else it is only listed.")] = False,
    unpublished_days: Annotated[
        int | None,
        typer.Option(
            min=1, help="Also retriever runs that published no encoder and that nobody touched for so many days."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists what nothing refers to any more and nobody touched for a day, and rows past their time."""
    from index.encoding.converted import folder_of
    from local_llm.models import ModelStore

    box: CommandContext = context.obj
    place = box.settings.place.ensure()
    encoders = [model.path for model in ModelStore(place.models).list() if model.manifest.kind == "encoder"]
    used = {folder_of(path, place.derived).name for path in encoders}
    garbage = find_garbage(place, box.state, used.__contains__, unpublished_days=unpublished_days)
    retention = Retention(box.state, box.settings.server)
    rows: list[dict[str, Any]] = [
        {"kind": one.kind, "what": str(one.path.relative_to(place.root)), "bytes": one.bytes} for one in garbage
    ]
    rows += [
        {"kind": f"{table} rows", "what": f"{count} past their time", "bytes": None}
        for table, count in retention.overdue().items()
        if count
    ]
    if apply:
        for one in garbage:
            one.remove()
        retention.sweep()
    emit_table(rows, ["kind", "what", "bytes"], as_json=as_json, empty="nothing to remove")
