"""The rules of the house: imports point down, heavy libraries have one home, importing does nothing."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("local_llm", "training", "serving", "index")
MAY_IMPORT = {
    "local_llm": set(),
    "index": {"local_llm"},
    "training": {"local_llm"},
    "serving": {"local_llm", "index", "training"},
}
# Each has at most one home in a package: a file, or one of its folders.
HEAVY = {"faiss", "trl", "peft", "sentence_transformers", "llama_index", "markitdown", "pypdfium2", "openvino"}
HEAVY |= {"pymilvus", "ray"}
MODEL_LIBRARIES = HEAVY | {"torch", "transformers", "vllm"}
# An integration's classes are classes of its library: the folder is a second home of it, and importing it is
# importing the library. Only those who use the library themselves do; none of our own modules may.
INTEGRATIONS = {"llama_index": REPOSITORY / "index" / "llama_index"}


def modules(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """First parts of the names that the nodes of `tree` import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def imported_at_module_level(tree: ast.Module) -> set[str]:
    """What importing the module imports: not what functions do, nor what is only there for the type checker."""
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside += [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    deferred = {child for block in inside for child in ast.walk(block)}
    top = ast.Module(
        body=[n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and n not in deferred],
        type_ignores=[],
    )
    return imported(top)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_down(package: str) -> None:
    for path in modules(package):
        tree = ast.parse(path.read_text())
        others = imported(tree) & set(PACKAGES) - {package}
        if package == "local_llm":
            # The front door reaches the rooms from a command's body only.
            assert not imported_at_module_level(tree) & set(PACKAGES) - {package}, path
            assert not others or path.parent.name == "cli", path
        else:
            assert others <= MAY_IMPORT[package], path


@pytest.mark.parametrize("package", PACKAGES)
def test_each_heavy_library_has_one_home_in_a_package(package: str) -> None:
    homes = defaultdict(list)
    for path in modules(package):
        for library in imported(ast.parse(path.read_text())) & HEAVY:
            if path.parent != INTEGRATIONS.get(library):
                homes[library].append(path)
    assert {library: files for library, files in homes.items() if not one_home(package, files)} == {}


def one_home(package: str, files: list[Path]) -> bool:
    folders = {path.parent for path in files}
    return len(files) == 1 or (len(folders) == 1 and folders != {REPOSITORY / package})


def test_integrations_are_for_others_to_import() -> None:
    for package in PACKAGES:
        for path in modules(package):
            if path.parent not in INTEGRATIONS.values():
                found = re.findall(
                    r"^\s*(?:from|import) (index\.llama_index|index import .*llama_index)", path.read_text(), re.M
                )
                assert not found, path


@pytest.mark.parametrize("library", INTEGRATIONS)
def test_importing_an_integration_loads_its_library_and_nothing_else(library: str) -> None:
    names = [name for name in importable() if name.startswith(dotted(INTEGRATIONS[library]))]
    assert names
    assert_importing_loads(names, {library})


def test_no_model_library_on_the_ground_floor() -> None:
    for path in modules("local_llm"):
        assert not imported(ast.parse(path.read_text())) & MODEL_LIBRARIES, path


def test_vllm_is_only_ever_a_process() -> None:
    for package in PACKAGES:
        for path in modules(package):
            assert "vllm" not in imported(ast.parse(path.read_text())), path


def test_importing_everything_does_nothing() -> None:
    """No model library is loaded, no thread started, no environment changed."""
    integrations = tuple(dotted(folder) for folder in INTEGRATIONS.values())
    assert_importing_loads([name for name in importable() if not name.startswith(integrations)], set())


def importable() -> list[str]:
    return [
        dotted(path.with_suffix(""))
        for package in PACKAGES
        for path in modules(package)
        if "migrations" not in path.parts and path.name != "__init__.py"
    ]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).parts)


def assert_importing_loads(names: list[str], libraries: set[str]) -> None:
    program = f"""
import importlib, os, sys, threading
before = dict(os.environ)
for name in {names!r}:
    importlib.import_module(name)
loaded = set(sys.modules) & {MODEL_LIBRARIES!r}
assert loaded == {libraries!r}, loaded
assert threading.active_count() == 1, threading.enumerate()
assert dict(os.environ) == before
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_gateway_loads_no_torch() -> None:
    program = "import serving.gateway, sys; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_every_setting_is_documented() -> None:
    subprocess.run([sys.executable, "scripts/write_docs.py", "--check"], cwd=REPOSITORY, check=True)
