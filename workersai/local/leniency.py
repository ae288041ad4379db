"""What the service accepts beside what its published schema says, and what becomes of it.

Sources: langchain-cloudflare sends ``stop: null`` with every call, and the schema sets no ``additionalProperties:
false``. The example in the README of workers-ai-provider has a tool whose parameters have no descriptions; that a tool
needs none either is supposed. The types of workerd allow a message's content as a list of text parts. A null where the
schema lists a field is refused (capture e19: ``'string' not in 'null'``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# Not in the schema, but honoured by the service (wire.md#options, wire.md#tool-choice).
HONOURED: Mapping[str, frozenset[str]] = {
    "prompt": frozenset({"options"}),
    "messages": frozenset({"options", "tool_choice", "lora"}),
}
MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_call_id", "tool_calls"})

# What the schema of a message lists; a null is no value for these.
_LISTED_OF_MESSAGE = frozenset({"role", "content"})
_OPTIONS = frozenset({"rejectIfBusy"})


def listed_part(body: Mapping[str, Any], form: str, listed: Collection[str]) -> dict[str, Any]:
    """A run's body without what the service does not read: unknown fields, and those that are unlisted and null."""
    part = _known(body, listed, HONOURED[form])
    if "options" in part:
        part["options"] = listed_options(part["options"])
    if isinstance(part.get("messages"), list):
        part["messages"] = [_listed_message(message) for message in part["messages"]]
    return part


def listed_options(options: Any) -> Any:
    """The options beside an input, without what the service does not read."""
    if options is None:
        return {}
    return _known(options, (), _OPTIONS) if isinstance(options, Mapping) else options


def without_descriptions(schema: Any) -> Any:
    """A copy of a schema that requires no ``description`` anywhere."""
    if isinstance(schema, list):
        return [without_descriptions(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: [field for field in part if field != "description"]
        if name == "required" and isinstance(part, list)
        else without_descriptions(part)
        for name, part in schema.items()
    }


def _listed_message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    part = _known(message, _LISTED_OF_MESSAGE, MESSAGE_KEYS - _LISTED_OF_MESSAGE)
    if "content" in part:
        part["content"] = _joined(part["content"])
    return part


def _joined(content: Any) -> Any:
    """The text of a list of text parts; anything else as it is, for the schema to judge."""
    if not isinstance(content, list) or not content:
        return content
    parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(content) else content


def _known(fields: Mapping[str, Any], listed: Collection[str], honoured: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in listed or (name in honoured and value is not None)}
