"""Docstrings as they are written in the code, in Sphinx's roles, -> the Markdown of the site."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from html import escape
from typing import Any

from griffe import AliasResolutionError, Extension, NameResolutionError, Object

_ROLE = re.compile(r":(?:class|meth|mod|func|attr|data|exc):`(?P<short>~)?(?P<target>[\w.]+)`")
_EVIDENCE = re.compile(r"\s\((wire\.md#[\w-]+(, wire\.md#[\w-]+)*|the schema)\)")
_CODE_BLOCK = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\w+)\n\n(?P<code>(?:(?P=indent) +.*\n?|\n)+)", re.MULTILINE
)
_LITERAL = re.compile(r"^(?P<before>.*\S)::\n\n(?P<code>(?: +.*\n?|\n)+)", re.MULTILINE)
_TABLE = re.compile(r"^(?P<rule>=+(?: +=+)+)\n(?P<head>.+)\n(?P=rule)\n(?P<rows>(?:.+\n)+?)(?P=rule)$", re.MULTILINE)


class Roles(Extension):
    """Rewrites each docstring that is loaded."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, lambda name: _resolved(obj, name))


def to_markdown(text: str, resolved: Callable[[str], str]) -> str:
    """A docstring as Markdown; ``resolved`` gives the full name of a name in it."""
    text = _CODE_BLOCK.sub(lambda found: _fenced(found["code"], found["language"], found["indent"]), text)
    text = _LITERAL.sub(lambda found: f"{found['before']}:\n\n{_fenced(found['code'], 'python', '')}", text)
    text = _TABLE.sub(_table, text)
    text = _EVIDENCE.sub("", text)  # which page of the project a fact is from is nothing to a reader of the site
    return _ROLE.sub(lambda found: _reference(found, resolved), text)


def _reference(role: re.Match[str], resolved: Callable[[str], str]) -> str:
    """A link where the site has the object, and its name as code where it has not."""
    target = role["target"]
    shown = target.rpartition(".")[2] if role["short"] else target
    return f'<autoref identifier="{escape(resolved(target))}" optional><code>{escape(shown)}</code></autoref>'


def _resolved(obj: Object, name: str) -> str:
    try:
        return obj.resolve(name)
    except (NameResolutionError, AliasResolutionError):
        return name


def _fenced(code: str, language: str, indent: str) -> str:
    lines = [f"```{language}", *textwrap.dedent(code).strip("\n").splitlines(), "```", ""]
    return "\n".join(f"{indent}{line}" if line else line for line in lines)


def _table(found: re.Match[str]) -> str:
    starts = [rule.start() for rule in re.finditer("=+", found["rule"])]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    rows = [[line[start:end].strip() for start, end in spans] for line in (found["head"], *found["rows"].splitlines())]
    written = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([written[0], "| --- " * len(spans) + "|", *written[1:]])
