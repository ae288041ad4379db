"""What people describe an object with -> its JSON Schema, as it is printed."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from typing_extensions import NotRequired, Required, TypedDict, get_type_hints, is_typeddict

from workersai.errors import BadRequestError

_Path = tuple[type, ...]

# As they are at run time: type checkers know them in annotations only.
_ANNOTATED: Any = Annotated
_UNION: Any = Union
_TYPED_DICT: Any = TypedDict


def json_schema_of(source: Any, where: str) -> Mapping[str, Any]:
    """The JSON Schema of a Pydantic class (of version 1 too), a TypedDict, a dataclass, or a function's parameters.

    A field of a TypedDict may be described as LangChain does it: ``Annotated[int, default_or_ellipsis, "In years."]``.

    Raises:
        BadRequestError: it has a part that JSON Schema can't say, or refers to itself.
    """
    try:
        if isinstance(source, type) and issubclass(source, BaseModel):
            return source.model_json_schema()
        if isinstance(source, type) and hasattr(source, "__fields__") and hasattr(source, "schema"):
            schema: Mapping[str, Any] = source.schema()  # Pydantic v1
            return schema
        return TypeAdapter(_for_pydantic(source, ()) if is_typeddict(source) else source).json_schema()
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        if isinstance(error, BadRequestError):
            raise BadRequestError(f"{where}: {error}") from None
        # A name in an annotation that is not there; a type that Pydantic, of either version, doesn't know.
        name = getattr(source, "__name__", type(source).__name__)
        raise BadRequestError(f"{where}: no JSON Schema can be made of {name}: {error}") from error


def unnamed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without its title and description, which a tool has itself."""
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _for_pydantic(hint: Any, path: _Path) -> Any:
    """A type with its TypedDicts made anew: Pydantic takes those of ``typing`` only on newer Pythons."""
    if is_typeddict(hint):
        return _typed_dict(hint, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None or origin is Literal:
        return hint
    if origin in (Required, NotRequired):
        return _for_pydantic(arguments[0], path)
    if origin is Annotated:
        told = (_for_pydantic(arguments[0], path), *_told(arguments[1:]))
        return _ANNOTATED[told]
    inner = tuple(_for_pydantic(argument, path) for argument in arguments)
    if inner == arguments:
        return hint
    return _UNION[inner] if origin in (Union, types.UnionType) else origin[inner]


def _typed_dict(source: Any, path: _Path) -> Any:
    if source in path:
        cycle = " -> ".join(each.__name__ for each in (*path[path.index(source) :], source))
        raise BadRequestError(f"the schema refers to itself ({cycle}), and the service takes no recursive schema")
    fields = {
        name: _field(hint, required=_is_required(hint, name in source.__required_keys__), path=(*path, source))
        for name, hint in get_type_hints(source, include_extras=True).items()
    }
    made = _TYPED_DICT(source.__name__, fields)
    made.__doc__ = source.__doc__
    return made


def _is_required(hint: Any, otherwise: bool) -> bool:  # noqa: FBT001 - what the class says
    """Whether a field is required, by its own mark if it has one.

    The class doesn't know a mark in an annotation that is a string, nor on Python 3.10 that of ``typing_extensions``.
    """
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    mark = get_origin(hint)
    return mark is Required if mark in (Required, NotRequired) else otherwise


def _field(hint: Any, *, required: bool, path: _Path) -> Any:
    annotated = _for_pydantic(hint, path)
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return (Required if required and not _has_default(metadata) else NotRequired)[annotated]


def _has_default(metadata: tuple[Any, ...]) -> bool:
    return _in_langchains_way(metadata) and metadata[0] is not ...


def _in_langchains_way(metadata: tuple[Any, ...]) -> bool:
    return len(metadata) == 2 and isinstance(metadata[1], str) and not isinstance(metadata[0], FieldInfo)  # noqa: PLR2004


def _told(metadata: tuple[Any, ...]) -> tuple[Any, ...]:
    """A description by itself, or behind a default, as Pydantic has it; anything else is Pydantic's own."""
    if _in_langchains_way(metadata):
        default, description = metadata
        extra = {} if default is ... or default is None else {"default": default}
        return (Field(description=description, json_schema_extra=extra),)
    return tuple(Field(description=one) if isinstance(one, str) else one for one in metadata)
