"""local-llm index encode: a large corpus encoded ahead, by as many hosts as there are."""

import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm import ledger
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, progress_bar, talk

if TYPE_CHECKING:
    from index.bulk.run import BulkReport


def encode(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders, as for `index add`.")],
    into: Annotated[
        Path, typer.Option(help="Folder for the vectors; a run that was cut off goes on where one is begun.")
    ],
    encoder: Annotated[
        str | None, typer.Option(help="An encoder of the model store; default: index.encoder.")
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(help="For `index reembed`: the encoder that the collection has now."),
    ] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Default: index.chunk_tokens.")] = None,
    overlap_tokens: Annotated[int | None, typer.Option(help="Default: index.overlap_tokens.")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Spread over a Ray cluster: HOST:PORT, auto, or local for this host alone.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --ray; default: one a GPU, or one a host without any.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Encodes documents ahead of `index add --encoded` or `index reembed --encoded`, and changes no collection."""
    from index.bulk.plan import Bound, make_plan
    from index.bulk.ray_data import OnRay
    from index.bulk.run import InProcess, encode_corpus
    from index.encoders import Encoders
    from index.ingestion.ingest import find_sources
    from index.interface import Splitting

    box: CommandContext = context.obj
    encoders = Encoders(box.settings)
    target = Bound(*encoders.fingerprint(encoder))
    splitter = target if split_by is None else Bound(*encoders.fingerprint(split_by))
    plan = make_plan(box.settings, target, splitter, Splitting(chunk_tokens, overlap_tokens))
    who = InProcess() if ray is None else OnRay(ray, workers)
    with progress_bar("encoding") as bar:
        done = encode_corpus(plan, find_sources(paths), into.expanduser().absolute(), who, bar)
    for skipped in done.skipped:
        talk(f"skipped {skipped.document}: {skipped.reason}")
    facts = facts_of(done, target.name)
    if facts is not None:
        ledger.record(box.state, box.caller.project_id, "encoding", facts)
    text = (
        f"{into} has {done.passages} passages of {done.documents} documents, {done.encoded} of them new "
        f"({done.tokens} tokens, {done.seconds:.1f} s, {done.worker_seconds:.1f} s of workers)\n"
        f"next: local-llm index add COLLECTION PATHS --encoded {into}"
    )
    emit(asdict(done), text, as_json=as_json)


def facts_of(done: "BulkReport", encoder: str) -> dict[str, Any] | None:
    """For the ledger, which writes this host's hardware beside them. None if others did any of it, or none did."""
    hosts = {worker.rpartition(":")[0] for worker in done.workers}
    if not done.encoded or hosts != {socket.gethostname()}:
        return None
    return {
        "encoder": encoder,
        "documents": done.encoded_documents,
        "passages": done.encoded,
        "tokens": done.tokens,
        "seconds": round(done.worker_seconds, 3),
        "wall_seconds": round(done.seconds, 3),
        "workers": len(done.workers),
    }
