"""A prompt with fields, as in ``Summarise: {text}``, which a row of a table fills in."""

from __future__ import annotations

import string
from collections.abc import Mapping

from workersai.errors import BadRequestError

_TWICE = "A brace that stands for itself is written twice."


class Template:
    """A prompt with fields.

    Args:
        text: The prompt, in which ``{column}`` stands for the row's value.
        option: What it was given as, for errors.

    Attributes:
        columns: The columns that it names, each once.

    Raises:
        BadRequestError: it is no such text, or names no column.
    """

    def __init__(self, text: str, option: str) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise BadRequestError(f"{option}: {error}. {_TWICE}") from None
        for _, name, spec, conversion in parts:
            if name is not None and (not name or spec or conversion):
                shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
                raise BadRequestError(f"{option}: {shown} is not the name of a column alone. {_TWICE}")
        self._parts = [(said, name) for said, name, _, _ in parts]
        self.columns = list(dict.fromkeys(name for _, name in self._parts if name))
        if not self.columns:
            raise BadRequestError(
                f"{option} names no column, so that each row would be asked the same: write {{column}} where a row's "
                "value is to stand."
            )

    def filled(self, row: Mapping[str, str]) -> str:
        """The prompt of a row, whose values are texts."""
        return "".join(said + (row[name] if name else "") for said, name in self._parts)
