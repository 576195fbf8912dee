"""local-llm index: collections of documents, and searches in them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.index_encode import encode
from local_llm.cli.index_evaluate import evaluate
from local_llm.cli.output import emit, emit_table, progress_bar, talk
from local_llm.errors import InvalidInputError
from local_llm.models import ModelStore
from local_llm.permissions import Caller

app = typer.Typer(no_args_is_help=True, help="Collections of documents: create, add, sync, search.")

app.command("evaluate")(evaluate)
app.command("encode")(encode)

Collection = Annotated[str, typer.Argument(help="The collection's name or id.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Who may see the documents: user:NAME, group:NAME, or everyone; may be repeated."),
]
Attribute = Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.")]
Encoded = Annotated[
    Path | None, typer.Option(help="Folder of `index encode`: what it has vectors of is not encoded here.")
]
SHOWN_CHARACTERS = 120


@app.command("create")
def create(
    context: typer.Context,
    name: str,
    encoder: Annotated[
        str | None, typer.Option(help="An encoder of the model store; default: index.encoder.")
    ] = None,
    lexical: Annotated[bool, typer.Option("--lexical", help="Rank by words (BM25) as well.")] = False,
    reranker: Annotated[str | None, typer.Option(help="A cross-encoder of the model store.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Make neighbouring and equal passages one hit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Creates an empty collection, bound to an encoder; `evaluate` tells what to rank by."""
    from index.access import open_index
    from index.interface import Ranking

    box: CommandContext = context.obj
    ranking = Ranking(lexical=lexical, reranker=reranker, merged=merged)
    if reranker is not None:
        ModelStore(box.settings.place.models).get(reranker, "reranker")  # before there is a collection
    with open_index(box.settings, box.state) as index:
        made = index.create(box.caller, name, encoder=encoder)
        if ranking != made.ranking:
            made = index.update(box.caller, name, ranking=ranking)
    emit(asdict(made), f"created {made.name} ({made.id}, encoder {made.encoder})", as_json=as_json)


@app.command("list")
def list_collections(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists the collections."""
    from index.access import open_index

    box: CommandContext = context.obj
    with open_index(box.settings, box.state) as index:
        rows = [asdict(info) for info in index.collections(box.caller)]
    empty = "no collections yet: local-llm index create NAME"
    emit_table(rows, ["id", "name", "encoder"], as_json=as_json, empty=empty)


@app.command("add")
def add(
    context: typer.Context,
    name: Collection,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    allow: Allow = None,
    attribute: Attribute = None,
    encoded: Encoded = None,
    as_json: AsJson = False,
) -> None:
    """Adds documents, or replaces those of the same names. What is unchanged is not encoded again."""
    from index.access import open_index
    from index.ingestion.ingest import find_sources

    box: CommandContext = context.obj
    sources, attributes = find_sources(paths), _attributes(attribute)
    with open_index(box.settings, box.state) as index, progress_bar("adding") as bar:
        report = index.add(
            box.caller,
            name,
            sources,
            allow=allow,
            attributes=attributes,
            encoded=_absolute(encoded),
            report=bar,
        )
    for skipped in report.skipped:
        talk(f"skipped {skipped.document}: {skipped.reason}")
    text = (
        f"added {report.added}, replaced {report.replaced}, unchanged {report.unchanged}, "
        f"skipped {len(report.skipped)}: {report.passages} passages, {report.tokens} tokens, "
        f"{report.seconds:.1f} s{_told_ahead(report.ahead)}"
    )
    emit(asdict(report), text, as_json=as_json)


@app.command("sync")
def sync(
    context: typer.Context,
    name: Collection,
    folder: Annotated[Path, typer.Argument(help="The folder that is the truth.")],
    scope: Annotated[
        str,
        typer.Option(help="What the documents' names begin with, as in handbook/; '' is the whole collection."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    allow: Allow = None,
    attribute: Attribute = None,
    as_json: AsJson = False,
) -> None:
    """Makes the documents of a scope those of a folder: adds, replaces, and removes what is gone from it."""
    from index.access import open_index
    from index.ingestion.sync import find_scoped

    box: CommandContext = context.obj
    sources, attributes = find_scoped(folder, scope), _attributes(attribute)
    with open_index(box.settings, box.state) as index, progress_bar("syncing") as bar:
        done = index.sync(
            box.caller,
            name,
            sources,
            scope=scope,
            dry_run=dry_run,
            allow=allow,
            attributes=attributes,
            report=bar,
        )
    for verb, documents in (("add", done.to_add), ("replace", done.to_replace), ("remove", done.to_remove)):
        for document in documents:
            talk(f"{verb} {document}")
    for skipped in done.ingest.skipped if done.ingest else ():
        talk(f"skipped {skipped.document}: {skipped.reason}")
    would = "would " if dry_run else ""
    text = (
        f"{would}add {len(done.to_add)}, {would}replace {len(done.to_replace)}, "
        f"{would}remove {len(done.to_remove)}, unchanged {done.unchanged}"
    )
    emit(asdict(done), text, as_json=as_json)


@app.command("reembed")
def reembed(
    context: typer.Context,
    name: Collection,
    encoder: Annotated[
        str | None, typer.Option(help="An encoder of the model store; default: index.encoder.")
    ] = None,
    encoded: Encoded = None,
    as_json: AsJson = False,
) -> None:
    """Moves a collection to another encoder; searches go on with the old one until all is done."""
    from index.access import open_index

    box: CommandContext = context.obj
    with open_index(box.settings, box.state) as index, progress_bar("encoding") as bar:
        done = index.reembed(box.caller, name, encoder=encoder, encoded=_absolute(encoded), report=bar)
    text = f"{name} is encoded by {done.encoder}: {done.passages} passages, {done.seconds:.1f} s"
    text += _told_ahead(done.ahead)
    emit(asdict(done), text, as_json=as_json)


@app.command("remove")
def remove(
    context: typer.Context,
    name: Collection,
    documents: Annotated[list[str], typer.Argument(help="Names of documents.")],
    as_json: AsJson = False,
) -> None:
    """Removes documents: all that are named, or none."""
    from index.access import open_index

    box: CommandContext = context.obj
    with open_index(box.settings, box.state) as index:
        removed = index.remove(box.caller, name, documents)
    emit({"removed": removed}, f"removed {removed}", as_json=as_json)


@app.command("search")
def search(
    context: typer.Context,
    name: Collection,
    query: str,
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 5,
    principal: Annotated[
        list[str] | None, typer.Option(help="Search as a member with these principals; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Finds the passages nearest to a query."""
    from index.access import open_index

    box: CommandContext = context.obj
    with open_index(box.settings, box.state) as index:
        hits = index.search(_searcher(box.caller, principal), name, query, k)
    rows = [asdict(hit) for hit in hits]
    if not as_json:
        rows = [_shown(rank, row) for rank, row in enumerate(rows, 1)]
    emit_table(rows, ["rank", "score", "document", "page", "found"], as_json=as_json, empty="nothing found")


@app.command("stats")
def stats(context: typer.Context, name: Collection, as_json: AsJson = False) -> None:
    """Counts what is in a collection."""
    from index.access import open_index

    box: CommandContext = context.obj
    with open_index(box.settings, box.state) as index:
        found = asdict(index.stats(box.caller, name))
    emit(found, "\n".join(f"{key}: {value}" for key, value in found.items()), as_json=as_json)


def _absolute(folder: Path | None) -> Path | None:
    """For a server, which has another working directory."""
    return None if folder is None else folder.expanduser().absolute()


def _told_ahead(passages: int) -> str:
    return f"; {passages} passages encoded ahead" if passages else ""


def _searcher(caller: Caller, principals: Sequence[str] | None) -> Caller:
    return caller if principals is None else Caller(caller.project_id, "member", tuple(principals))


def _shown(rank: int, hit: dict[str, Any]) -> dict[str, Any]:
    found = " ".join(f"{hit['heading']}: {hit['text']}".removeprefix(": ").split())
    if len(found) > SHOWN_CHARACTERS:
        found = f"{found[:SHOWN_CHARACTERS]}…"
    return {**hit, "rank": rank, "score": f"{hit['score']:.3f}", "found": found}


def _attributes(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """Raises: InvalidInputError if one is not NAME=VALUE."""
    if pairs is None:
        return None
    for pair in pairs:
        if "=" not in pair or pair.startswith("="):
            raise InvalidInputError(f"--attribute {pair!r}: expected NAME=VALUE", param="attribute")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
