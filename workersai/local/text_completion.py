"""The reply to a prompt: a text completion, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from workersai.local.choices import Choices, head
from workersai.local.engine import CalledTool, End, PromptRead, TextPiece
from workersai.local.wire import Answer, WireError, bad_input, sse, usage_to_wire


class TextCompletionDialect(Choices):
    """The reply to a prompt, a text that continues it: w07, w24, s10."""

    @override
    def _result(self, answer: Answer) -> dict[str, Any]:
        if answer.tool_calls:
            raise _no_calls()
        choice = {"index": 0, "text": answer.text, "finish_reason": answer.end.finish_reason}
        about = head(self._told.model, "text_completion")
        unused = dict.fromkeys(("stop_reason", "logprobs", "prompt_logprobs"))
        usage = usage_to_wire(answer.end.usage, tell_cached=self._told.tell_cached)
        return {**about, "choices": [choice | unused], "usage": usage}

    def opening(self, prompt: PromptRead) -> list[bytes]:
        """An event without text, with the tokens of the prompt."""
        return [sse(self._event("", self._increments.prompt(prompt)))]

    @override
    def _text(self, piece: TextPiece) -> dict[str, Any]:
        return self._event(piece.text, self._increments.piece(piece))

    @override
    def _call(self, call: CalledTool) -> Sequence[dict[str, Any]]:
        raise _no_calls()

    def closing(self, end: End) -> list[bytes]:
        """The finish reason, the totals and the end."""
        return [sse(self._event("", self._increments.rest(end.usage), end.finish_reason)), *self.totals(end)]

    def _event(self, text: str, usage: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return {"choices": [choice], "object": "text_completion", "usage": usage}


def _no_calls() -> WireError:
    return bad_input(
        "a text completion has no tool calls, but the script answers a prompt with one: send messages, or start the "
        "server with dialect='native'"
    )
