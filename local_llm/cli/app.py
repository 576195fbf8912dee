"""The whole command line put together, and the one place where errors become messages and exit codes."""

from pathlib import Path
from typing import Annotated

import typer

from local_llm import __version__
from local_llm.cli import (
    chats,
    cost,
    decide,
    evaluate,
    gc,
    index,
    keys,
    models,
    profiles,
    projects,
    serving,
    state,
    train,
)
from local_llm.cli.context import CommandContext
from local_llm.cli.output import talk
from local_llm.errors import LocalLLMError

app = typer.Typer(
    name="local-llm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tuning, retrieval with citations and an OpenAI-compatible endpoint, on your own hardware.",
)
app.add_typer(index.app, name="index")
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(profiles.app, name="profiles")
app.add_typer(chats.app, name="chats")
app.add_typer(cost.app, name="cost")
app.add_typer(keys.app, name="keys")
app.add_typer(projects.app, name="projects")
app.add_typer(state.app, name="state")
app.command("gc")(gc.collect_garbage)
app.command("serve")(serving.serve)
app.command("ask")(serving.ask)
app.command("decide")(decide.decide)
app.command("doctor")(serving.doctor)


@app.callback()
def prepare(
    context: typer.Context,
    settings: Annotated[Path | None, typer.Option(help="Settings file (TOML).")] = None,
    project: Annotated[
        str | None, typer.Option(help="Project to work in, by id or name; else the box's own, `local`.")
    ] = None,
) -> None:
    context.obj = CommandContext(settings.absolute() if settings else None, project)


@app.command()
def version() -> None:
    """Prints the version."""
    print(__version__)  # noqa: T201


def run(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns the exit code: 0 done, 1 our error in one message, 2 usage."""
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as exit_request:
        return exit_request.code if isinstance(exit_request.code, int) else 1
    except LocalLLMError as error:
        talk(f"error: {error.message}")
        if error.hint:
            talk(f"  try: {error.hint}")
        return 1
    except KeyboardInterrupt:
        talk("stopped")
        return 130
    return 0
