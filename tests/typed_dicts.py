"""TypedDicts with every qualifier, whose annotations are strings, as PEP 563 makes them.

``PLAIN`` has the same without it. Each class comes out as :data:`PARAMETERS`.
"""

from __future__ import annotations

import typing
from typing import Annotated, Any

import typing_extensions as te
from pydantic import Field


class _Place(te.TypedDict, total=False):
    city: te.Required[str]
    zip: str


class Postponed(te.TypedDict):
    """A trip."""

    to: Annotated[str, Field(description="Where to.")]
    by: te.NotRequired[str]
    days: te.NotRequired[Annotated[int, Field(ge=1, description="How long.")]]
    seats: Annotated[te.NotRequired[int], "How many."]
    price: te.ReadOnly[te.NotRequired[float]]
    place: te.ReadOnly[_Place]


class _Base(typing.TypedDict):
    to: Annotated[str, Field(description="Where to.")]
    by: te.NotRequired[str]
    days: te.NotRequired[Annotated[int, Field(ge=1, description="How long.")]]


class PostponedHeir(_Base, total=False):
    """A trip."""

    seats: Annotated[int, "How many."]
    price: float
    place: te.Required[_Place]


PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "City"},
        "zip": {"type": "string", "description": "Zip"},
    },
    "required": ["city"],
    "description": "Place",
}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "description": "Where to."},
        "by": {"type": "string", "description": "By"},
        "days": {"type": "integer", "minimum": 1, "description": "How long."},
        "seats": {"type": "integer", "description": "How many."},
        "price": {"type": "number", "description": "Price"},
        "place": PLACE,
    },
    "required": ["to", "place"],
}


def _plain() -> list[type]:
    """The same classes, with annotations that are evaluated when the class is made."""
    place: Any = te.TypedDict("place", {"city": te.Required[str], "zip": str}, total=False)
    to = Annotated[str, Field(description="Where to.")]
    days = te.NotRequired[Annotated[int, Field(ge=1, description="How long.")]]
    made: list[type] = []
    for make in (typing.TypedDict, te.TypedDict):
        fields = {
            "to": to,
            "by": te.NotRequired[str],
            "days": days,
            "seats": Annotated[te.NotRequired[int], "How many."],
            "price": te.NotRequired[float],
            "place": place,
        }
        one: Any = make("Plain", fields)  # type: ignore[operator]
        one.__doc__ = "A trip."
        made.append(one)
    return made


TRIPS: list[type] = [Postponed, PostponedHeir, *_plain()]
