"""The tools of a request: which of them the model may call, and how it is told of them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from workersai.local.engine import CalledTool, ChatMessage, End, Event, GenerationRequest, TextPiece
from workersai.local.wire import strict_json

# What the parameters of most tools have beside their properties: the grammar keeps to it, and the model need not
# read it.
_UNTOLD = frozenset({"type", "properties", "required", "additionalProperties", "title", "$schema"})
_NO_PARAMETERS: Mapping[str, Any] = {"properties": {}}
# Without it, so small a model takes the pattern of its first call up again, and calls once more.
_WORDS_WANTED = "\nAnswer my question with it, in words."


@dataclass(frozen=True)
class Tool:
    """One tool that the model may call; ``parameters`` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name, description and parameters of a tool in either of the wire's shapes, the bare one and OpenAI's."""
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def forced_name(choice: str | Mapping[str, Any] | None) -> str | None:
    """The name of the tool that a ``tool_choice`` demands, if it names one."""
    if not isinstance(choice, Mapping):
        return None
    name: str = choice["function"]["name"]
    return name


def offered_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    """The tools that the model may call in its answer: the one that is demanded, none of them, or all."""
    if request.tool_choice == "none":
        return ()
    wanted = forced_name(request.tool_choice)
    tools = [_tool(function_of(tool)) for tool in request.tools]
    return tuple(tool for tool in tools if wanted in (None, tool.name))


def must_call(request: GenerationRequest) -> bool:
    """Whether the answer has to be a call."""
    return request.tool_choice == "required" or forced_name(request.tool_choice) is not None


def messages_with_tools(messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> list[dict[str, str]]:
    """A conversation for a chat template, told of ``tools`` in its system message.

    Only role and text of each message are left, which every template knows: calls that stand nowhere in the text are
    written into it, and a tool's answer is what the user says next.
    """
    told = [_told_message(message) for message in messages]
    if messages and messages[-1].role == "tool":
        told[-1]["content"] += _WORDS_WANTED
    if not tools:
        return told
    system = _system_text(tools)
    if told and told[0]["role"] == "system":
        return [{"role": "system", "content": f"{told[0]['content']}\n\n{system}"}, *told[1:]]
    return [{"role": "system", "content": system}, *told]


async def with_calls(events: AsyncGenerator[Event, None], tools: Sequence[Tool]) -> AsyncGenerator[Event, None]:
    """Turns an answer that is a call of one of ``tools`` into that; any other text goes through piece by piece.

    What begins like a call is held until its end. If it ends halfway, or is another object, it is a text after all.
    """
    begun, held = False, ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextPiece) and (held or (not begun and event.text.startswith("{"))):
                held += event.text
            elif isinstance(event, End) and held:
                call = _call_from_answer(held, tools)
                yield call or TextPiece(held)
                yield replace(event, finish_reason="tool_calls") if call else event
            else:
                yield event
            begun = True


def _call_from_answer(text: str, tools: Iterable[Tool]) -> CalledTool | None:
    """The call that an answer is, or None: it was cut short, or is another object."""
    try:
        value = strict_json(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.keys() != {"name", "parameters"}:
        return None
    name, arguments = value["name"], value["parameters"]
    if not isinstance(arguments, dict) or not any(name == tool.name for tool in tools):
        return None
    return CalledTool(name, arguments)


def _tool(function: Mapping[str, Any]) -> Tool:
    parameters = function.get("parameters") or _NO_PARAMETERS
    # The arguments of a call are an object on the wire, whatever the parameters say.
    return Tool(function["name"], function.get("description") or "", {**parameters, "type": "object"})


def _system_text(tools: Iterable[Tool]) -> str:
    """Llama's own words: of all that were tried, SmolLM2-135M follows them most often."""
    listed = "\n".join(json.dumps(_told(tool), ensure_ascii=False) for tool in tools)
    return (
        "Given the following functions, please respond with a JSON for a function call with its proper arguments that "
        'best answers the given prompt. Respond in the format {"name": function name, "parameters": dictionary of '
        f"argument name and its value}}.\n{listed}"
    )


def _told(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters
    if parameters.keys() <= _UNTOLD:
        parameters = parameters.get("properties", {})
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def _told_message(message: ChatMessage) -> dict[str, str]:
    if message.role == "tool":
        named = f"The function {message.name}" if message.name else "The function"
        return {"role": "user", "content": f"{named} returned: {message.content}"}
    return {"role": message.role, "content": message.content or "\n".join(map(_told_call, message.tool_calls))}


def _told_call(call: Mapping[str, Any]) -> str:
    """A call of the history in either shape, written as the model is asked to write one."""
    function = function_of(call)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = strict_json(arguments)
    return json.dumps({"name": function.get("name"), "parameters": arguments}, ensure_ascii=False)
