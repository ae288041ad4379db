"""What is asked -> an HTTP request whose body the published schema accepts.

Bad input is refused here, before anything is sent, with the name of what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from workersai._version import __version__
from workersai.catalog import DEFAULT_MAX_TOKENS
from workersai.errors import BadRequestError
from workersai.options import CallOptions
from workersai.protocol.reply import Asked
from workersai.protocol.values import ROLES, Message, ToolCall
from workersai.settings import Settings

Input = str | Sequence[Message | Mapping[str, Any]]
"""What a call takes: a text (the service's Prompt form), or a conversation (its Messages form)."""

# The options that stand in the body under their own names; the others are headers, or never leave here.
_IN_BODY = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "lora",
    "raw",
)


@dataclass(frozen=True)
class Request:
    """An HTTP POST, ready to be sent. ``timeout`` is in seconds; None leaves it to the connection pool."""

    url: str
    headers: Mapping[str, str]
    content: bytes
    timeout: float | None

    def __repr__(self) -> str:
        # The headers hold the token.
        return f"Request(url={self.url!r}, content={len(self.content)} bytes)"


def run_request(
    settings: Settings,
    model_input: Input,
    options: CallOptions,
    *,
    response_format: Mapping[str, Any] | None = None,
    stream: bool = False,
) -> Request:
    """The request of one run.

    Raises:
        BadRequestError: the input is empty, or not of a form that the service takes.
    """
    body = _input_body(model_input)
    body |= {name: value for name in _IN_BODY if (value := getattr(options, name)) is not None}
    if response_format is not None:
        body["response_format"] = _checked_response_format(response_format, stream=stream)
    if stream:
        body["stream"] = True
    if options.reject_if_busy:
        body["options"] = {"rejectIfBusy": True}
    return Request(
        url=f"{settings.base_url}/accounts/{settings.account_id}/ai/run/{options.model}",
        headers=_headers(settings, options),
        content=_json_bytes(body),
        timeout=options.timeout,
    )


def asked_of(options: CallOptions) -> Asked:
    """What the reader of the reply must know of the request."""
    return Asked(
        model=options.model,
        max_tokens=options.max_tokens or DEFAULT_MAX_TOKENS,
        stop=tuple(options.stop or ()),
    )


def _input_body(model_input: Input) -> dict[str, Any]:
    if isinstance(model_input, str):
        if not model_input:
            raise BadRequestError("The prompt is empty: the service needs at least one character.")
        return {"prompt": model_input}
    if not isinstance(model_input, list | tuple):
        raise BadRequestError(f"A call takes a text or a list of messages, not {type(model_input).__name__}.")
    if not model_input:
        raise BadRequestError("The list of messages is empty: the service needs at least one.")
    messages = [_message(item, f"messages[{index}]") for index, item in enumerate(model_input)]
    if not any(message.content or message.tool_calls for message in messages):
        raise BadRequestError("The messages are empty: there is nothing for the model to answer.")
    return {"messages": [_message_to_wire(message) for message in messages]}


def _message(item: Message | Mapping[str, Any], where: str) -> Message:
    if isinstance(item, Mapping):
        unknown = set(item) - {"role", "content", "tool_call_id", "name"}
        if unknown or not {"role", "content"} <= set(item):
            raise BadRequestError(
                f"{where}: a message given as a dict has role and content, and may have tool_call_id and name; "
                f"this one has {', '.join(map(repr, item))}. For tool calls, use workersai.Message."
            )
        item = Message(**cast("dict[str, Any]", item))
    if not isinstance(item, Message):
        raise BadRequestError(f"{where} is neither a Message nor a dict but {type(item).__name__}.")
    if item.role not in ROLES:
        raise BadRequestError(f"{where}: the service knows no role {item.role!r}; it knows {', '.join(ROLES)}.")
    if not isinstance(item.content, str):
        raise BadRequestError(f"{where}: content must be a string, not {type(item.content).__name__}.")
    calls = item.tool_calls
    if not isinstance(calls, list | tuple) or not all(isinstance(call, ToolCall) for call in calls):
        raise BadRequestError(f"{where}: tool_calls must be a list of workersai.ToolCall.")
    return item


def _message_to_wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        # The Llama models follow a call best when it also stands in the text (wire page, "Requests").
        spoken = "\n".join(_spoken_call(call) for call in message.tool_calls)
        wire["content"] = f"{message.content}\n{spoken}" if message.content else spoken
        wire["tool_calls"] = [_call_to_wire(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        wire["name"] = message.name
    return wire


def _spoken_call(call: ToolCall) -> str:
    return _json_text({"name": call.name, "parameters": call.arguments})


def _call_to_wire(call: ToolCall) -> dict[str, Any]:
    arguments = _json_text(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _checked_response_format(response_format: Mapping[str, Any], *, stream: bool) -> Mapping[str, Any]:
    if not isinstance(response_format, Mapping):
        raise BadRequestError(f"response_format must be a dict, not {type(response_format).__name__}.")
    if response_format.get("type") not in ("json_object", "json_schema"):
        raise BadRequestError(
            f"response_format: its type must be 'json_object' or 'json_schema', got {response_format.get('type')!r}."
        )
    if stream:
        raise BadRequestError("response_format: JSON Mode does not stream on the service; ask for the whole answer.")
    return response_format


def _headers(settings: Settings, options: CallOptions) -> dict[str, str]:
    headers = {
        "authorization": f"Bearer {settings.api_token.get_secret_value()}",
        "content-type": "application/json",
        "user-agent": f"workersai-python/{__version__}",
    }
    if options.gateway is not None:
        headers["cf-aig-gateway-id"] = options.gateway
    if options.session_affinity is not None:
        headers["x-session-affinity"] = options.session_affinity
    return headers


def _json_bytes(body: Mapping[str, Any]) -> bytes:
    try:
        return _json_text(body).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        raise BadRequestError(
            f"The text holds {found!r}, half of a surrogate pair: it can't be written as UTF-8. "
            "Clean it with text.encode('utf-8', 'replace').decode()."
        ) from None


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"The request can't be written as JSON: {error}.") from None
