"""Whether the body of a ``/run`` request is one that the published schema accepts, told in the service's words.

The schema's ``input.oneOf`` can't be used as it stands: its Async Batch form requires nothing, so that any body
with messages fits two forms at once. The form is picked by its key instead, and only that form is applied.

Keys that the schema does not list are ignored, as the service does, or refused if the server is strict, so that tests
find a client that sends too much. :mod:`~workersai.local.leniency` says in what else the two differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from workersai.local.intake import check_value_count
from workersai.local.leniency import HONOURED, MESSAGE_KEYS, listed_part, without_descriptions
from workersai.local.tools import forced_name, function_of
from workersai.local.wire import WireError, bad_input, strict_json

Json = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")

_SCHEMA = "llama-3.3-70b-instruct-fp8-fast.schema.json"
_TOOL_CHOICES = ("auto", "none", "required")
# Far more than a tool's or a schema's parameters take, and far less than Python's own recursion can bear.
_MAX_DEPTH = 100
# What makes a mapping a JSON Schema rather than OpenAI's envelope around one.
_SCHEMA_KEYS = {"type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "items"}


def body_from_json(content: bytes) -> Json:
    """The body as an object.

    Raises:
        WireError: it is not JSON in UTF-8, not an object, or nested too deep (5006), or holds too many values (3006).
    """
    check_value_count(content)
    try:
        body = strict_json(content.decode())
    except ValueError:
        raise bad_input("the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise bad_input("the body must be a JSON object")
    _check_values(body)
    return body


def run_body(body: Json, *, strict: bool) -> Json:
    """The part of a body that counts: all of it, or what the schema lists.

    Raises:
        WireError: anything about it is wrong (5006, or 3039 for a LoRA), with the place and the reason.
    """
    if not strict:
        form = _form(body)
        body = listed_part(body, form, _listed(form))
    check_run_body(body, strict=strict)
    return body


def check_run_body(body: Json, *, strict: bool = True) -> None:
    """Lets a body pass that the service accepts.

    Raises:
        WireError: anything about it is wrong (5006, or 3039 for a LoRA), with the place and the reason.
    """
    form = _form(body)
    unknown = body.keys() - _listed(form) - HONOURED[form]
    if unknown:
        raise bad_input(f"'/{min(unknown)}' is not a field of the {form} form")
    check_with(validator_for(form, strict=strict), body)
    check_max_tokens(body)
    check_options(body.get("options", {}))
    _check_lora(body)
    if form == "messages":
        _check_messages(body["messages"])
        check_tool_choice(body)
    check_response_format(body)


def check_with(validator: Draft202012Validator, body: Json, place: str = "") -> None:
    """Holds ``body``, which stands at ``place`` of the request, against a schema.

    Raises:
        WireError: it does not fit (5006).
    """
    error = best_match(validator.iter_errors(body))
    if error is not None:
        raise bad_input(_in_the_services_words(_innermost(error), place))


def _check_values(body: Json) -> None:
    """Refuses what JSON can spell and hardly anything can handle: an endless nest, half of a surrogate pair."""
    level: list[Any] = [body]
    for _ in range(_MAX_DEPTH):
        inner = [part for value in level for part in _parts(value)]
        if any(isinstance(part, str) and not _is_unicode(part) for part in inner):
            raise bad_input("the body holds half of a surrogate pair, which is no character")
        level = inner
    if level:
        raise bad_input(f"the body is nested deeper than {_MAX_DEPTH} levels")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _is_unicode(text: str) -> bool:
    return text.isascii() or text == text.encode(errors="replace").decode()


def _form(body: Json) -> str:
    """``prompt`` or ``messages``."""
    if "requests" in body:
        raise bad_input("a batch is submitted with ?queueRequest=true")
    forms = [key for key in ("prompt", "messages") if key in body]
    if len(forms) == 2:  # noqa: PLR2004 - there are two
        raise bad_input("a request has either 'prompt' or 'messages', not both")
    if not forms:
        raise bad_input("must have required property 'prompt' or 'messages'")
    return forms[0]


@cache
def validator_for(form: str, *, strict: bool = True) -> Draft202012Validator:
    """Checks the published schema of one form, or what the service makes of it."""
    # The published schema lies in the package, so that an installed wheel has it too.
    published = json.loads(resources.files("workersai.local").joinpath(_SCHEMA).read_text(encoding="utf-8"))
    forms = published["input"]["oneOf"] if strict else without_descriptions(published["input"]["oneOf"])
    return Draft202012Validator(next(entry for entry in forms if form in entry["properties"]))


@cache
def _listed(form: str) -> frozenset[str]:
    schema: Any = validator_for(form).schema
    return frozenset(schema["properties"])


def _innermost(error: ValidationError) -> ValidationError:
    """Of a tool that fits neither form, what is wrong with the form that it comes nearest to."""
    while error.validator == "oneOf" and error.context:
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    return error


def _in_the_services_words(error: ValidationError, place: str) -> str:
    place += "".join(f"/{part}" for part in error.absolute_path)
    return f"'{place}' {_complaint(error)}" if place else _complaint(error)


def _complaint(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    instance: Any = error.instance
    if error.validator == "required":
        missing = next(name for name in wanted if name not in instance)
        return f"must have required property '{missing}'"
    templates = {
        "maximum": "must be <= {}",
        "minimum": "must be >= {}",
        "type": "must be {}",
        "minLength": "must NOT have fewer than {} characters",
        "enum": "must be equal to one of the allowed values",
        "oneOf": "must match exactly one schema in oneOf",
    }
    return templates[str(error.validator)].format(wanted)


def check_max_tokens(body: Json, place: str = "") -> None:
    """Lets an answer have one token at least.

    Raises:
        WireError: it is to have none (5006).
    """
    # The schema names no lower bound; an answer of no tokens is none.
    if body.get("max_tokens", 1) < 1:
        raise bad_input(f"'{place}/max_tokens' must be >= 1")


def check_options(options: Any) -> None:
    """Lets the ``options`` beside an input pass.

    Raises:
        WireError: they are no object, or one with something else than ``rejectIfBusy`` (5006).
    """
    if not isinstance(options, dict) or not isinstance(options.get("rejectIfBusy", False), bool):
        raise bad_input("'/options' must be an object whose rejectIfBusy is boolean")
    unknown = options.keys() - {"rejectIfBusy"}
    if unknown:
        raise bad_input(f"'/options/{min(unknown)}' is not an option")


def _check_lora(body: Json) -> None:
    if "lora" not in body:
        return
    if not isinstance(body["lora"], str):
        raise bad_input("'/lora' must be string")
    raise WireError(400, 3039, f"AiError: Finetune {body['lora']!r} lacks required files: the local server has none")


def _check_messages(messages: list[Json]) -> None:
    if not messages:
        raise bad_input("'/messages' must NOT have fewer than 1 items")
    for index, message in enumerate(messages):
        unknown = message.keys() - MESSAGE_KEYS
        if unknown:
            raise bad_input(f"'/messages/{index}/{min(unknown)}' is not a field of a message")
        if message["role"] not in ROLES:
            raise bad_input(f"'/messages/{index}/role' must be one of {', '.join(ROLES)}")
        _check_message_calls(message, f"/messages/{index}")


def _check_message_calls(message: Json, place: str) -> None:
    for name in ("name", "tool_call_id"):
        if not isinstance(message.get(name, ""), str):
            raise bad_input(f"'{place}/{name}' must be string")
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise bad_input(f"'{place}/tool_calls' must be array of objects")


def check_tool_choice(body: Json) -> None:
    """Holds ``tool_choice`` against the tools, which are a list of objects.

    Raises:
        WireError: it is none that the service knows, or demands a call that no tool of the request can be (5006).
    """
    choice = body.get("tool_choice", "auto")
    tools = body.get("tools", [])
    if isinstance(choice, str) and choice in _TOOL_CHOICES:
        if choice == "required" and not tools:
            raise bad_input("'/tools' must NOT have fewer than 1 items where '/tool_choice' is required")
        return
    function = choice.get("function") if isinstance(choice, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise bad_input(f"'/tool_choice' must be one of {', '.join(_TOOL_CHOICES)}, or name a function")
    if forced_name(choice) not in [function_of(tool).get("name") for tool in tools]:
        raise bad_input("'/tool_choice/function/name' must be equal to the name of one of the tools")


def check_response_format(body: Json, place: str = "") -> None:
    """Lets the JSON Mode pass that the service has.

    Raises:
        WireError: it is another (5006).
    """
    wanted = body.get("response_format")
    if wanted is None:
        return
    if "type" not in wanted:
        raise bad_input(f"'{place}/response_format' must have required property 'type'")
    if body.get("stream"):
        raise bad_input("'/stream' must be false: JSON Mode does not stream")
    if wanted["type"] == "json_schema":
        _check_bare_schema(wanted.get("json_schema"), f"'{place}/response_format/json_schema'")


def _check_bare_schema(schema: Any, place: str) -> None:
    if not isinstance(schema, dict):
        raise bad_input(f"{place} must be a JSON Schema")
    # The service does not understand OpenAI's envelope (wire.md#json-mode), and would constrain nothing.
    if "schema" in schema and not schema.keys() & _SCHEMA_KEYS:
        raise bad_input(f"{place} must be the bare JSON Schema, without the envelope of name, schema and strict")
