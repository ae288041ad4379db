"""What an Async Batch of prompts may hold, checked as the published schema says."""

from __future__ import annotations

from functools import cache
from typing import Any

from workersai.local.validation import (
    Json,
    check_max_tokens,
    check_response_format,
    check_with,
    run_body,
    validator_for,
)
from workersai.local.wire import bad_input


def batch_body(body: Json, *, strict: bool) -> Json:
    """The part of a body that counts: all of it, or what the schema lists.

    Raises:
        WireError: anything about it is wrong (5006), with the place and the reason.
    """
    if strict and body.keys() != {"requests"}:
        raise bad_input("a batch has 'requests', and nothing else")
    if "requests" not in body:
        raise bad_input("must have required property 'requests'")
    body = {"requests": body["requests"]}
    check_with(validator_for("requests"), body)
    if not body["requests"]:
        raise bad_input("'/requests' must NOT have fewer than 1 items")
    items = enumerate(body["requests"])
    return {"requests": [_item(item, f"/requests/{index}", strict=strict) for index, item in items]}


def _item(item: Json, place: str, *, strict: bool) -> Json:
    if not strict and "messages" in item and "prompt" not in item:
        return _item_of_messages(item, place)
    if not strict:
        item = {name: value for name, value in item.items() if name in _listed()}
    if "prompt" not in item:
        raise bad_input(f"'{place}' must have required property 'prompt'")
    unknown = item.keys() - _listed()
    if unknown:
        raise bad_input(f"'{place}/{min(unknown)}' is not a field of a batch's request")
    _check_not_streamed(item, place)
    check_max_tokens(item, place)
    check_response_format(item, place)
    return item


def _item_of_messages(item: Json, place: str) -> Json:
    """An item that the schema doesn't list: a script in production is known to send such to the default model."""
    part = run_body({name: value for name, value in item.items() if name != "external_reference"}, strict=False)
    _check_not_streamed(part, place)
    return part | {name: value for name, value in item.items() if name == "external_reference"}


def _check_not_streamed(item: Json, place: str) -> None:
    if item.get("stream"):
        raise bad_input(f"'{place}/stream' must be false: a batch does not stream")


@cache
def _listed() -> frozenset[str]:
    schema: Any = validator_for("requests").schema
    return frozenset(schema["properties"]["requests"]["items"]["properties"])
