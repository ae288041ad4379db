"""What people describe an object with -> its JSON Schema, as it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError

from workersai.errors import BadRequestError


def json_schema_of(source: Any, where: str) -> Mapping[str, Any]:
    """The JSON Schema of a Pydantic class (of version 1 too), a TypedDict, or a function's parameters.

    Raises:
        BadRequestError: it has a part that JSON Schema can't say.
    """
    try:
        schema: Mapping[str, Any]
        if isinstance(source, type) and issubclass(source, BaseModel):
            schema = source.model_json_schema()
        elif isinstance(source, type) and hasattr(source, "__fields__") and hasattr(source, "schema"):
            schema = source.schema()  # Pydantic v1
        else:
            schema = TypeAdapter(source).json_schema()
    except (PydanticUserError, NameError) as error:  # a name in an annotation that is not there
        name = getattr(source, "__name__", type(source).__name__)
        raise BadRequestError(f"{where}: no JSON Schema can be made of {name}: {error}") from error
    return schema


def unnamed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without its title and description, which a tool has itself."""
    return {key: value for key, value in schema.items() if key not in ("title", "description")}
