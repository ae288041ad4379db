"""What LangChain takes for a tool or a schema -> a :class:`workersai.Tool`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.tools import Tool as OfOneText
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic.errors import PydanticUserError

from workersai.errors import BadRequestError
from workersai.protocol.sources import json_schema_of, unnamed
from workersai.protocol.tools import tool_of, tool_to_openai
from workersai.protocol.values import Tool

ToolSource = Mapping[str, Any] | type | Callable[..., Any] | BaseTool


def tools_from_langchain(sources: Sequence[ToolSource], *, strict: bool | None = None) -> list[Tool]:
    """Tools as LangChain's ``bind_tools`` takes them: functions, Pydantic classes, TypedDicts, tools, dicts.

    Raises:
        BadRequestError: one can't be made a tool of; it is named.
    """
    if not isinstance(sources, list | tuple):
        raise BadRequestError(f"tools must be a list, not {type(sources).__name__}.")
    return [tool_from_langchain(source, f"tools[{index}]", strict=strict) for index, source in enumerate(sources)]


def tool_from_langchain(source: ToolSource, where: str, *, strict: bool | None = None) -> Tool:
    """The same of one tool. ``strict`` as its own dict says, where it isn't given."""
    try:
        tool = tool_of(_described(source, where), where)
    except (TypeError, ValueError, NameError, KeyError, PydanticUserError) as error:
        if isinstance(error, BadRequestError):
            raise
        raise BadRequestError(f"{where} can't be made a tool of: {error}") from error
    return tool if strict is None else replace(tool, strict=strict)


def plain(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a call with tools and classes as dicts, which the clients take and LangChain can tell apart.

    LangChain's cache knows two classes of one name by that name alone.
    """
    rest = dict(kwargs)
    if rest.get("tools"):
        rest["tools"] = [tool_to_openai(tool) for tool in tools_from_langchain(rest["tools"])]
    if isinstance(rest.get("response_format"), type):
        rest["response_format"] = {
            "type": "json_schema",
            "json_schema": json_schema_of(rest["response_format"], "response_format"),
        }
    return rest


def envelope_of(tool: Tool) -> dict[str, Any]:
    """The ``response_format`` for an answer in the form of a tool's parameters, as OpenAI has it."""
    named = {"name": tool.name, "description": tool.description, "schema": dict(tool.parameters), "strict": tool.strict}
    return {"type": "json_schema", "json_schema": named}


def _described(source: ToolSource, where: str) -> Any:
    """What :func:`workersai.protocol.tools.tool_of` takes.

    LangChain's own conversion is used for the formats that only LangChain knows. It breaks off references that go in
    a circle without a word; so the schema itself is taken wherever it can be had.
    """
    if isinstance(source, BaseTool):
        if isinstance(source, OfOneText) and not source.args_schema:
            return convert_to_openai_tool(source)
        schema = source.tool_call_schema
        parameters = schema if isinstance(schema, dict) else json_schema_of(schema, where)
        return Tool(source.name, source.description, unnamed(parameters))
    if isinstance(source, type):
        if issubclass(source, BaseTool):
            raise BadRequestError(f"{where} is the class {source.__name__}: make a tool of it.")
        return source
    if isinstance(source, Mapping):
        return convert_to_openai_tool(source) if "toolSpec" in source else source  # Amazon's shape
    if callable(source):
        name = getattr(source, "__name__", "")
        model = create_schema_from_function(
            name, source, filter_args=(), parse_docstring=True, error_on_invalid_docstring=False, include_injected=False
        )
        return Tool(name, model.__doc__ or "", unnamed(json_schema_of(model, where)))
    return source
