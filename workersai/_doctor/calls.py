"""Checks of the calls that generate text: one of each form."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from workersai._doctor import requests, shapes
from workersai._doctor.captures import Capture, Recorder
from workersai._doctor.findings import Check, Finding, Status
from workersai._doctor.shapes import Form
from workersai.errors import RateLimitError, ServerError, WorkersAIError
from workersai.protocol.json_mode import JSONMode, json_mode_of
from workersai.protocol.reply import Asked, completion_from_body
from workersai.protocol.tools import Offer, offer_of
from workersai.protocol.values import Completion

_BUSY = 3040
_SOON = 60  # characters of a text
_SAME_TOKENS = 3  # a template adds some tens of tokens; the two forms may differ by a beginning-of-text token
_REPORT = "Report it: run `workersai doctor --save doctor.json` and attach the file."


class TextChecks:
    """One call of each form.

    Args:
        recorder: Sends the requests.
        model: The model that is called.
    """

    def __init__(self, recorder: Recorder, model: str) -> None:
        self._recorder, self._model = recorder, model
        self._template_tokens: int | None = None  # of the question as a message

    @property
    def message_tokens(self) -> int | None:
        """Tokens of the question as a message, with those of the chat template; None before it was sent."""
        return self._template_tokens

    def checks(self) -> list[Check]:
        """The checks, in their order."""
        runs: list[tuple[str, Callable[[str], Finding]]] = [
            ("messages", self._messages),
            ("prompt", self._prompt),
            ("stream", self._stream),
            ("tools auto", lambda name: self._tools(name, "auto")),
            ("tools required", lambda name: self._tools(name, "required")),
            ("tools named", lambda name: self._tools(name, "named")),
            ("JSON Mode", self._json),
            ("reject if busy", self._reject_if_busy),
            ("session affinity", self._session),
        ]
        return [Check((name,), self._model, lambda name=name, run=run: [run(name)]) for name, run in runs]  # type: ignore[misc]

    def _messages(self, name: str) -> Finding:
        capture = self._send(name, requests.messages_body())
        completion = self._read(capture)
        counted = shapes.usage_of_result(_result(capture))
        self._template_tokens = counted[0] if counted else None
        return self._finding(name, capture, "messages", _answer_seen(completion))

    def _prompt(self, name: str) -> Finding:
        capture = self._send(name, requests.prompt_body(), form="prompt")
        completion = self._read(capture)
        counted = shapes.usage_of_result(_result(capture))
        tokens = (counted[0], self._template_tokens) if counted and self._template_tokens is not None else None
        templated = got_template(tokens, completion.text, completion.finish_reason)
        compared = f"{tokens[0]} prompt tokens, {tokens[1]} as a message" if tokens else "no usage to compare"
        if templated:
            seen, advice = f"answered: a chat template is applied ({compared})", "Both forms of a prompt work here."
            return self._finding(name, capture, "prompt", seen, "warn", advice, chat_template=True)
        seen = f"continued, not answered: no chat template ({compared})"
        return self._finding(name, capture, "prompt", seen, chat_template=False)

    def _stream(self, name: str) -> Finding:
        body = requests.messages_body(requests.STREAM_QUESTION, stream=True)
        capture = self._send(name, body, kind="stream")
        capture.answered()
        if capture.body.lstrip()[:1] in (b"{", b"["):
            return self._whole_for_stream(name, capture)
        facts = shapes.stream_facts(capture.chunks)
        wait = None if facts.first_text is None else capture.times[facts.first_text]
        first = "no text" if wait is None else f"first token after {wait:.2f} s"
        label = "" if capture.content_type == "text/event-stream" else f", labelled {capture.content_type or 'nothing'}"
        seen = f"{first}, {facts.events} events, usage: {facts.usage}{label}"
        details = {"usage": facts.usage, "events": facts.events, "done": facts.done, "first_token_seconds": wait}
        if facts.unreadable:
            problem = f"{facts.unreadable} events are not JSON objects"
            return self._shaped(
                name, facts.shape, "messages", problem, "fail", _REPORT, tokens=facts.tokens, details=details
            )
        if not facts.done or wait is None:
            problem = "the stream ended without [DONE]" if not facts.done else seen
            return self._shaped(name, facts.shape, "messages", problem, "fail", "Run it again.", details=details)
        return self._shaped(name, facts.shape, "messages", seen, tokens=facts.tokens, details=details)

    def _whole_for_stream(self, name: str, capture: Capture) -> Finding:
        shape = shapes.result_shape(_result(capture))
        seen = "a whole JSON reply came instead of a stream"
        if not _result(capture):
            seen = "an empty JSON result came instead of a stream"
        return Finding(name, "warn", seen, "Answers still arrive, but not token by token.", shape=shape)

    def _tools(self, name: str, choice: requests.Choice) -> Finding:
        body = requests.tools_body(choice)
        capture = self._send(name, body)
        completion = self._read(capture, offer_of(body["tools"], body["tool_choice"]))
        places = shapes.call_places(_result(capture))
        details = {"call_places": places, "calls": len(completion.tool_calls)}
        if completion.invalid_tool_calls:
            return self._finding(
                name, capture, "messages", "a call without valid arguments", "fail", _REPORT, **details
            )
        if completion.tool_calls:
            where = f"at {' and '.join(places)}" if places else "written as text"
            status: Status = "ok" if places else "warn"
            advice = "" if places else "The library reads it as a tool call. Nothing to do."
            seen = f"called {requests.TOOL_NAME}, {where}"
            return self._finding(name, capture, "messages", seen, status, advice, **details)
        if choice == "auto":
            seen, advice = "answered in prose", "Name the tool with tool_choice if you need the call."
            return self._finding(name, capture, "messages", seen, "warn", advice, **details)
        if choice == "required":
            seen, advice = "answered in prose: 'required' is only advice here", "Name the tool to enforce the call."
            return self._finding(name, capture, "messages", seen, "warn", advice, **details)
        seen = "no call, though the tool was named"
        return self._finding(name, capture, "messages", seen, "fail", _REPORT, **details)

    def _json(self, name: str) -> Finding:
        capture = self._send(name, requests.json_body())
        mode = json_mode_of({"type": "json_schema", "json_schema": requests.JSON_SCHEMA})
        completion = self._read(capture, json_mode=mode)
        result = _result(capture)
        value = result.get("response") if isinstance(result, dict) else None
        kind = "an object" if isinstance(value, dict) else "JSON text"
        if mode is not None and mode.is_met_by(completion.text):
            return self._finding(name, capture, "messages", f"{kind} that fits the schema")
        advice = "Validate the JSON in your program, or use a tool instead."
        return self._finding(name, capture, "messages", "JSON that doesn't fit the schema", "fail", advice)

    def _reject_if_busy(self, name: str) -> Finding:
        capture = self._send(name, requests.messages_body(options={"rejectIfBusy": True}))
        try:
            self._read(capture)
        except RateLimitError as error:
            if error.code != _BUSY:
                raise
            return Finding(name, "ok", "rejected with 3040: the model has no capacity just now")
        return self._finding(name, capture, "messages", "answered: the model had capacity")

    def _session(self, name: str) -> Finding:
        session = f"doctor-{secrets.token_hex(8)}"
        for _ in range(2):
            capture = self._send(name, requests.session_body(), session=session)
            self._read(capture)
        counted = shapes.usage_of_result(_result(capture))
        cached = counted[2] if counted else None
        if cached:
            return self._finding(name, capture, "messages", f"{cached} cached tokens on the second call", cached=cached)
        seen = "no cached tokens on the second call" if cached == 0 else "the replies don't report cached tokens"
        advice = "Calls work; the prefix cache was not used. Run the check again later."
        return self._finding(name, capture, "messages", seen, "warn", advice, cached=cached)

    def _send(self, name: str, body: dict[str, Any], **options: Any) -> Capture:
        return self._recorder.run(name, body, model=self._model, **options)

    def _read(self, capture: Capture, offer: Offer | None = None, json_mode: JSONMode | None = None) -> Completion:
        """The reply as the library's clients read it."""
        head = capture.answered()
        most = capture.sent["max_tokens"] if capture.sent else None
        asked = Asked(self._model, most, offer=offer or Offer(), json_mode=json_mode)
        try:
            return completion_from_body(capture.body, head, asked)
        except ServerError as error:
            shape = shapes.result_shape(_result(capture))
            if shape in shapes.KNOWN:
                raise _not_read(error, shape) from error
            raise

    def _finding(
        self,
        name: str,
        capture: Capture,
        form: Form,
        seen: str,
        status: Status = "ok",
        advice: str = "",
        **details: Any,
    ) -> Finding:
        result = _result(capture)
        counted = shapes.usage_of_result(result)
        tokens = counted[:2] if counted else None
        return self._shaped(
            name, shapes.result_shape(result), form, seen, status, advice, tokens=tokens, details=details
        )

    def _shaped(
        self,
        name: str,
        shape: shapes.Shape,
        form: Form,
        seen: str,
        status: Status = "ok",
        advice: str = "",
        *,
        tokens: tuple[int, int] | None = None,
        details: dict[str, Any] | None = None,
    ) -> Finding:
        expected = shapes.expected_shape(self._model, form)
        if shape not in shapes.KNOWN:
            status, advice = "fail", _REPORT
        elif expected not in (None, shape) and status == "ok":
            # The library reads it: an older or a newer route is no fault of the account's.
            status = "warn"
        prompt, completion = tokens or (None, None)
        return Finding(name, status, seen, advice, shape, expected, prompt, completion, details=details or {})


def got_template(tokens: tuple[int, int] | None, text: str, finish: str | None) -> bool:
    """Whether a prompt got a chat template.

    Args:
        tokens: Those of the question as a prompt, and as a message; a message has the template's as well.
        text: The reply to the prompt; it decides if there are no tokens to compare.
        finish: Why the reply ended.
    """
    if tokens is not None:
        return tokens[0] > tokens[1] - _SAME_TOKENS
    return is_answer(text, finish)


def is_answer(text: str, finish: str | None) -> bool:
    """Whether a reply answers the question rather than continuing it: soon, and with an end of its own."""
    return finish != "length" and requests.ANSWER in text[:_SOON]


def _answer_seen(completion: Completion) -> str:
    if completion.reasoning and not completion.text:
        return "answered with reasoning only: max_tokens ended it"
    return "answered" if completion.text.strip() else "answered with an empty text"


def _not_read(error: ServerError, shape: str) -> WorkersAIError:
    return ServerError(f"The library can't read this {shape} reply: {error.message}", **error.facts())


def _result(capture: Capture) -> Any:
    return shapes.result_of_payload(capture.payload)
