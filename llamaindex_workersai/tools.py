"""LlamaIndex's tools -> a :class:`workersai.Tool`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.tools.types import BaseTool

from workersai.errors import BadRequestError
from workersai.protocol.sources import json_schema_of, unnamed
from workersai.protocol.values import Tool


def tools_from_llamaindex(tools: Sequence[BaseTool]) -> list[Tool | Any]:
    """Tools as LlamaIndex has them; what is none of its tools goes along as it is.

    Raises:
        BadRequestError: a tool's parameters can't be said as JSON Schema.
    """
    if not isinstance(tools, list | tuple):
        raise BadRequestError(f"tools must be a list, not {type(tools).__name__}.")
    return [_tool(tool, f"tools[{index}]") if isinstance(tool, BaseTool) else tool for index, tool in enumerate(tools)]


def _tool(tool: BaseTool, where: str) -> Tool:
    metadata = tool.metadata
    # The schema itself: LlamaIndex's own dict of it leaves parts of it out.
    schema = metadata.get_parameters_dict() if metadata.fn_schema is None else json_schema_of(metadata.fn_schema, where)
    return Tool(name=metadata.name or "", description=metadata.description or "", parameters=unnamed(schema))
