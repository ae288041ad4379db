"""What a request may cost: what is reserved of the budgets before it, and whether it may be billed if it fails.

Nobody here has an account, and Cloudflare publishes no such list. So a failed request counts as billed unless it
surely never reached a model: otherwise, a budget would not be a bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from typing_extensions import Self

from workersai._cleanup import submit
from workersai.catalog import CATALOG, priced_card
from workersai.costs import CostTracker
from workersai.errors import (
    APIConnectionError,
    APITimeoutError,
    BudgetExceededError,
    ConfigurationError,
    JSONModeError,
    ServerError,
    WorkersAIError,
)
from workersai.protocol.values import Usage
from workersai.tokens import counts_exactly

REFUSAL_CODES = frozenset(
    # The service's own: who asks, what is asked for, a prompt that is too long, no capacity, no allocation left.
    {10000, 5007, 5028, 7000, 7003, 5006, 5004, 5012, 8001, 3039, 5005, 3003, 5021, 3010, 8007, 3030, 5018, 3041, 5035}
    | {5016, 3023, 5019, 3042, 3006, 3036, 4006, 3040}
    # AI Gateway's: no such gateway, its limits, no credit, a prompt that a guardrail blocked.
    | {2001, 2003, 2016, 2021, 2045}
)
"""Codes of refusals that come before a model works (wire.md#error-codes). That they cost nothing is supposed from that,
and not published."""
_ANSWER_BLOCKED = 2017
"""A guardrail of the gateway blocked the answer, which the model had written."""
_REFUSALS = frozenset(range(300, 500)) - {408}
"""Statuses: redirects, which are not followed, and client errors. After 408, the model may have worked for a while."""
_NEVER_REACHED = frozenset({521, 523, 525, 526})
"""Cloudflare could not connect to what is behind it: refused, unreachable, TLS failed, wrong certificate (its page "5xx
errors"). Unlike these, 522 may also come after the request was sent, 520 and 524 only then."""
_WITHOUT_TOKENIZER = (
    " Without the tokenizer, a budget reserves an upper bound for each prompt, usually 2 to 4 times its tokens. For "
    "exact counts: pip install 'workersai[tokens]'."
)


@dataclass
class Meter:
    """Reports one request to the trackers that it was made inside of: a context around its sending and its answer.

    Args:
        trackers: What it is reported to.
        model: What is asked.
        most_tokens: Upper bounds of the tokens of its prompt and of its answer.

    Attributes:
        unsent: Set if the request is not sent after all.
        billed: Cleared once a reply has come that an AI Gateway had in its cache.
        usage: Set once the service has reported it.
        usage_is_total: Cleared while an answer is streamed, whose usage may grow.
    """

    trackers: tuple[CostTracker, ...]
    model: str
    most_tokens: tuple[int, int]
    unsent: bool = field(default=False, init=False)
    billed: bool = field(default=True, init=False)
    usage: Usage | None = field(default=None, init=False)
    usage_is_total: bool = field(default=True, init=False)
    _most: float = field(default=0.0, init=False)

    def __enter__(self) -> Self:
        """Keeps what the call may cost of each budget.

        Raises:
            BudgetExceededError: one of them could be passed.
            ConfigurationError: there is a budget, and the model's price is not known.
        """
        if not self.trackers:
            return self
        card = priced_card(self.model)
        if card is not None:
            self._most = card.cost_usd(*self.most_tokens)
        elif any(tracker.budget is not None for tracker in self.trackers):
            raise ConfigurationError(
                f"The price of {self.model} is not known, so no budget can be kept: call it outside the CostTracker, "
                "or without a budget."
            )
        why, advice = self._explanation()
        holding: list[CostTracker] = []
        try:
            for tracker in self.trackers:
                tracker.hold(self._most, why, advice=advice)
                holding.append(tracker)
        except BudgetExceededError:
            for tracker in holding:
                tracker.release(self._most)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.trackers:
            return
        if kind is GeneratorExit:
            submit(partial(self._report, error))  # maybe a finalizer's doing: the trackers' locks are not taken here
        else:
            self._report(error)

    def _report(self, error: BaseException | None) -> None:
        usage = Usage(0, 0, model=self.model) if self.usage is None and not self.billed else self.usage
        free = self.unsent or (usage is None and not may_have_been_billed(error))
        for tracker in self.trackers:
            if free:
                tracker.release(self._most)
            else:
                tracker.settle(self._most, usage, is_total=self.usage_is_total or not self.billed)

    def _explanation(self) -> tuple[str, str]:
        """How the call may come to cost so much, and what makes that less."""
        prompt, answer = self.most_tokens
        if self.model not in CATALOG:
            return f"up to {prompt:,} tokens of text", ""
        if counts_exactly():
            return f"{prompt:,} tokens of prompt, up to {answer:,} of answer", ""
        return (
            f"up to {prompt:,} tokens of prompt, which are not counted here, and up to {answer:,} of answer",
            _WITHOUT_TOKENIZER,
        )


def may_have_been_billed(failure: BaseException | None) -> bool:
    """Whether a request that ended so may be on the bill.

    =======================================================  ==========  =============================================
    how it ended                                             may be      because
    =======================================================  ==========  =============================================
    no connection (``never_sent``)                           no          nothing was sent
    a code that refuses (``REFUSAL_CODES``), any status      no          it is checked before the model works
    3030, 5012, 7003, 8001, 8007 with a 5xx status           yes         the model's server failed, and may have worked
    another 3xx or 4xx                                       no          the same, by the status
    521, 523, 525, 526                                       no          Cloudflare never connected to the service
    408; codes 3007, 3008, 3046                              yes         the service waited for the model
    500, 502, 503, 504, 520, 522, 524, 530, other 5xx        yes         a proxy or the model failed, on either side
    JSON Mode not met (5024), answer blocked (2017)          yes         the model has written, and it was no use
    200 with another code, without one, empty, unreadable    yes         a model may have answered
    a failure after the first text of a stream               yes         a model has answered
    timeout or lost connection after sending, in any reply   yes         the model may go on
    cancelled, Ctrl-C, a stream that was closed              yes         the same
    =======================================================  ==========  =============================================

    Args:
        failure: What ended the request; None if it ended with a reply.
    """
    if not isinstance(failure, WorkersAIError):
        return True
    if failure.never_sent:
        return False
    partial = failure.partial
    if partial is not None and (partial.text or partial.reasoning or partial.tool_calls or partial.invalid_tool_calls):
        return True
    is_refused = failure.code in REFUSAL_CODES and not isinstance(failure, ServerError)
    return not is_refused and not _is_refused_by_status(failure)


def _is_refused_by_status(failure: WorkersAIError) -> bool:
    if failure.code == _ANSWER_BLOCKED or isinstance(failure, JSONModeError):
        return False
    if isinstance(failure, APIConnectionError | APITimeoutError):
        return False  # a status alone: the reason was lost on the way, and may have been one of those two
    return failure.status_code in _REFUSALS or failure.status_code in _NEVER_REACHED
