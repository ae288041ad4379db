"""What calls cost: sums over everything that is called inside a ``with`` block, whichever package calls it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from typing_extensions import Self

from workersai.catalog import model_card
from workersai.errors import (
    APIConnectionError,
    APITimeoutError,
    BudgetExceededError,
    ConfigurationError,
    StreamInterruptedError,
    WorkersAIError,
)
from workersai.protocol.values import Usage

_inside: ContextVar[tuple[CostTracker, ...]] = ContextVar("workersai_cost_trackers", default=())
_open: list[CostTracker] = []
_LOCK = threading.Lock()


class CostTracker:
    """Sums calls, tokens and dollars of the calls that are made inside its ``with`` block.

    It counts what the service bills, below the frameworks: calls of LangChain, of LlamaIndex and of the clients, whole,
    streamed and repeated, and none that a cache answered. Tasks that are started inside the block count, also where
    they end after it, and so do threads.

    Args:
        budget: US dollars that the calls inside may cost. A call that could pass it, if its answer takes all the
            tokens that it may, raises :class:`~workersai.errors.BudgetExceededError` and is not sent. None: no limit.

    Blocks may be nested; each counts the calls inside the inner ones, too. A block that is entered again goes on
    counting. A thread that was started before the block, without LangChain's or asyncio's help, is not inside it.

    Raises:
        ConfigurationError: the budget is no number of dollars; from a call: the price of its model is not known.
    """

    def __init__(self, budget: float | None = None) -> None:
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 0):
            raise ConfigurationError(f"budget must be a number of US dollars, 0 or more, not {budget!r:.80}.")
        self.budget = budget
        self._lock = threading.Lock()
        self._calls = self._unpriced_calls = 0
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0
        self._cost = self._held = 0.0
        self._older_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    @property
    def calls(self) -> int:
        """Requests that the service answered, or may have: a call that was tried twice is two."""
        return self._calls

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return self._prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Those of them that the service had in its cache."""
        return self._cached_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return self._completion_tokens

    @property
    def total_tokens(self) -> int:
        """Prompts and answers together."""
        return self._prompt_tokens + self._completion_tokens

    @property
    def cost_usd(self) -> float:
        """US dollars of all calls but the ``unpriced_calls``."""
        return self._cost

    @property
    def unpriced_calls(self) -> int:
        """Calls whose cost is not known.

        A stream was left, stopped or cut off before the service told its usage, an answer didn't come in time, or the
        catalog doesn't list the model. Their cost is not in ``cost_usd``; a budget keeps what it may be at the most.
        """
        return self._unpriced_calls

    def __repr__(self) -> str:
        limit = "" if self.budget is None else f" of ${self.budget:,.4f}"
        unpriced = f", {self.unpriced_calls:,} of them unpriced" if self.unpriced_calls else ""
        return (
            f"<CostTracker: {self.calls:,} call{'' if self.calls == 1 else 's'}{unpriced}; {self.prompt_tokens:,} + "
            f"{self.completion_tokens:,} tokens; ${self.cost_usd:,.4f}{limit}>"
        )

    def __enter__(self) -> Self:
        outer = _inside.get() or trackers_here()
        self._older_threads = weakref.WeakSet(threading.enumerate())
        with _LOCK:
            _open.append(self)
        _inside.set((*outer, self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LOCK:
            _open.remove(self)
        inside = list(_inside.get())
        if self in inside:  # not where another context enters than leaves, as in an async generator
            inside.reverse()
            inside.remove(self)
            inside.reverse()
            _inside.set(tuple(inside))

    def hold(self, dollars: float, why: str) -> None:
        """Keeps so much of the budget for a call that is about to be sent.

        Raises:
            BudgetExceededError: it isn't there.
        """
        with self._lock:
            if self.budget is not None and self._cost + self._held + dollars > self.budget:
                held = f", ${self._held:.4f} kept for calls under way or of unknown cost" if self._held else ""
                raise BudgetExceededError(
                    f"The budget of ${self.budget:.4f} could be passed: ${self._cost:.4f} are spent{held}, and this "
                    f"call may cost up to ${dollars:.4f} ({why}). Lower max_tokens, or raise the budget."
                )
            self._held += dollars

    def release(self, dollars: float) -> None:
        """Gives back what was kept for a call that came to nothing."""
        with self._lock:
            self._held -= dollars

    def settle(self, dollars: float, usage: Usage | None) -> None:
        """Counts an answered call; what was kept for one of unknown cost stays kept."""
        cost = None if usage is None else usage.cost_usd
        with self._lock:
            self._calls += 1
            if usage is not None:
                self._prompt_tokens += usage.prompt_tokens
                self._completion_tokens += usage.completion_tokens
                self._cached_tokens += usage.cached_tokens
            if cost is None:
                self._unpriced_calls += 1
            else:
                self._cost += cost
                self._held -= dollars

    def __getstate__(self) -> Mapping[str, Any]:
        raise TypeError("A CostTracker counts in its own process, and can't be pickled or copied.")


def trackers_here() -> tuple[CostTracker, ...]:
    """The trackers whose block the running code is inside."""
    inside = _inside.get()
    if inside or not _open:
        return tuple(dict.fromkeys(inside))
    # A thread of Python's own does not inherit the context of who started it: that it is newer is what can be seen.
    thread = threading.current_thread()
    return tuple(tracker for tracker in dict.fromkeys(_open) if thread not in tracker._older_threads)  # noqa: SLF001


@dataclass
class Meter:
    """Reports one request to the trackers that it was made inside of: a context around its sending and its answer.

    Args:
        trackers: What it is reported to.
        model: What is asked.
        most_tokens: Bounds of its prompt and of its answer.

    Attributes:
        answered: Set once the service has begun to answer.
        usage: Set once the service has told it.
    """

    trackers: tuple[CostTracker, ...]
    model: str
    most_tokens: tuple[int, int]
    answered: bool = field(default=False, init=False)
    usage: Usage | None = field(default=None, init=False)
    _most: float = field(default=0.0, init=False)

    def __enter__(self) -> Self:
        """Keeps what the call may cost of each budget.

        Raises:
            BudgetExceededError: one of them could be passed.
            ConfigurationError: there is a budget, and the model's price is not known.
        """
        if not self.trackers:
            return self
        card = model_card(self.model)
        if card is not None:
            self._most = card.cost_usd(*self.most_tokens)
        elif any(tracker.budget is not None for tracker in self.trackers):
            raise ConfigurationError(
                f"The price of {self.model} is not known, so no budget can be kept: call it outside the CostTracker, "
                "or without a budget."
            )
        prompt, answer = self.most_tokens
        holding: list[CostTracker] = []
        try:
            for tracker in self.trackers:
                tracker.hold(self._most, f"{prompt:,} tokens of prompt, up to {answer:,} of answer")
                holding.append(tracker)
        except BudgetExceededError:
            for tracker in holding:
                tracker.release(self._most)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self.trackers:
            if self._may_be_billed(error):
                tracker.settle(self._most, self.usage)
            else:
                tracker.release(self._most)

    def _may_be_billed(self, error: BaseException | None) -> bool:
        if isinstance(error, APITimeoutError):
            return True  # the service may have been about to answer
        if isinstance(error, WorkersAIError) and not isinstance(error, APIConnectionError | StreamInterruptedError):
            return bool(error.partial and (error.partial.text or error.partial.tool_calls))  # else it was refused
        return self.answered
