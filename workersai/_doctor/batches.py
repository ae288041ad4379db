"""Checks of the Async Batch API: a batch of one item in each form, and which forms are answered rather than continued.

The published item has a prompt. Whether it gets a chat template is open (wire.md#batch), so each form is
tried: a plain prompt, a prompt in the model's own template, and messages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from workersai._doctor import shapes
from workersai._doctor.calls import TextChecks, got_template
from workersai._doctor.captures import Capture, Recorder
from workersai._doctor.findings import Check, Finding, Status, finding_from_error, skipped
from workersai._doctor.requests import BATCH_FORMS, MAX_TOKENS, BatchForm, batch_body, has_template
from workersai.errors import BadRequestError, WorkersAIError
from workersai.protocol.batch import batch_reply_of, outcome_of
from workersai.protocol.reply import Asked
from workersai.protocol.values import Completion

NAMES = tuple(f"batch {form}" for form in BATCH_FORMS)

_QUERY = "?queueRequest=true"
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
_LONGEST_PAUSE = 8.0  # seconds between two polls


class BatchChecks:
    """A batch of one item in each form, all submitted before the first is polled.

    Args:
        recorder: Sends the requests.
        model: The model that is called.
        text: The checks of single calls, which know the tokens of a message.
        wait: Seconds that the batches may take together.
    """

    def __init__(self, recorder: Recorder, model: str, text: TextChecks, wait: float) -> None:
        self._recorder, self._model, self._text, self._wait = recorder, model, text, wait

    def check(self) -> Check:
        """The check, with a row for each form."""
        return Check(NAMES, self._model, self._run)

    def _run(self) -> list[Finding]:
        submitted: dict[BatchForm, str] = {}
        rows: dict[BatchForm, Finding] = {}
        for form in BATCH_FORMS:
            if form == "template" and not has_template(self._model):
                rows[form] = skipped(_name(form), "the chat template of this model is not known here")
                continue
            try:
                submitted[form] = self._submit(form)
            except BadRequestError as error:
                if form != "messages":
                    rows[form] = finding_from_error(_name(form), error)
                else:  # the published item has none: a refusal is no fault
                    seen, advice = f"refused: {error}", "Use one of the other forms for batches."
                    rows[form] = Finding(_name(form), "warn", seen, advice)
            except WorkersAIError as error:
                rows[form] = finding_from_error(_name(form), error)
                if rows[form].blocks:
                    rest = [_name(each) for each in BATCH_FORMS if each not in rows and each not in submitted]
                    return [
                        *self._polled(submitted, rows),
                        *(skipped(name, f"{_name(form)!r} failed") for name in rest),
                    ]
        return self._polled(submitted, rows)

    def _polled(self, submitted: Mapping[BatchForm, str], rows: dict[BatchForm, Finding]) -> list[Finding]:
        ends = time.monotonic() + self._wait
        for form, request_id in submitted.items():
            try:
                rows[form] = self._poll(form, request_id, ends)
            except WorkersAIError as error:
                rows[form] = finding_from_error(_name(form), error)
        return [rows[form] for form in BATCH_FORMS if form in rows]

    def _submit(self, form: BatchForm) -> str:
        capture = self._send(form, batch_body(form))
        reply = batch_reply_of(capture.body, capture.answered(), self._model)
        if reply.request_id is None:
            raise BadRequestError("The reply to the submission has no request_id.")
        return reply.request_id

    def _poll(self, form: BatchForm, request_id: str, ends: float) -> Finding:
        pauses = iter(_PAUSES)
        while True:
            capture = self._send(form, {"request_id": request_id})
            reply = batch_reply_of(capture.body, capture.answered(), self._model)
            if reply.responses is not None:
                return self._settled(form, capture, reply.responses)
            if reply.failed:
                return Finding(_name(form), "fail", f"the batch ended with status {reply.status!r}", "Run it again.")
            if time.monotonic() >= ends:
                seen = f"still {reply.status} after {self._wait:g} s"
                return Finding(_name(form), "warn", seen, "Batches can take minutes. Raise --batch-wait.")
            self._recorder.pause(min(next(pauses, _LONGEST_PAUSE), max(0.0, ends - time.monotonic())))

    def _settled(self, form: BatchForm, capture: Capture, responses: Any) -> Finding:
        name = _name(form)
        if not responses:
            return Finding(name, "fail", "the batch has no item", "Run it again.")
        shape = shapes.result_shape(responses[0].get("result"))
        counted = shapes.usage_of_result(shapes.result_of_payload(capture.payload))
        prompt, completion = counted[:2] if counted else (None, None)
        outcome = outcome_of(responses[0], capture.answered(), Asked(self._model, MAX_TOKENS))
        if isinstance(outcome, WorkersAIError):
            row = finding_from_error(name, outcome)
            return Finding(name, "fail", row.summary, row.advice, shape=shape, details=row.details)
        answered = self._is_answered(form, prompt, outcome)
        seen = f"answered: use batch_input={form!r}" if answered else f"continued, not answered{_shown(outcome)}"
        advice = "" if answered else "Use another of these forms for batches of questions."
        status: Status = "ok" if answered else "warn"
        details = {"answered": answered}
        return Finding(name, status, seen, advice, shape, None, prompt, completion, details=details)

    def _is_answered(self, form: BatchForm, prompt_tokens: int | None, outcome: Completion) -> bool:
        known = self._text.message_tokens
        # A prompt that brings its template has fewer tokens than a message: the service's template adds a preamble.
        tokens = None if form == "template" or not prompt_tokens or known is None else (prompt_tokens, known)
        return got_template(tokens, outcome.text, outcome.finish_reason)

    def _send(self, form: BatchForm, body: Mapping[str, Any]) -> Capture:
        return self._recorder.run(_name(form), body, model=self._model, kind="batch", form=form, query=_QUERY)


def _name(form: BatchForm) -> str:
    return f"batch {form}"


def _shown(outcome: Completion) -> str:
    return " (empty)" if not outcome.text.strip() else ""
