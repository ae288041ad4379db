"""The pages of the documentation, and what their blocks of code are checked by."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import PATIENCE

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>\S[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')

FILES: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        "reviews.csv": "text\nA joy from start to end.\nNever again.\n",
        "prompt.txt": "In one sentence: what is a rainbow?",
    }
}
"""What the reader of a page has already, by its name."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class NotRun:
    """A kind of block, or of command, that is not run, and why; ``check`` is what is done in its place."""

    what: re.Pattern[str]
    why: str
    check: Callable[[str], None] | None = None


def examples_with(what: str) -> list[str]:
    """The blocks of Python, on all pages, that hold some text."""
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
    return [block.text for block in blocks if what in block.text]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    name = page.relative_to(ROOT).as_posix()
    found = []
    for fence in _FENCE.finditer(text):
        language, _, rest = fence["info"].partition(" ")
        title = _TITLE.search(rest)
        lines = [line.removeprefix(fence["indent"]) for line in fence["text"].splitlines()]
        number = text.count("\n", 0, fence.start()) + 1
        found.append(Block(name, number, language, title and title[1], "".join(f"{line}\n" for line in lines)))
    return found


@dataclass
class Reader:
    """Does what a reader of one page would do: runs its blocks one after the other, in one folder.

    Args:
        folder: Empty; files that a block has as its title are written into it.
        environment: That of the processes which are started.
    """

    folder: Path
    environment: Mapping[str, str]
    _names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    _printed: str = ""

    def take(self, block: Block) -> None:
        """Runs a block, or reads it, as its language says.

        Raises:
            AssertionError: it fails, or there is no way to check it.
        """
        do = _WAYS.get(block.language)
        assert do is not None, (
            f"{block}: nothing is known of blocks of {block.language!r}; tests/documents.py says how."
        )
        do(self, block)
        if block.title and "." in block.title and block.language not in ("python", "console"):
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)

    def run_python(self, block: Block) -> None:
        """In this process, and in the namespace of the page; unless another test runs it."""
        if any(row.what.search(block.text) for row in ELSEWHERE):
            return
        # With as many lines in front as the page has, so that a traceback shows the line of the page.
        code = compile("\n" * block.line + block.text, str(ROOT / block.page), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self._names)  # noqa: S102 - our own page
        self._printed = printed.getvalue()

    def run_console(self, block: Block) -> None:
        """Its commands, by bash; what is shown below them must be what they print."""
        shown = []
        commands = []
        for line in _joined(block.text):
            if line.startswith("$ "):
                commands.append(line[2:])
            else:
                shown.append(line)
        script = [command for command in commands if not _is_only_checked(command)]
        if script:
            self._process(["bash", "-euo", "pipefail", "-c", "\n".join(script)], block)
        if shown:
            assert self._printed.strip() == "\n".join(shown).strip(), f"{block} shows what the command does not print."

    def compare(self, block: Block) -> None:
        """A text under the title ``prints`` must be what the block before it printed."""
        if block.title == "prints":
            assert self._printed.rstrip() == block.text.rstrip(), f"{block} is not what the block before it prints."

    def find_example(self, block: Block) -> None:
        """A file of the example Worker, which tests/workersai/local/test_workerd.py runs."""
        assert block.text == (ROOT / "examples" / "worker" / str(block.title)).read_text(), block

    def read_toml(self, block: Block) -> None:
        """As Python does, which has a reader since 3.11."""
        if sys.version_info >= (3, 11):
            import tomllib  # noqa: PLC0415

            tomllib.loads(block.text)

    def _process(self, arguments: list[str], block: Block) -> None:
        done = subprocess.run(  # noqa: S603 - our own page
            arguments,
            env=dict(self.environment),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE,
            cwd=self.folder,
            check=False,
        )
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        self._printed = done.stdout


def _joined(text: str) -> Iterator[str]:
    yield from text.replace("\\\n", " ").splitlines()


def _is_only_checked(command: str) -> bool:
    for row in NOT_RUN:
        if row.what.match(command):
            if row.check is not None:
                row.check(command)
            return True
    return False


def _parsed_by(parse: Callable[[str], object]) -> Callable[[Reader, Block], None]:
    return lambda _, block: (parse(block.text), None)[1]


def check_extras(command: str) -> None:
    """The extras that a command installs are those of the package."""
    there = importlib.metadata.metadata("workersai").get_all("Provides-Extra") or []
    for extras in re.findall(r"(?:workersai|\.)\[([\w,]+)\]", command):
        unknown = set(extras.split(",")) - set(there)
        assert not unknown, f"{command!r} installs extras that are not there: {unknown}"


def check_target(command: str) -> None:
    """A target of make is there."""
    target = command.split("#", maxsplit=1)[0].split()[1]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command


def check_arguments(command: str) -> None:
    """The arguments are those that the command takes."""
    import shlex  # noqa: PLC0415

    from typer.main import get_command  # noqa: PLC0415 - takes its time

    from workersai.commands import app  # noqa: PLC0415

    _, name, *arguments = shlex.split(command, comments=True)
    group: Any = get_command(app)
    group.commands[name].make_context(name, arguments)


NOT_RUN: tuple[NotRun, ...] = (
    NotRun(re.compile(r"pip install "), "it would change the environment; its extras are looked up", check_extras),
    NotRun(re.compile(r"make "), "each target is a job of its own; it is looked up in the Makefile", check_target),
    NotRun(re.compile(r"export "), "the environment of the tests stands for it: it names the local server"),
    NotRun(re.compile(r"npm |curl -N 'http://127.0.0.1:8080"), "tests/workersai/local/test_workerd.py does the same"),
    NotRun(re.compile(r"workersai serve"), "it ends with Ctrl-C; its arguments are checked", check_arguments),
    NotRun(
        re.compile(r"workersai doctor"), "it asks first, and takes a minute; its arguments are checked", check_arguments
    ),
)
"""Commands that are not run."""

ELSEWHERE: tuple[NotRun, ...] = (
    NotRun(re.compile(r"^import ray", re.MULTILINE), "it needs a cluster: tests/workersai/test_ray.py runs it"),
    NotRun(
        re.compile(r'model="@cf/qwen/qwen3-30b-a3b-fp8"'),
        "no local model reasons: tests/workersai/test_reasoning.py runs it with a scripted one",
    ),
)
"""Blocks of Python that are run by another test."""

_WAYS: Mapping[str, Callable[[Reader, Block], None]] = {
    "python": Reader.run_python,
    "console": Reader.run_console,
    "text": Reader.compare,  # what something prints, or the code of another package, which is not installed
    "ts": Reader.find_example,
    "capnp": Reader.find_example,
    "json": _parsed_by(json.loads),
    "toml": Reader.read_toml,
    "yaml": _parsed_by(yaml.safe_load),
    "csv": _parsed_by(lambda text: list(csv.reader(io.StringIO(text), strict=True))),
}
