"""local-llm profiles: served model names with a strategy behind them."""

from dataclasses import asdict
from typing import Annotated

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table
from local_llm.profiles import BASE, DEFAULT_K, Profile, ProfileStore, Strategy

app = typer.Typer(no_args_is_help=True, help="Served model names: a strategy, a model, a collection, a prompt.")


@app.command("list")
def list_profiles(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists the profiles."""
    box: CommandContext = context.obj
    rows = [asdict(profile) for profile in ProfileStore(box.state).list(box.caller)]
    columns = ["name", "strategy", "model", "collection", "k", "from_settings"]
    emit_table(rows, columns, as_json=as_json, empty="no profiles yet: local-llm profiles set")


@app.command("set")
def set_profile(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The name clients will use as `model`.")],
    strategy: Annotated[Strategy, typer.Option(help="What stands behind the name.")],
    model: Annotated[str, typer.Option(help="`base`, or an `ft:` name for fine_tuned and hybrid.")] = BASE,
    collection: Annotated[str | None, typer.Option(help="Collection to retrieve from, for rag and hybrid.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Words said before the context, or as system message.")] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many passages to retrieve.")] = DEFAULT_K,
    answer_only_from_context: Annotated[
        bool, typer.Option(help="Have the model say that it does not know where the passages hold no answer.")
    ] = True,
    rewrite: Annotated[
        bool | None,
        typer.Option(
            help="Make follow-up questions self-contained before they are searched for; default: setting."
        ),
    ] = None,
    refusal: Annotated[
        str | None, typer.Option(help="Said where the passages hold no answer; default: setting.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes or replaces a profile. A running server knows it from its next request on."""
    box: CommandContext = context.obj
    wanted = Profile(name, strategy, model, collection, prompt, k, answer_only_from_context, rewrite, refusal)
    profile = ProfileStore(box.state).set(box.caller, wanted)
    emit(asdict(profile), f"{profile.name}: {profile.strategy}, model {profile.model}", as_json=as_json)


@app.command("remove")
def remove_profile(context: typer.Context, name: str, as_json: AsJson = False) -> None:
    """Removes a profile."""
    box: CommandContext = context.obj
    ProfileStore(box.state).remove(box.caller, name)
    emit({"removed": name}, f"removed {name}", as_json=as_json)
