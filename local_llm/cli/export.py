"""local-llm train export: an adapter merged into its base, as a model of its own."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from local_llm.adapters import AdapterRegistry
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, progress_bar
from local_llm.errors import IntegrityError
from local_llm.models import Model, ModelStore
from local_llm.state import Adapter


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The adapter: its `ft:` name.")],
    output: Annotated[Path, typer.Option(help="Folder to write; must not be there yet.")],
    dtype: Annotated[Literal["bf16", "fp16", "fp32"], typer.Option(help="How the weights are written.")] = "bf16",
    as_json: AsJson = False,
) -> None:
    """Merges an adapter into its base and writes a model that needs neither.

    Before the folder appears, its answers to a fixed text are compared with those of base and adapter.
    """
    from training.merge import export_merged

    box: CommandContext = context.obj
    registry = AdapterRegistry(box.settings, box.state)
    adapter = registry.get(name, box.caller)
    base = _base_of(adapter, ModelStore(box.settings.place.models))
    source = f"{adapter.name} merged into {base.name}"
    folder = output.expanduser().absolute()
    with progress_bar("exporting") as report:
        merged = export_merged(base, registry.verify(adapter), folder, source=source, dtype=dtype, report=report)
    result = {
        "path": str(merged.path),
        "adapter": adapter.name,
        "base": base.name,
        "dtype": merged.dtype,
        "difference": merged.difference,
        "tolerance": merged.tolerance,
    }
    emit(result, f"{merged.path} (logits within {merged.difference:.1g} of base and adapter)", as_json=as_json)


def _base_of(adapter: Adapter, store: ModelStore) -> Model:
    """Raises: IntegrityError if the store's model of that name is another one than the adapter was trained on."""
    base = store.get(adapter.base_model, "base")
    if base.manifest.sha256 != adapter.base_sha256:
        raise IntegrityError(
            f"{adapter.name} was trained on a {adapter.base_model} of the hash {adapter.base_sha256[:12]}…, but "
            f"the one here has {base.manifest.sha256[:12]}…",
            hint="import the base that it was trained on",
        )
    return base
