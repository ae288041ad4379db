"""What is asked -> an HTTP request whose body the published schema accepts.

Bad input is refused here, before anything is sent, with the name of what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from pydantic import SecretStr

from workersai._version import __version__
from workersai.errors import BadRequestError
from workersai.gateway import gateway_of
from workersai.options import AUTO, CallOptions, RequestOptions
from workersai.protocol.history import checked_history
from workersai.protocol.json_mode import JSONMode
from workersai.protocol.tools import Offer
from workersai.protocol.values import ROLES, InvalidToolCall, Message, ToolCall
from workersai.settings import DEFAULT_MAX_REPLY_BYTES, Settings

Input = str | Sequence[Message | Mapping[str, Any]]
"""The input of a call: a text, or a conversation. A text is sent as ``prompt_form`` says."""

IN_BODY = (
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
"""The options that stand in the body under their own names; the others are headers, or never leave here."""


_SHORTEST_TOKEN = 8  # characters; a shorter one is none of Cloudflare's, and may be a part of any word


@dataclass(frozen=True)
class Request:
    """An HTTP request, ready to be sent.

    Attributes:
        url: Where to.
        headers: The headers by name in lower case. Secrets are ``SecretStr``, which no ``repr`` shows.
        content: The body.
        timeout: Seconds for each wait; None leaves it to the transport.
        max_reply_bytes: The most decoded bytes of the reply.
        method: The HTTP method. Default: POST, as every call of a model is.
    """

    url: str
    headers: Mapping[str, str | SecretStr]
    content: bytes
    timeout: float | None
    max_reply_bytes: int = DEFAULT_MAX_REPLY_BYTES
    method: Literal["GET", "POST"] = "POST"

    def __repr__(self) -> str:
        return f"Request(url={self.url!r}, content={len(self.content)} bytes)"

    def without_token(self, text: str) -> str:
        """The text with the token hidden; a gateway that is being debugged may quote the request's headers."""
        authorization = self.headers["authorization"]
        assert isinstance(authorization, SecretStr)  # noqa: S101 - for the type checker
        token = SecretStr(authorization.get_secret_value().removeprefix("Bearer "))
        return text if len(token) < _SHORTEST_TOKEN else text.replace(token.get_secret_value(), "***")


@dataclass(frozen=True)
class InputBody:
    """The ``prompt`` or the ``messages`` of a request's body, and the messages that it was made of."""

    wire: dict[str, Any]
    messages: tuple[Message, ...] = ()


def input_body(model_input: Input, options: CallOptions, offer: Offer) -> InputBody:
    """The ``prompt`` or the ``messages`` of a request's body.

    Raises:
        BadRequestError: the input is empty, or not of a form that the service takes.
    """
    if isinstance(model_input, str):
        if not model_input:
            raise BadRequestError("The prompt is empty: the service needs at least one character.")
        if options.raw or options.prompt_form == "completion":
            if offer.tools:
                raise BadRequestError(_no_tools(options))
            return InputBody({"prompt": model_input})
        # The model would continue a prompt, not answer it: the service applies no chat template (wire.md#prompt-form).
        model_input = [Message("user", model_input)]
    if not isinstance(model_input, list | tuple):
        raise BadRequestError(f"A call takes a text or a list of messages, not {type(model_input).__name__}.")
    if not model_input:
        raise BadRequestError("The list of messages is empty: the service needs at least one.")
    messages = tuple(_message(item, f"messages[{index}]") for index, item in enumerate(model_input))
    if not any(message.content or message.tool_calls or message.invalid_tool_calls for message in messages):
        raise BadRequestError("The messages are empty: there is nothing for the model to answer.")
    wire = [_message_to_wire(message) for message in checked_history(messages)]
    return InputBody({"messages": wire}, messages)


def used_call_ids(messages: Sequence[Message]) -> frozenset[str]:
    """The ids of the tool calls that the messages hold."""
    calls = {call.id for message in messages for call in message.tool_calls}
    invalid = {call.id for message in messages for call in message.invalid_tool_calls}
    results = {message.tool_call_id for message in messages if message.tool_call_id is not None}
    return frozenset(calls | invalid | results)


def run_request(
    settings: Settings,
    model_input: Mapping[str, Any],
    options: CallOptions,
    *,
    max_tokens: int | None,
    offer: Offer | None = None,
    json_mode: JSONMode | None = None,
    stream: bool = False,
) -> Request:
    """The request of one run.

    Args:
        settings: Who calls, and where.
        model_input: As :func:`input_body` makes it, or a part of the messages.
        options: Those of the call.
        max_tokens: What to ask for in place of the options' own; None leaves it to the service.
        offer: The tools, if there are any.
        json_mode: What the answer must look like, if it is to be JSON.
        stream: Whether the answer is to come in pieces.

    Raises:
        BadRequestError: it can't be written as JSON, or as UTF-8.
    """
    body = dict(model_input)
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    body |= {name: value for name in IN_BODY if (value := getattr(options, name)) is not None}
    if offer and offer.tools:
        body["tools"] = offer.tools
        if offer.choice is not None:
            body["tool_choice"] = offer.choice
    if json_mode is not None:
        body["response_format"] = json_mode.wire
    if stream:
        body["stream"] = True
    if options.reject_if_busy:
        body["options"] = {"rejectIfBusy": True}
    form = "stream" if stream else "json" if json_mode is not None else ""
    return request_to(settings, options, json_bytes(body), form=form)


def without_stream(request: Request) -> Request:
    """The same request for a whole reply."""
    body = json.loads(request.content)
    body.pop("stream", None)
    return replace(request, content=json_bytes(body))


def request_to(
    settings: Settings, options: RequestOptions, content: bytes, *, query: str = "", form: str = ""
) -> Request:
    """The request that sends a body to the model's address; ``form`` is that of the reply, see :class:`Gateway`."""
    return Request(
        url=f"{settings.base_url}/accounts/{settings.account_id}/ai/run/{options.model}{query}",
        headers=_headers(settings, options, form),
        content=content,
        timeout=options.timeout,
        max_reply_bytes=options.max_reply_bytes or DEFAULT_MAX_REPLY_BYTES,
    )


def _no_tools(options: CallOptions) -> str:
    given = "raw=True" if options.raw else "prompt_form='completion'"
    return (
        f"{given} sends the text as a prompt, and the service takes no tools with a prompt. Leave out {given} to send "
        "the text as a message, or leave out the tools."
    )


def messages_to_wire(messages: Sequence[Message | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as a request has them, also where they are only a part of a conversation.

    Raises:
        BadRequestError: one is not of a form that the service takes.
    """
    return [_message_to_wire(_message(item, f"messages[{index}]")) for index, item in enumerate(messages)]


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
    broken = item.invalid_tool_calls
    if not isinstance(broken, list | tuple) or not all(isinstance(call, InvalidToolCall) for call in broken):
        raise BadRequestError(f"{where}: invalid_tool_calls must be a list of workersai.InvalidToolCall.")
    return item


def _message_to_wire(message: Message) -> dict[str, Any]:
    # The Llama models follow a call best when it also stands in the text (wire.md#history).
    spoken = [_spoken_call(call) for call in message.tool_calls]
    broken = [f'{{"name":{json_text(call.name)},"parameters":{call.arguments}}}' for call in message.invalid_tool_calls]
    wire: dict[str, Any] = {
        "role": message.role,
        "content": "\n".join(filter(None, [message.content, *spoken, *broken])),
    }
    if message.tool_calls:
        wire["tool_calls"] = [_call_to_wire(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        wire["name"] = message.name
    return wire


def _spoken_call(call: ToolCall) -> str:
    return json_text({"name": call.name, "parameters": call.arguments})


def _call_to_wire(call: ToolCall) -> dict[str, Any]:
    arguments = json_text(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _headers(settings: Settings, options: RequestOptions, form: str) -> dict[str, str | SecretStr]:
    headers: dict[str, str | SecretStr] = {
        "authorization": SecretStr(f"Bearer {settings.api_token.get_secret_value()}"),
        "content-type": "application/json",
        "user-agent": f"workersai-python/{__version__}",
    }
    if options.gateway is not None:
        headers |= gateway_of(options.gateway).headers(form)
    if options.session_affinity not in (None, AUTO):  # what is of no conversation has no id
        headers["x-session-affinity"] = options.session_affinity
    return headers


def json_bytes(body: Any) -> bytes:
    """What is sent, as compact JSON.

    Raises:
        BadRequestError: it can't be written so, or not as UTF-8.
    """
    try:
        return json_text(body).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        raise BadRequestError(
            f"The text holds {found!r}, half of a surrogate pair: it can't be written as UTF-8. "
            "Clean it with text.encode('utf-8', 'replace').decode()."
        ) from None


def json_text(value: Any) -> str:
    """A value as compact JSON.

    Raises:
        BadRequestError: it can't be written so.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"The request can't be written as JSON: {error}.") from None
