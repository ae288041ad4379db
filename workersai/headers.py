"""What may go into a request header."""

from __future__ import annotations

import re

_LONGEST_HEADER = 4_096  # characters; servers take 8,192 bytes for all headers, or a few times that


def checked_header_value(value: str | None) -> str | None:
    """A value that may go into a request header: printable ASCII, so that it can't end the header and begin another.

    Raises:
        ValueError: it may not.
    """
    if value is not None and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", value):
        raise ValueError("must be printable ASCII that neither begins nor ends with a space, and not empty")
    if value is not None and len(value) > _LONGEST_HEADER:
        raise ValueError(f"must have at most {_LONGEST_HEADER:,} characters")
    return value
