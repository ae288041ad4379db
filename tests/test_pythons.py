"""How `make test-pythons` finds the interpreters of a machine."""

import os
import sys
from pathlib import Path

import pytest

from tests.dependencies import declared_in, read_project
from tests.pythons import NEEDED_BY, Outcome, find_interpreter, supported_versions

OWN = "{}.{}".format(*sys.version_info)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the interpreters here are shell scripts")


def write_script(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def write_interpreter(path: Path) -> Path:
    return write_script(path, f'exec "{sys.executable}" "$@"')


def test_a_shim_that_refuses_to_run_is_passed_over(tmp_path: Path) -> None:
    shim = write_script(tmp_path / "shims" / f"python{OWN}", "echo 'command not found' >&2; exit 127")
    real = write_interpreter(tmp_path / "bin" / f"python{OWN}")
    path = os.pathsep.join([str(shim.parent), str(tmp_path / "nothing"), str(real.parent)])
    assert find_interpreter(OWN, path, tmp_path) == real
    assert find_interpreter(OWN, str(shim.parent), tmp_path) is None


def test_an_interpreter_of_another_version_is_passed_over(tmp_path: Path) -> None:
    other = "3.8"
    write_interpreter(tmp_path / f"python{other}")
    assert find_interpreter(other, str(tmp_path), tmp_path) is None


def test_the_newest_interpreter_of_pyenv_is_found(tmp_path: Path) -> None:
    for patch in ("9", "10", "2", "11-dev"):
        write_interpreter(tmp_path / "versions" / f"{OWN}.{patch}" / "bin" / "python")
    assert find_interpreter(OWN, "", tmp_path) == tmp_path / "versions" / f"{OWN}.10" / "bin" / "python"


def test_the_versions_are_those_that_the_project_supports() -> None:
    versions = supported_versions()
    assert f">={versions[0]}" == read_project()["requires-python"]
    named = {line.rsplit(" ")[-1] for line in read_project()["classifiers"] if "Python :: 3." in line}
    assert named <= set(versions)


def test_what_may_have_no_wheel_is_declared() -> None:
    assert set(NEEDED_BY) <= declared_in("dev")


def test_the_summary_names_what_was_skipped() -> None:
    outcome = Outcome("3.99", "passed", ["2.0 minutes", "no wheel for ray, so skipped: tests/workersai/test_ray.py"])
    assert str(outcome).splitlines() == [
        "Python 3.99: passed",
        "    2.0 minutes",
        "    no wheel for ray, so skipped: tests/workersai/test_ray.py",
    ]
