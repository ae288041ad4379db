"""Replies that are only reasoning, for the parser of ``with_structured_output``.

A call that must return an object or a tool call raises ``ReasoningOnlyError`` for such a reply. The parser needs the
message instead: its own error is LangChain's ``OutputParserException``, and ``include_raw`` returns the message.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any

from workersai.errors import ReasoningOnlyError
from workersai.protocol.values import Completion, Delta

ALLOW_REASONING_ONLY = "allow_reasoning_only"
"""The keyword of a call. True: a reply that is only reasoning is returned as a message. Default: False."""


def run_allowed(run: Callable[[], Completion], kwargs: Mapping[str, Any]) -> Completion:
    """The completion of a call, or the one that its error holds if the call allows it."""
    try:
        return run()
    except ReasoningOnlyError as error:
        return _completion_from_error(error, kwargs)


async def arun_allowed(run: Awaitable[Completion], kwargs: Mapping[str, Any]) -> Completion:
    """As :func:`run_allowed`."""
    try:
        return await run
    except ReasoningOnlyError as error:
        return _completion_from_error(error, kwargs)


def allowed_deltas(deltas: Generator[Delta, None, None], kwargs: Mapping[str, Any]) -> Generator[Delta, None, None]:
    """The deltas of a stream. If the call allows it, a stream that fails so ends with the completion instead."""
    # Each delta would pay for another generator on its way, and few calls need it.
    return _allowed_deltas(deltas, kwargs) if kwargs.get(ALLOW_REASONING_ONLY) else deltas


def allowed_adeltas(deltas: AsyncGenerator[Delta, None], kwargs: Mapping[str, Any]) -> AsyncGenerator[Delta, None]:
    """As :func:`allowed_deltas`."""
    return _allowed_adeltas(deltas, kwargs) if kwargs.get(ALLOW_REASONING_ONLY) else deltas


def _allowed_deltas(deltas: Generator[Delta, None, None], kwargs: Mapping[str, Any]) -> Generator[Delta, None, None]:
    with closing(deltas):
        try:
            yield from deltas
        except ReasoningOnlyError as error:
            yield _last_delta(_completion_from_error(error, kwargs))


async def _allowed_adeltas(
    deltas: AsyncGenerator[Delta, None], kwargs: Mapping[str, Any]
) -> AsyncGenerator[Delta, None]:
    async with aclosing(deltas):
        try:
            async for delta in deltas:
                yield delta
        except ReasoningOnlyError as error:
            yield _last_delta(_completion_from_error(error, kwargs))


def _completion_from_error(error: ReasoningOnlyError, kwargs: Mapping[str, Any]) -> Completion:
    if not kwargs.get(ALLOW_REASONING_ONLY) or error.partial is None:
        raise error
    return error.partial


def _last_delta(completion: Completion) -> Delta:
    return Delta(usage=completion.usage, finish_reason=completion.finish_reason, completion=completion)
