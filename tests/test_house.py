"""The rules of the house that a machine can check: what imports what, and how large a room may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("workersai", "langchain_workersai", "llamaindex_workersai")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# The floors of the transport, from the ground up: a module imports from its own floor or from one below it.
FLOORS = (
    {"_version", "catalog", "checks", "errors", "settings", "options", "gateway", "headers", "wordpiece", "deadline"},
    {"protocol", "pools"},
    {"calls"},
    {"flows"},
    {"jobs"},
    {"batch", "retrieval"},
    {"tracing", "spans"},
    {"transport", "aio", "loops"},
    {"client", "async_client"},
    {"connected"},
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, *, for_types: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not for_types:
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_the_protocol_imports_nothing_that_does_io_and_no_framework() -> None:
    banned = {"httpx", "asyncio", "threading", "time", "socket", "ssl", "anyio", "langchain_core", "llama_index"}
    for path in MODULES:
        if name_of(path).startswith("workersai.protocol"):
            roots = {name.split(".")[0] for name in imports_of(path)}
            assert not roots & banned, path


def test_an_import_never_points_up() -> None:
    floor = {f"workersai.{name}": number for number, names in enumerate(FLOORS) for name in names}
    for path in MODULES:
        here = floor.get(".".join(name_of(path).split(".")[:2]))
        if here is not None:
            above = {name for name in imports_of(path) if floor.get(".".join(name.split(".")[:2]), -1) > here}
            assert not above, f"{path} imports {above}"


def test_the_packages_keep_to_themselves() -> None:
    for path in MODULES:
        roots = {name.split(".")[0] for name in imports_of(path)}
        package = name_of(path).split(".")[0]
        others = {"workersai": set(PACKAGES[1:]), PACKAGES[1]: {PACKAGES[2]}, PACKAGES[2]: {PACKAGES[1]}}[package]
        assert not roots & others, path


def test_the_local_server_is_written_from_the_wire_page_alone() -> None:
    """It checks the client only as long as the two share no code but the catalog."""
    for path in MODULES:
        if name_of(path).startswith("workersai.local"):
            ours = {name for name in imports_of(path) if name.startswith("workersai.")}
            allowed = ("workersai.local", "workersai.catalog", "workersai._version")
            assert all(name.startswith(allowed) for name in ours), path


def test_nothing_else_imports_what_needs_ray() -> None:
    for path in MODULES:
        if not name_of(path).startswith("workersai.ray"):
            assert not any(name.split(".")[:2] == ["workersai", "ray"] for name in imports_of(path)), path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_over_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import workersai", "langchain_core llama_index starlette uvicorn jsonschema xllamacpp tiktoken typer ray"),
        ("import workersai", "aiohttp httpcore anyio pyarrow pandas numpy sqlite3 opentelemetry"),
        ("import langchain_workersai", "llama_index starlette uvicorn jsonschema xllamacpp tiktoken typer ray"),
        ("import llamaindex_workersai", "langchain_core starlette uvicorn jsonschema xllamacpp typer ray"),
        ("import workersai.cli", "starlette uvicorn jsonschema xllamacpp typer ray"),
    ],
)
def test_an_import_brings_in_no_more_than_it_must(statement: str, absent: str) -> None:
    code = f"import sys; {statement}; print(*(name for name in {absent.split()!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_the_types_are_shipped(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=name_of)
def test_an_init_holds_imports_and_a_sorted_all_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body[1:]:
        assert isinstance(node, ast.Import | ast.ImportFrom | ast.Assign), path


def test_each_class_variable_has_its_type() -> None:
    """Pydantic on Python 3.10 takes a plain ClassVar in a string for a field or a private attribute."""
    plain: list[str] = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
        plain += [
            f"{name_of(path)}, line {annotation.lineno}"
            for annotation in annotations
            if ast.unparse(annotation).strip("'\"") in {"ClassVar", "typing.ClassVar"}
        ]
    assert not plain
