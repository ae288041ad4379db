"""The dialects of ``/ai/run``: the shapes that its routes have answered in, of which a local server speaks one.

See wire.md#whole-replies and wire.md#streams. The OpenAI-compatible twin has a shape of its own, whatever the
dialect.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from workersai.local.choices import ChatDialect, HybridDialect, RunFormat
from workersai.local.engine import GenerationRequest
from workersai.local.text_completion import TextCompletionDialect
from workersai.local.wire import REST, Dialect, Manner, NativeDialect

DialectName: TypeAlias = Literal["native", "hybrid", "chat"]
"""``native``: the text in ``response``; Llama until mid-2026, and other models. ``hybrid``: OpenAI's ``choices``, with
``response`` and ``tool_calls`` beside them; Llama 3.3 since August 2026. ``chat``: ``choices`` only; the newer models.
"""

DEFAULT_DIALECT: DialectName = "hybrid"
"""As the service answers for the default model now."""


def checked_dialect(name: str) -> DialectName:
    """``name``, if it is a dialect.

    Raises:
        ValueError: it isn't.
    """
    for known in get_args(DialectName):
        if name == known:
            dialect: DialectName = known
            return dialect
    raise ValueError(f"dialect must be {', '.join(map(repr, get_args(DialectName)))}; got {name!r}.")


def has_template(dialect: DialectName) -> bool:
    """Whether a prompt is read as a user's message; otherwise, the model continues its text (sample w07)."""
    return dialect == "native"


def run_dialect(
    name: DialectName, request: GenerationRequest, *, tell_cached: bool = False, manner: Manner = REST
) -> Dialect:
    """The format of the reply to a request.

    Args:
        name: The dialect that the server speaks.
        request: The request. A prompt gets a text completion, except in the native dialect.
        tell_cached: The request named a session, so that ``usage`` has the number of cached tokens.
        manner: How the route wraps results and errors. Default: REST's.
    """
    json_mode = request.json_schema is not None
    if name == "native":
        return NativeDialect(json_mode=json_mode, tell_cached=tell_cached, manner=manner)
    told = RunFormat(request.model, manner, json_mode=json_mode, tell_cached=tell_cached)
    if request.prompt is not None:
        return TextCompletionDialect(told)
    return HybridDialect(told) if name == "hybrid" else ChatDialect(told)
