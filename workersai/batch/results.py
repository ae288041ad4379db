"""From replies to results: what an answer is to the journal, and to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from workersai.batch.journal import Outcome
from workersai.batch.records import (
    completion_from_json,
    completion_to_json,
    error_from_json,
    error_to_json,
    request_from_json,
)
from workersai.batch.tables import Row
from workersai.batch.values import BatchRequest, BatchResult
from workersai.errors import WorkersAIError
from workersai.protocol.reply import Asked
from workersai.protocol.values import Completion, Usage
from workersai.tokens import text_tokens

_SURELY_WHOLE = 0.95  # of max_tokens


def request_of_row(row: Row) -> BatchRequest:
    """The request that a row holds."""
    return request_from_json(row.request, row.reference, row.metadata)


def result_of_row(row: Row, completion: str | None, error: str | None) -> BatchResult:
    """A result that the journal keeps."""
    return BatchResult(
        row.number,
        request_of_row(row),
        None if completion is None else completion_from_json(completion),
        None if error is None else error_from_json(error),
    )


def result_of(row: Row, outcome: Completion | WorkersAIError) -> BatchResult:
    """A result that has just come."""
    if isinstance(outcome, WorkersAIError):
        return BatchResult(row.number, request_of_row(row), error=outcome)
    return BatchResult(row.number, request_of_row(row), outcome)


def outcome_to_journal(number: int, outcome: Completion | WorkersAIError) -> Outcome:
    """A result as the journal keeps it."""
    usage = usage_of_outcome(outcome)
    tokens = (None, None) if usage is None else (usage.prompt_tokens, usage.completion_tokens)
    cost = None if usage is None else usage.cost_usd
    if isinstance(outcome, WorkersAIError):
        return Outcome(number, error=error_to_json(outcome), tokens=tokens, cost=cost)
    return Outcome(number, completion=completion_to_json(outcome), tokens=tokens, cost=cost)


def usage_of_outcome(outcome: Completion | WorkersAIError) -> Usage | None:
    """What was paid for a row, if it is known; an error has it if it came with a reply that is no answer."""
    completion = outcome.partial if isinstance(outcome, WorkersAIError) else outcome
    return None if completion is None else completion.usage


def with_finish_reason(completion: Completion, asked: Asked) -> Completion:
    """An answer of a batch, which comes without its usage, with the reason why it ended.

    A cut answer must not pass for a whole one: its tokens are counted, and where they are so near to the limit that
    the service may have counted otherwise, the reason is not known.
    """
    most = asked.max_tokens
    if completion.usage is not None or completion.finish_reason != "stop" or most is None:
        return completion
    written = completion.reasoning + completion.text  # both count against max_tokens
    if len(written) < most / 4 or asked.json_mode is not None:  # a character is four bytes at most
        return completion
    tokens = text_tokens(written)
    if tokens.fewest >= most:
        return replace(completion, finish_reason="length")
    return completion if tokens.most < _SURELY_WHOLE * most else replace(completion, finish_reason=None)


def usage_beyond(total: Usage | None, own: Usage | None) -> Usage | None:
    """What a batch's total has beyond the usage that its rows report themselves; None without a total."""
    if total is None or own is None:
        return total
    return replace(
        total,
        prompt_tokens=max(0, total.prompt_tokens - own.prompt_tokens),
        completion_tokens=max(0, total.completion_tokens - own.completion_tokens),
        cached_tokens=max(0, total.cached_tokens - own.cached_tokens),
    )


def sum_usages(usages: Sequence[Usage], model: str) -> Usage | None:
    """The usage of several answers together; None if there is none."""
    if not usages:
        return None
    return replace(reduce(add, usages), model=model)
