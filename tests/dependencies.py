"""What the project imports and what pyproject.toml declares; ``python -m tests.dependencies`` checks the floors.

Names are compared, so nothing here needs the libraries to be installed.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = ("workersai", "langchain_workersai", "llamaindex_workersai")
AROUND = ("tests", "examples", "benchmarks", "docs", "notebooks")

# The extras that a module may import, beside the base dependencies; the longest name that fits counts.
EXTRAS: dict[str, tuple[str, ...]] = {
    "workersai": (),
    "workersai.cli": ("cli",),
    "workersai._doctor": ("cli",),
    "workersai.commands": ("cli",),
    "workersai.commands.tables": ("cli", "batch"),
    "workersai.commands.writers": ("cli", "batch"),
    "workersai.local": ("local",),
    "workersai.ray": ("ray",),
    "workersai.tokens": ("tokens",),
    "workersai.tracing": ("otel",),
    "langchain_workersai": ("langchain",),
    "llamaindex_workersai": ("llamaindex",),
    **dict.fromkeys(AROUND, ("dev",)),
}

# Distributions whose name differs from that of their module.
DISTRIBUTIONS = {
    "IPython": "ipython",
    "griffe": "griffelib",
    "llama_index": "llama-index-core",
    "opentelemetry": "opentelemetry-api",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "vcr": "vcrpy",
    "yaml": "pyyaml",
}

# Python 3.10 doesn't list what came into the standard library later.
_STANDARD = sys.stdlib_module_names | {"tomllib"}

# Calls whose first argument is the name of a module.
_IMPORTING = {"__import__", "find_spec", "import_module", "importorskip"}


@cache
def read_project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    toml: Any = import_module("tomllib") if sys.version_info >= (3, 11) else import_module("tomli")
    project: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


@cache
def requirements_by_extra() -> dict[str, list[Requirement]]:
    """The requirements that each extra lists itself; those of the base are listed under an empty name."""
    project = read_project()
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}


def requirements_with(*extras: str) -> list[Requirement]:
    """The requirements of the base and of these extras, with those of the extras that they include."""
    found: list[Requirement] = []
    waiting, seen = ["", *extras], set[str]()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in requirements_by_extra()[extra]:
            if requirement.name == read_project()["name"]:
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def declared_in(*extras: str) -> set[str]:
    """The names of the distributions in :func:`requirements_with`."""
    return {canonicalize_name(requirement.name) for requirement in requirements_with(*extras)}


def extras_for(module: str) -> tuple[str, ...]:
    """The extras that a module may import."""
    return EXTRAS[max((name for name in EXTRAS if f"{module}.".startswith(f"{name}.")), key=len)]


def imported_modules(source: str) -> set[str]:
    """The dotted names that a source imports: anywhere in it, and as text in a call that imports."""
    tree = ast.parse(source)
    found = {name for call in _importing_calls(tree) if (name := _module_argument(call))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def computed_imports(source: str) -> list[int]:
    """The lines of calls that import a module whose name can't be read from the source."""
    return [call.lineno for call in _importing_calls(ast.parse(source)) if not _module_argument(call)]


def _importing_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _IMPORTING:
            yield node


def _module_argument(call: ast.Call) -> str | None:
    argument = call.args[0] if call.args else None
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def distribution_for(module: str) -> str | None:
    """The distribution that a dotted name is imported from, or None for the standard library and our own code."""
    top = module.split(".", maxsplit=1)[0]
    if top in _STANDARD or top in (*PACKAGES, *AROUND):
        return None
    known = [name for name in DISTRIBUTIONS if f"{module}.".startswith(f"{name}.")]
    return canonicalize_name(DISTRIBUTIONS[max(known, key=len)] if known else top)


def sources(folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The dotted name and the code of each module and notebook in these folders."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT)
            skipped = any(part.startswith(".") or part == "node_modules" for part in inside.parts)
            if skipped or path.suffix not in {".py", ".ipynb"}:
                continue
            code = path.read_text() if path.suffix == ".py" else _notebook_code(path)
            yield ".".join(inside.with_suffix("").parts).removesuffix(".__init__"), code


def _notebook_code(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@cache
def imports_by_module() -> dict[str, set[str]]:
    """The distributions that each module and notebook of the project imports."""
    return {
        name: {found for module in imported_modules(code) if (found := distribution_for(module))}
        for name, code in sources((*PACKAGES, *AROUND))
    }


def untested_floors() -> list[str]:
    """The floors that aren't the installed version: the tests in this environment say nothing about them."""
    wrong: list[str] = []
    for extra, requirements in requirements_by_extra().items():
        for requirement in requirements:
            if extra in {"dev", "docs"} or requirement.name == read_project()["name"]:
                continue
            installed = importlib.metadata.version(requirement.name)
            floor = next(bound.version for bound in requirement.specifier if bound.operator == ">=")
            if Version(installed) != Version(floor):
                wrong.append(f"{requirement} in [{extra or 'base'}]: {installed} is installed")
    return wrong


if __name__ == "__main__" and (floors := untested_floors()):
    sys.exit("Raise these floors to the versions that are installed here, which are the oldest:\n" + "\n".join(floors))
