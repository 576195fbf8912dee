"""local-llm evaluate freshness: what it takes until a changed fact is answered."""

import typer


def freshness(context: typer.Context) -> None:
    """Changes a fact."""
