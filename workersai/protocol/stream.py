"""Events -> Deltas: the text, the pieces of tool calls, and at the end the usage and the finish.

A :class:`StreamReader` is fed bytes and does no I/O. It notices what a stream can end in: ``[DONE]``, a finish reason,
a failure told in an event, a stop string of ours, or nothing at all, which is a cut-off.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from workersai.errors import ServerError, StreamInterruptedError, WorkersAIError
from workersai.protocol.deltas import deltas_of, last_delta
from workersai.protocol.reply import (
    Asked,
    ReplyHead,
    calls_of,
    completion_from_body,
    error_of,
    failed_by_finish_reason,
    finish_reason_of,
    is_empty_answer,
)
from workersai.protocol.shapes import AnswerParts, ShapeError, parts_of_event, plain_text_of
from workersai.protocol.sse import MAX_EVENT_BYTES, SSEDecoder
from workersai.protocol.stop import StopFilter
from workersai.protocol.surrogates import Halves, HalvesOfCalls, repaired, value_of
from workersai.protocol.tool_calls import Place
from workersai.protocol.usage import UsageCounter
from workersai.protocol.values import Completion, Delta, Usage

_DONE = b"[DONE]"
_LONGEST_EMPTY_REPLY = 4_096  # bytes; the envelope alone has about 60
_CHOICE: Place = "choice"
_BESIDE: Place = "beside"
_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:")
_STREAM = re.compile(rb":|(data|event|id|retry)[:\r\n]")
_ENOUGH = max(map(len, _FIELDS))  # to tell a stream from what is none


class StreamReader:
    """The state of one stream.

    Feed it while :attr:`ended` is False and bytes come, then close it: ``close`` gives the last delta, or raises.
    Where the bytes are cut makes no difference to the deltas' text taken together, nor to anything else in them.
    """

    def __init__(self, head: ReplyHead, asked: Asked) -> None:
        self._head = head
        self._asked = asked
        self._events = SSEDecoder()
        self._whole: bytearray | None = None  # the body, where a JSON reply came in place of a stream
        self._sniffed = b""
        self._sniffing = True
        self._stop = StopFilter(asked.stop)
        self._leaks = asked.leaks()
        self._calls = asked.assembler()
        self._has_calls = False
        self._unfiltered = not asked.stop and not asked.offer.callable_names  # text is shown as it comes
        self._halves = Halves()
        self._halves_of_reasoning = Halves()
        self._halves_of_calls: dict[Place, HalvesOfCalls] = {"choice": HalvesOfCalls(), "beside": HalvesOfCalls()}
        self._has_halves = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._counter = UsageCounter()
        self._usage: Usage | None = None  # of a whole reply in place of a stream
        self._finish: Any = None
        self._done = False
        self._failure: WorkersAIError | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing that may still come matters: a failure was told, or a stop string was reached."""
        return self._failure is not None or self._stop.hit

    @property
    def done(self) -> bool:
        """Whether the stream said ``[DONE]``: the answer is whole, whatever becomes of the connection."""
        return self._done

    @property
    def finished(self) -> bool:
        """Whether the answer is whole, as ``[DONE]`` or a finish reason says."""
        return self._done or self._finish is not None

    @property
    def usage(self) -> Usage | None:
        """The usage that was received so far, also of a stream that is cut off or left early."""
        counts = self._counter.counts
        if counts is None:
            return self._usage
        return counts.as_usage(self._asked.model, billed=not self._head.from_cache)

    @property
    def answered_nothing(self) -> bool:
        """Whether the reply was JSON with an empty result, as some routes answer a request for a stream."""
        whole = self._whole
        if whole is None or not self._head.ok or len(whole) > _LONGEST_EMPTY_REPLY:
            return False
        return is_empty_answer(bytes(whole))

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that ``data`` completes. A failure found in it shows in ``ended``, and ``close`` raises it."""
        if self._sniffing or self._whole is not None:
            return self._take(self._sniff(data) if self._sniffing else data)
        deltas = self._read(self._events.feed(data))
        if self._events.pending_bytes > MAX_EVENT_BYTES and self._failure is None:
            self._fail(
                ServerError(
                    f"The stream has an event of more than {MAX_EVENT_BYTES:,} bytes, which isn't part of an answer. "
                    "The rest was not read. A proxy may have changed the reply.",
                    retryable=False,
                ),
                deltas,
            )
        return deltas

    def close(self) -> list[Delta]:
        """The last deltas, once no more bytes come: held-back text, then one with the usage and the finish.

        Raises:
            StreamInterruptedError: the stream was cut off (wire.md#failures-in-streams); ``partial`` has what came.
            WorkersAIError: the failure that the stream told of, with its ``partial``.
        """
        last = self._take(self._sniff(b"", at_end=True)) if self._sniffing else []
        if self._whole is not None:
            completion = completion_from_body(bytes(self._whole), self._head, self._asked)
            self._usage = completion.usage
            return deltas_of(completion)
        if not self.ended:
            last += self._read(self._events.close(), at_end=True)
        self._release(last)
        if self._failure is not None:
            raise self._failure
        if not (self._stop.hit or self.finished):
            raise self.interruption()
        last += [Delta(tool_call=call) for call in self._calls.close()]
        return [*last, last_delta(self._completion())]

    def partial(self) -> Completion:
        """What has arrived of an answer that broke off: what was held back is in it."""
        self._release([])
        return self._arrived(cut_off=True)

    def _arrived(self, *, cut_off: bool) -> Completion:
        calls, invalid = self._calls.calls(cut_off=cut_off)
        return Completion(
            text="".join(self._text),
            tool_calls=calls,
            invalid_tool_calls=invalid,
            usage=self.usage,
            model=self._asked.model,
            request_id=self._head.request_id,
            dropped_tool_calls=self._calls.dropped(),
            trimmed=self._asked.trimmed,
            cache_status=self._head.cache_status,
            gateway_log_id=self._head.gateway_log_id,
            reasoning="".join(self._reasoning),
        )

    def interruption(self) -> StreamInterruptedError:
        """The error for a stream that ended too early, with what has arrived."""
        error = StreamInterruptedError("The stream was cut off before the answer was complete.")
        self.add_to(error)
        return error

    def add_to(self, error: WorkersAIError) -> None:
        """Tells an error in the midst of a stream what had come: the head, and a part of the answer."""
        error.status_code, error.request_id = self._head.status, self._head.request_id
        partial = error.partial = self.partial()
        if partial.text or partial.reasoning or partial.tool_calls or partial.invalid_tool_calls:
            error.reword(f"{error.message} What had come of it is in the error's `partial`.")

    def _sniff(self, data: bytes, *, at_end: bool = False) -> bytes:
        """Asked for a stream, a route may answer with the whole reply at once, and labels can't be relied on.

        A stream begins with a comment or with a field's name; a JSON reply, a page of HTML or a plain text does not.
        """
        data = (self._sniffed + data).removeprefix(_BOM).lstrip()
        if len(data) < _ENOUGH and not at_end:
            self._sniffed = data
            return b""
        self._sniffing = False
        if not (_STREAM.match(data) or any(field.startswith(data) for field in _FIELDS)):
            self._whole = bytearray()
        return data

    def _take(self, data: bytes) -> list[Delta]:
        if self._whole is not None:
            self._whole += data
            return []
        return self._read(self._events.feed(data)) if data else []

    def _read(self, events: list[bytes], *, at_end: bool = False) -> list[Delta]:
        deltas: list[Delta] = []
        for event in events:
            if self.ended or self._done:
                break
            try:
                self._event(event, deltas)
            except WorkersAIError as failure:
                self._fail(failure, deltas)
            except ValueError:
                if not at_end:  # at the end it is an event that the cut left incomplete, and close() says so
                    self._fail(self._garbage(event), deltas)
        return deltas

    def _event(self, event: bytes, deltas: list[Delta]) -> None:
        if event == _DONE or event.rstrip() == _DONE:
            self._done = True
            return
        payload, has_halves = value_of(event)
        if self._unfiltered and not has_halves and type(payload) is dict:
            text = plain_text_of(payload)  # nearly all events are such
            if text is not None:
                usage = payload.get("usage")
                if usage:
                    self._counter.add(usage, is_total=False)
                self._show(text, deltas)
                return
        self._has_halves |= has_halves
        self._unfiltered &= not has_halves
        failure = error_of(repaired(payload) if has_halves else payload, self._head)
        if failure is not None:
            raise failure
        if not isinstance(payload, dict):
            raise self._garbage(event)
        try:
            parts = parts_of_event(payload)
        except ShapeError:
            raise self._garbage(event) from None
        self._counter.add(parts.usage, is_total=not parts.has_choices)
        self._finish = repaired(parts.finish) or self._finish
        self._piece(parts, deltas)
        if parts.finish == "error":
            raise failed_by_finish_reason(StreamInterruptedError, self._head, None)

    def _piece(self, parts: AnswerParts, deltas: list[Delta]) -> None:
        """Takes the text, the reasoning and the calls of one event."""
        text, reasoning = parts.text, parts.reasoning
        if self._has_halves:
            text, reasoning = self._halves.join(text), self._halves_of_reasoning.join(reasoning)
        self._think(reasoning, deltas)
        self._show(self._leaks.feed(self._stop.feed(text)), deltas)
        for wires, place in ((parts.calls, _CHOICE), (parts.calls_beside, _BESIDE)):
            if wires:
                self._has_calls = True
                sound = self._halves_of_calls[place].join(wires) if self._has_halves else wires
                self._call(calls_of(sound, self._head), deltas, place)

    def _show(self, text: str, deltas: list[Delta]) -> None:
        if text:
            self._text.append(text)
            deltas.append(Delta.of_text(text))

    def _think(self, reasoning: str, deltas: list[Delta]) -> None:
        if reasoning:
            self._reasoning.append(reasoning)
            deltas.append(Delta(reasoning=reasoning))

    def _call(self, wires: list[dict[str, Any]], deltas: list[Delta], place: Place) -> None:
        deltas.extend(Delta(tool_call=call) for call in self._calls.add(wires, place=place))

    def _release(self, deltas: list[Delta]) -> None:
        """Lets go of text that was held back as the possible beginning of a stop string or a call, and of the calls."""
        rest = self._stop.feed(self._halves.flush()) + self._stop.flush()
        self._show(self._leaks.feed(rest) + self._leaks.flush(), deltas)
        self._think(self._halves_of_reasoning.flush(), deltas)
        text, calls = self._leaks.take(as_text=self._has_calls)
        self._show(text, deltas)
        self._call(calls, deltas, "text")

    def _fail(self, failure: WorkersAIError, deltas: list[Delta]) -> None:
        self._release(deltas)
        self.add_to(failure)
        self._failure = failure

    def _garbage(self, event: bytes) -> ServerError:
        shown = event[:100].decode(errors="replace")
        return ServerError(
            f"The stream holds an event that can't be read: {shown!r}.",
            status_code=self._head.status,
            request_id=self._head.request_id,
            retryable=False,
        )

    def _completion(self) -> Completion:
        given = "stop" if self._stop.hit else self._finish
        finish = finish_reason_of(given, called=self._calls.any, usage=self.usage, asked=self._asked)
        return replace(self._arrived(cut_off=finish == "length"), finish_reason=finish)
