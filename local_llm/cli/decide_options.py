"""What `local-llm decide` is told on the command line."""

from dataclasses import dataclass
from typing import Annotated

import typer

from local_llm.decision.questions import ENOUGH_EXAMPLES

Need = bool | None


@dataclass(frozen=True)
class Said:
    """None: not said. The names are those of the file's keys."""

    changes: Annotated[
        bool | None, typer.Option("--changes/--no-changes", help="The data changes weekly or faster.")
    ] = None
    citations: Annotated[
        bool | None, typer.Option("--citations/--no-citations", help="Answers must name their sources.")
    ] = None
    examples: Annotated[
        int | None, typer.Option(min=0, help=f"How many good examples there are; {ENOUGH_EXAMPLES} are enough.")
    ] = None
    low_latency: Annotated[
        bool | None, typer.Option("--low-latency/--no-low-latency", help="Answers must come very quickly.")
    ] = None
    both_affordable: Annotated[
        bool | None,
        typer.Option("--both-affordable/--no-both-affordable", help="Tuning and retrieval can both be paid for."),
    ] = None
    per_user_access: Annotated[
        Need, typer.Option("--per-user-access", help="Users see different documents; counts as --changes.")
    ] = None
    too_many_documents: Annotated[
        Need, typer.Option("--too-many-documents", help="More than can be trained on; counts as --changes.")
    ] = None
    add_remove_without_retraining: Annotated[
        Need,
        typer.Option(
            "--add-remove-without-retraining", help="Information comes and goes at once; counts as --changes."
        ),
    ] = None
    consistent_times: Annotated[
        Need, typer.Option("--consistent-times", help="Response times vary little; counts as --low-latency.")
    ] = None
    format_needed: Annotated[
        Need, typer.Option("--format-needed", help="An output format that the base model does not give.")
    ] = None
    style_needed: Annotated[
        Need, typer.Option("--style-needed", help="A style that the base model does not have.")
    ] = None
    terms_needed: Annotated[
        Need, typer.Option("--terms-needed", help="Terms or ways of reasoning of your domain.")
    ] = None
    air_gapped: Annotated[Need, typer.Option("--air-gapped", help="Nothing outside can be reached.")] = None
    residency: Annotated[str | None, typer.Option(help="Where data has to stay, as EU.")] = None
    hosted_region: Annotated[
        list[str] | None, typer.Option(help="Where the vendor keeps data, by contract; may be repeated.")
    ] = None
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--no-gpu", help="What will serve has one; default: as this machine.")
    ] = None
    collection: Annotated[
        str | None, typer.Option(help="Collection whose changes and answers count; default: the only one.")
    ] = None
