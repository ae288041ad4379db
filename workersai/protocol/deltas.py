"""A whole answer -> the deltas of a stream."""

from __future__ import annotations

import json

from workersai.protocol.values import Completion, Delta, ToolCallDelta


def deltas_of(completion: Completion) -> list[Delta]:
    """A whole answer as the deltas of a stream: its text, its calls, and the end."""
    calls = [
        *((call.id, call.name, json.dumps(call.arguments, ensure_ascii=False)) for call in completion.tool_calls),
        *((call.id, call.name, call.arguments) for call in completion.invalid_tool_calls),
    ]
    return [
        *([Delta(reasoning=completion.reasoning)] if completion.reasoning else []),
        *([Delta(text=completion.text)] if completion.text else []),
        *(Delta(tool_call=ToolCallDelta(index, *call)) for index, call in enumerate(calls)),
        last_delta(completion),
    ]


def last_delta(completion: Completion) -> Delta:
    """The delta that ends a stream."""
    return Delta(usage=completion.usage, finish_reason=completion.finish_reason, completion=completion)
