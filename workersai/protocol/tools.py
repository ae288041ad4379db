"""Tools, from whatever describes a function -> what a request offers the model, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workersai.errors import BadRequestError
from workersai.protocol.refs import Node
from workersai.protocol.schema import accepted_parameters, words_of
from workersai.protocol.sources import json_schema_of, unnamed
from workersai.protocol.values import Tool

ToolLike = Tool | Mapping[str, Any] | type | Callable[..., Any]
"""What a tool can be made of: a :class:`~workersai.Tool`, a dict (OpenAI's shape, the bare one of name, description
and parameters, Anthropic's, MCP's, or a JSON Schema with a title), a Pydantic class, a TypedDict, or a function."""

ToolChoice = str | bool | Mapping[str, Any]
"""``"auto"`` (as None and False: the model chooses), ``"none"``, ``"required"`` (as ``"any"`` and True), a tool's name,
or OpenAI's dict that names one."""

_NONE: Node = {"type": "object", "properties": {}}
# Where a dict has the parameters: OpenAI's, Anthropic's, MCP's, and OpenAI's envelope of a response format.
_PARAMETERS = ("parameters", "input_schema", "inputSchema", "schema")
_BESIDE_PARAMETERS = frozenset({"name", "description", "strict", "type", "cache_control"})
_FORCED = ("required", "any")


@dataclass(frozen=True)
class Offer:
    """The tools of one request.

    Attributes:
        tools: As the request has them.
        choice: The ``tool_choice`` of the request; None leaves it to the service, which lets the model choose.
        callable_names: The tools that the model may call.
        nullable: The schemas of those tools in whose arguments nulls must be put back.
        parameter_names: The names of the parameters, by the tool's name.
    """

    tools: tuple[dict[str, Any], ...] = ()
    choice: str | dict[str, Any] | None = None
    callable_names: frozenset[str] = frozenset()
    nullable: Mapping[str, Node] = field(default_factory=dict)
    parameter_names: Mapping[str, frozenset[str]] = field(default_factory=dict)


_NO_OFFER = Offer()


def offer_of(sources: Sequence[ToolLike] | None, choice: ToolChoice | None, *, same_twice: bool = False) -> Offer:
    """What a request offers. ``same_twice`` lets a tool pass that stands there twice.

    Raises:
        BadRequestError: a tool has no name, or one that another has; its parameters are no JSON Schema of an object;
            the choice names none of the tools.
    """
    if sources is None and choice is None:
        return _NO_OFFER
    tools = tools_of(sources, same_twice=same_twice)
    names = [tool.name for tool in tools]
    accepted = [accepted_parameters(tool.parameters, f"tool {tool.name!r}", closed=tool.strict) for tool in tools]
    wire_choice = _choice_to_wire(choice, names)
    return Offer(
        tools=tuple(_tool_to_wire(tool, one.schema) for tool, one in zip(tools, accepted, strict=True)),
        choice=wire_choice,
        callable_names=frozenset() if wire_choice == "none" else frozenset(names),
        nullable={tool.name: tool.parameters for tool, one in zip(tools, accepted, strict=True) if one.lacks_nulls},
        parameter_names={
            tool.name: frozenset(one.schema.get("properties", ())) for tool, one in zip(tools, accepted, strict=True)
        },
    )


def tools_of(sources: Sequence[ToolLike] | None, *, same_twice: bool = False) -> list[Tool]:
    """The tools, each with a name of its own.

    Raises:
        BadRequestError: there is one without a name, or two of one name.
    """
    if sources is None:
        return []
    if not isinstance(sources, list | tuple):
        raise BadRequestError(f"tools must be a list, not {type(sources).__name__}.")
    tools = [tool_of(source, f"tools[{index}]") for index, source in enumerate(sources)]
    by_name: dict[str, Tool] = {}
    for index, tool in enumerate(tools):
        if tool.name in by_name and not (same_twice and tool == by_name[tool.name]):
            raise BadRequestError(f"tools[{index}]: there are two tools of the name {tool.name!r}; rename one.")
        by_name[tool.name] = tool
    return list(by_name.values())


def tool_of(source: ToolLike, where: str = "tool") -> Tool:
    """A tool from what describes it; see :data:`ToolLike`.

    A function is named after itself, and its docstring is the description; its parameters are those that its
    annotations tell.

    Raises:
        BadRequestError: nothing can be told from it, or it has no name.
    """
    if isinstance(source, Tool):
        tool = source
    elif isinstance(source, Mapping):
        tool = _tool_from_mapping(source, where)
    elif callable(source):
        name = getattr(source, "__name__", "")
        schema = json_schema_of(source, where)
        described = schema.get("description") or ("" if isinstance(source, type) else inspect.getdoc(source))
        tool = Tool(name=name, description=described or "", parameters=unnamed(schema))
    else:
        raise BadRequestError(
            f"{where} must be a workersai.Tool, a dict, a Pydantic class, a TypedDict or a function, "
            f"not {type(source).__name__}."
        )
    if not isinstance(tool.name, str) or not tool.name.strip():
        raise BadRequestError(f"{where} has no name: the model calls a tool by its name.")
    if not isinstance(tool.description, str):
        raise BadRequestError(f"{where} ({tool.name}): its description must be a string.")
    return tool


def tool_to_openai(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's dict, with its schema as it was given: what frameworks hand on and trace."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function | ({"strict": True} if tool.strict else {})}


def _tool_from_mapping(source: Mapping[str, Any], where: str) -> Tool:
    function = source.get("function", source)
    if not isinstance(function, Mapping):
        raise BadRequestError(f"{where}: function must be a dict with name, description and parameters.")
    if "function" not in source and ("title" in source or "properties" in source):
        # A JSON Schema of the parameters, with the tool's name as its title, or beside it.
        name = source.get("name", source.get("title", ""))
        schema = {key: value for key, value in unnamed(source).items() if key != "name"}
        return Tool(name=name, description=source.get("description") or "", parameters=schema or _NONE)
    kind = source.get("type", "function")
    given = next((key for key in _PARAMETERS if key in function), None)
    if kind != "function" and given is None:
        raise BadRequestError(f"{where} is a tool of the type {kind!r}: the service knows functions only.")
    unknown = set(function) - _BESIDE_PARAMETERS
    if given is None and unknown:
        has = ", ".join(map(repr, function))
        raise BadRequestError(f"{where}: a tool's dict has name, description and parameters; this one has {has}.")
    return Tool(
        name=function.get("name", ""),
        description=function.get("description") or "",
        parameters=(function[given] if given else None) or _NONE,
        strict=function.get("strict") is True,
    )


def _tool_to_wire(tool: Tool, parameters: dict[str, Any]) -> dict[str, Any]:
    # The schema demands a description of a tool, too.
    described = tool.description or words_of(tool.name)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": described, "parameters": unnamed(parameters)},
    }


def _choice_to_wire(choice: ToolChoice | None, names: list[str]) -> str | dict[str, Any] | None:
    if choice is None or choice is False:
        return None
    if choice in ("auto", "none"):
        return str(choice) if names else None
    if not names:
        raise BadRequestError(f"tool_choice: {choice!r} asks for a call, but there are no tools.")
    if choice is True or choice in _FORCED:
        # "required" is only advice to the model; a named tool is enforced (wire.md#tool-choice).
        return _named(names[0]) if len(names) == 1 else "required"
    name = choice if isinstance(choice, str) else _name_in(choice)
    if name not in names:
        raise BadRequestError(f"tool_choice: there is no tool {name!r}; there are {', '.join(map(repr, names))}.")
    return _named(name)


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _name_in(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise BadRequestError(
            "tool_choice must be 'auto', 'none', 'required', 'any', a bool, a tool's name, or "
            f'{{"type": "function", "function": {{"name": ...}}}}, not {choice!r}.'
        )
    return name
