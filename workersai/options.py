"""What one call may ask for: each setting, its range and its meaning, written once for all three packages.

The ranges are those of the published JSON Schema (the Prompt and the Messages form). A value of None leaves a setting
to the service; given to one call, it takes back what the client or the model was made with.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from workersai.catalog import DEFAULT_MODEL, EMBEDDING_CATALOG, RERANKER_CATALOG
from workersai.checks import shown
from workersai.errors import BadRequestError
from workersai.gateway import Gateway, checked_gateway, plain_gateway
from workersai.headers import checked_header_value
from workersai.pacing import RateLimit

# The name goes into the URL's path as it stands, so nothing in it may mean something there.
_MODEL_NAME = re.compile(r"(?!.{201})@[\w-]+(/[\w-][\w.-]*)+", re.ASCII)
AUTO = "auto"
"""The session affinity that is one id a conversation."""

_LONGEST_TIMEOUT = 1_000_000  # about what every platform's sockets take


@dataclass(frozen=True)
class _Between:
    low: float
    high: float

    def __call__(self, value: float | None) -> float | None:
        if value is not None and not self.low <= value <= self.high:
            raise ValueError(f"must be between {self.low:g} and {self.high:.10g}")
        return value


def checked_model(name: str, example: str = DEFAULT_MODEL) -> str:
    """A model's full name, as it may stand in a path."""
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError(f"must be a model's full name, which begins with @, as in {example!r}")
    return name


def _checked_generator(name: str) -> str:
    """A model's name, and not one of those that are known to write no text."""
    if name in EMBEDDING_CATALOG or name in RERANKER_CATALOG:
        raise ValueError("must be a model that generates text; this one is for embeddings or for reranking")
    return checked_model(name)


def _checked_positive(value: float | None) -> float | None:
    if value is not None and not 0 < value <= _LONGEST_TIMEOUT:
        raise ValueError(f"must be a number of seconds above 0, and {_LONGEST_TIMEOUT:,} at most")
    return value


def _checked_at_least_one(value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ValueError("must be at least 1")
    return value


def _checked_prompt_form(form: PromptForm | None, info: ValidationInfo) -> PromptForm | None:
    if form == "chat" and info.data.get("raw"):
        raise ValueError(
            "can't be 'chat' with raw=True, which sends a text without the chat template. Leave out prompt_form, or raw"
        )
    return form


def _checked_stop(stop: str | Sequence[str] | None) -> list[str] | None:
    if stop is None:
        return None
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise ValueError("must not hold an empty string, which every text begins with")
    return stops


PromptForm = Literal["chat", "completion"]
"""How a text is sent: as the message of a user, or as a prompt that the model continues."""

_HeaderValue = Annotated[str | None, AfterValidator(checked_header_value)]
_GivenGateway = Annotated[
    Gateway | Mapping[str, Any] | str | None,
    PlainValidator(checked_gateway),
    PlainSerializer(plain_gateway),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}),
]


class RequestOptions(BaseModel):
    """The settings that requests to any model share."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, AfterValidator(checked_model)]
    """The model's full name."""

    gateway: _GivenGateway = None
    """The AI Gateway that the call goes through: its id, a :class:`~workersai.Gateway`, or a dict of its settings."""

    session_affinity: _HeaderValue = None
    """Calls of the same id reach the same model instance, so that its prefix cache is hit.

    ``"auto"``: one id a conversation: LangGraph's ``thread_id`` where there is one, else by the conversation's
    beginning, up to its first user's message. A text counts as the message of a user; whoever keeps a whole
    conversation in one text gives an id of their own. The ids are digests. In bulk work each row has its own, and
    what goes by the Batch API has none; nor has what asks for vectors or scores.
    """

    reject_if_busy: bool | None = None
    """True: fail at once with :class:`~workersai.errors.RateLimitError` where the service would queue the call."""

    timeout: Annotated[float | None, AfterValidator(_checked_positive)] = None
    """Seconds to wait for the reply, and between two pieces of it, at each attempt; 120 by default.

    A connection must stand within 10 of them. An ``http_client`` of one's own brings its own, if it was given one. The
    wait for a turn of a ``rate_limit`` is no part of it.
    """

    rate_limit: RateLimit | None = None
    """The limit that the call keeps, with all others of this process that name it: it waits for its turn; see
    :class:`~workersai.RateLimit`. By default none."""

    deadline: Annotated[float | None, AfterValidator(_checked_positive)] = None
    """Seconds for the whole call, with its retries and, for a stream, up to its last delta. Default: no limit.

    Raises :class:`~workersai.errors.APITimeoutError` when exceeded. Its ``partial`` holds all that was received.
    The deadline holds in each phase, from looking up the host to decompression, and is checked before each delta. Time
    that your code spends between deltas counts. A retry is skipped if too little time is left. With your own
    ``httpx.Client``, the deadline is checked between two pieces of the body, and limits each single wait before.
    """

    max_retries: Annotated[int | None, Field(ge=0)] = None
    """Further attempts after a failure that is worth one; 2 by default, 0 for none."""

    max_reply_bytes: Annotated[int | None, Field(ge=1)] = None
    """The most bytes of a reply, after decompression. Default: 67,108,864 (64 MiB).

    A larger reply raises :class:`~workersai.errors.ServerError`; for a stream, its ``partial`` holds what was received
    before. It protects your process from a server, or a proxy, that doesn't stop sending.
    """


class CallOptions(RequestOptions):
    """The settings of one call; each can be given to a client's method, to a model's constructor, or to one call."""

    model: Annotated[str, AfterValidator(_checked_generator)] = DEFAULT_MODEL
    """The model's full name, as in ``@cf/meta/llama-3.3-70b-instruct-fp8-fast`` (the default)."""

    temperature: Annotated[float | None, AfterValidator(_Between(0, 5))] = None
    """Randomness, 0 to 5; the service takes 0.6 where none is given."""

    top_p: Annotated[float | None, AfterValidator(_Between(0.001, 1))] = None
    """Share of the probability mass that is sampled from, 0.001 to 1."""

    top_k: Annotated[int | None, AfterValidator(_Between(1, 50))] = None
    """How many of the likeliest tokens are sampled from, 1 to 50."""

    seed: Annotated[int | None, AfterValidator(_Between(1, 9_999_999_999))] = None
    """Seed of the sampling, 1 to 9,999,999,999."""

    repetition_penalty: Annotated[float | None, AfterValidator(_Between(0, 2))] = None
    """Penalty for repeated tokens, 0 to 2."""

    frequency_penalty: Annotated[float | None, AfterValidator(_Between(-2, 2))] = None
    """Penalty by how often a token came already, -2 to 2."""

    presence_penalty: Annotated[float | None, AfterValidator(_Between(-2, 2))] = None
    """Penalty for a token that came already, -2 to 2."""

    max_tokens: Annotated[int | None, AfterValidator(_checked_at_least_one)] = None
    """Most tokens of the answer; by default what the prompt leaves of the window, up to ``default_max_tokens``.

    Of a model that the catalog doesn't list the window is not known: without either, the service takes 256.
    """

    default_max_tokens: Annotated[int | None, AfterValidator(_checked_at_least_one)] = None
    """Most tokens of the answer where ``max_tokens`` is None; 4,096 by default, for models of the catalog."""

    on_overflow: Literal["error", "trim", "send"] | None = None
    """What becomes of a prompt that, with room for the answer, is over the window (of a model in the catalog).

    ``"error"``, the default: :class:`~workersai.errors.ContextWindowExceededError`, and nothing is sent. ``"trim"``:
    the oldest turns are left out, until the rest fits; the system messages and the last user message with all that
    follows it stay. Without ``max_tokens``, room is made for ``default_max_tokens``, at most for half the window.
    ``"send"``: the service decides.
    """

    stop: Annotated[str | Sequence[str] | None, AfterValidator(_checked_stop)] = None
    """Strings that end the answer; applied here, not by the service. The text ends before the first of them."""

    lora: Annotated[str | None, Field(min_length=1)] = None
    """A finetune's id or name."""

    raw: bool | None = None
    """True: the service applies no chat template, and a text holds the model's own markup.

    A text is sent as a prompt then, as with ``prompt_form="completion"``.
    """

    prompt_form: Annotated[PromptForm | None, AfterValidator(_checked_prompt_form)] = None
    """How a text is sent. Default: ``"chat"``; with ``raw=True``, ``"completion"``.

    ``"chat"``: as the message of a user, which the model answers. ``"completion"``: in the service's Prompt form. The
    model then continues the text, because the service applies no chat template to a prompt (wire.md#requests).
    Tools need ``"chat"``. Lists of messages are sent as messages in either form.
    """


class SharedOptions(TypedDict, total=False):
    """The fields of :class:`RequestOptions`, for type checkers."""

    gateway: Gateway | Mapping[str, Any] | str | None
    session_affinity: str | None
    reject_if_busy: bool | None
    timeout: float | None
    rate_limit: RateLimit | None
    deadline: float | None
    max_retries: int | None
    max_reply_bytes: int | None


class Options(SharedOptions, total=False):
    """The keyword arguments of a call: the fields of :class:`CallOptions`, for type checkers."""

    model: str
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    max_tokens: int | None
    default_max_tokens: int | None
    on_overflow: Literal["error", "trim", "send"] | None
    stop: str | Sequence[str] | None
    lora: str | None
    raw: bool | None
    prompt_form: PromptForm | None


OptionsT = TypeVar("OptionsT", bound=RequestOptions)


def call_options(given: Mapping[str, Any], *, beside: Collection[str] = ()) -> CallOptions:
    """The checked options of a call. ``beside`` are the keywords that may stand with them, for the error.

    Raises:
        BadRequestError: a value is out of its range or of the wrong type, or there is no such option; it names each.
    """
    return checked_options(CallOptions, given, beside=beside)


def checked_options(kind: type[OptionsT], given: Mapping[str, Any], *, beside: Collection[str] = ()) -> OptionsT:
    """The same for the options of another kind of request.

    Raises:
        BadRequestError: as :func:`call_options`.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        known = [*kind.model_fields, *beside]
        raise BadRequestError(" ".join(_sentence(problem, known) for problem in error.errors())) from None


_ELSEWHERE = {"stream": " For the answer in pieces, call stream in place of run."}


def _sentence(problem: Any, known: Collection[str]) -> str:
    name = ".".join(map(str, problem["loc"][:1]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else _ELSEWHERE.get(name, "")
        return f"{name} is no option of a call; there are: {', '.join(known)}.{meant}"
    says = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {says}, got {shown(problem['input'])}."
