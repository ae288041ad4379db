"""What LlamaIndex's callbacks and instrumentation are told of bulk work: of each input what they are of a call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from uuid import uuid4

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.event_handlers import NullEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import NullSpanHandler
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.events.span import SpanDropEvent
from typing_extensions import Self

from workersai.batch import without_the_jobs

BatchInput = str | Sequence[ChatMessage]
"""A prompt, whose answer is a ``CompletionResponse``, or a conversation, whose answer is a ``ChatResponse``."""
Response = ChatResponse | CompletionResponse

_dispatcher = get_dispatcher(__name__)


class Telling:
    """A context that tells of the inputs of one job; those that have no answer at its end are told its error.

    Where nobody listens, no input is held.

    Args:
        llm: Whose job it is.
        kwargs: What the job was called with.
    """

    def __init__(self, llm: BaseLLM, kwargs: Mapping[str, Any]) -> None:
        self._callbacks = llm.callback_manager
        self._listened_to = bool(self._callbacks.handlers) or _is_heard()
        self._llm = llm
        self._kwargs = without_the_jobs(kwargs)
        self._model = llm.to_payload()
        self._caller = active_span_id.get()
        self._begun: dict[int, _Begun] = {}

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for index in list(self._begun):
                self.end(index, error)

    def begin(self, index: int, given: BatchInput) -> None:
        """An input was taken."""
        if not self._listened_to:
            return
        method = self._llm.complete if isinstance(given, str) else self._llm.chat
        span = f"{type(self._llm).__name__}.{method.__name__}-{uuid4()}"
        bound = inspect.signature(method).bind(given, **self._kwargs)
        tags = active_instrument_tags.get()
        _dispatcher.span_enter(span, bound, instance=self._llm, parent_id=self._caller, tags=tags)
        about: dict[str, Any] = {"additional_kwargs": self._kwargs, "model_dict": self._model, "span_id": span}
        if isinstance(given, str):
            _dispatcher.event(LLMCompletionStartEvent(prompt=given, **about))
        else:
            _dispatcher.event(LLMChatStartEvent(messages=list(given), **about))
        how = {EventPayload.ADDITIONAL_KWARGS: self._kwargs, EventPayload.SERIALIZED: self._model}
        event = self._callbacks.on_event_start(CBEventType.LLM, payload=_asked(given) | how)
        self._begun[index] = _Begun(given, event, span, bound)

    def end(self, index: int, outcome: Response | BaseException) -> None:
        """An input has its answer, or its error."""
        if (begun := self._begun.pop(index, None)) is None:
            return
        given, span = begun.given, begun.span
        payload: dict[Any, Any] = {EventPayload.EXCEPTION: outcome}
        if isinstance(outcome, BaseException):
            _dispatcher.event(SpanDropEvent(span_id=span, err_str=str(outcome)))
            _dispatcher.span_drop(span, begun.bound, instance=self._llm, err=outcome)
        elif isinstance(outcome, CompletionResponse):
            _dispatcher.event(LLMCompletionEndEvent(prompt=str(given), response=outcome, span_id=span))
            payload = _asked(given) | {EventPayload.COMPLETION: outcome}
        else:
            messages = [each for each in given if isinstance(each, ChatMessage)]
            _dispatcher.event(LLMChatEndEvent(messages=messages, response=outcome, span_id=span))
            payload = _asked(given) | {EventPayload.RESPONSE: outcome}
        self._callbacks.on_event_end(CBEventType.LLM, payload=payload, event_id=begun.event)
        if not isinstance(outcome, BaseException):
            _dispatcher.span_exit(span, begun.bound, instance=self._llm, result=outcome)


@dataclass(frozen=True)
class _Begun:
    """An input, the id of its callback event, and its span."""

    given: BatchInput
    event: str
    span: str
    bound: inspect.BoundArguments


def _asked(given: BatchInput) -> dict[Any, Any]:
    return {EventPayload.PROMPT if isinstance(given, str) else EventPayload.MESSAGES: given}


def _is_heard() -> bool:
    """Whether anybody gets events or spans, here or further up, as they are passed on."""
    dispatcher: Any = _dispatcher
    while dispatcher is not None:
        handlers = [*dispatcher.event_handlers, *dispatcher.span_handlers]
        if not all(isinstance(handler, NullEventHandler | NullSpanHandler) for handler in handlers):
            return True
        dispatcher = dispatcher.parent if dispatcher.propagate else None
    return False
