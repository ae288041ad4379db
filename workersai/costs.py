"""What calls cost: sums over everything that is called inside a ``with`` block, whichever package calls it."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache, wraps
from types import TracebackType
from typing import Any

from typing_extensions import Self

from workersai._cleanup import flush
from workersai.checks import shown
from workersai.errors import BudgetExceededError, ConfigurationError
from workersai.protocol.values import Usage

_inside: ContextVar[tuple[CostTracker, ...]] = ContextVar("workersai_cost_trackers", default=())
_open: list[CostTracker] = []
_LOCK = threading.RLock()
_trackers: weakref.WeakSet[CostTracker] = weakref.WeakSet()
_ROUNDING = 1e-9  # dollars
_STARTED_INSIDE = "_workersai_cost_trackers"


class CostTracker:
    """Sums calls, tokens and dollars of the calls that are made inside its ``with`` block.

    It counts what the service bills, below the frameworks: calls of LangChain, of LlamaIndex and of the clients, whole,
    streamed and repeated, and none that a framework's cache answered. One that an AI Gateway's cache answered is a call
    with its tokens, and costs nothing. Tasks that are started inside the block count, also where
    they end after it; so do threads that are started inside, as long as the block is open.

    Args:
        budget: US dollars that the calls inside may cost. A call that could pass it, if its answer takes all the
            tokens that it may, raises :class:`~workersai.errors.BudgetExceededError` and is not sent. None: no limit.

    Blocks may be nested; each counts the calls inside the inner ones, too. A block that is entered again goes on
    counting. A pool whose threads were started before the block is not inside it, unless it is given the context, as
    LangChain and asyncio do: ``pool.submit(contextvars.copy_context().run, llm.invoke, "hi")``.

    Raises:
        ConfigurationError: the budget is no number of dollars; from a call: the price of its model is not known.
    """

    def __init__(self, budget: float | None = None) -> None:
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 0):
            raise ConfigurationError(f"budget must be a number of US dollars, 0 or more, not {shown(budget)}.")
        self.budget = budget
        # One that may be taken twice: the garbage collector may end a stream in the midst of counting another.
        self._lock = threading.RLock()
        _trackers.add(self)
        self._calls = self._unpriced_calls = 0
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0
        self._cost = self._held = self._saved = 0.0

    @property
    def calls(self) -> int:
        """Requests that the service answered, or may have billed: a call that was retried once may be two."""
        flush()
        return self._calls

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        flush()
        return self._prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Those of them that the service had in its prefix cache, at the price of cached input if one is published."""
        flush()
        return self._cached_tokens

    @property
    def cached_share(self) -> float:
        """Their share of all prompts, 0 to 1."""
        flush()
        return self._cached_tokens / self._prompt_tokens if self._prompt_tokens else 0.0

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        flush()
        return self._completion_tokens

    @property
    def total_tokens(self) -> int:
        """Prompts and answers together."""
        flush()
        return self._prompt_tokens + self._completion_tokens

    @property
    def cost_usd(self) -> float:
        """US dollars of all calls but the ``unpriced_calls``."""
        flush()
        return self._cost

    @property
    def saved_usd(self) -> float:
        """US dollars that AI Gateways' caches saved: the price of the calls that they answered."""
        flush()
        return self._saved

    @property
    def unpriced_calls(self) -> int:
        """Calls whose cost is not known.

        A stream was left, stopped or cut off before the service reported its usage; no answer came in time; the service
        failed, and the model may have worked (HTTP 408, 500, 502, 504, 524, ...); or the catalog doesn't list the
        model. In ``cost_usd`` is only what the service had reported; a budget reserves the most that they may cost.
        """
        flush()
        return self._unpriced_calls

    def __repr__(self) -> str:
        limit = "" if self.budget is None else f" of {_dollars(self.budget)}"
        unpriced = f", {self.unpriced_calls:,} of them unpriced" if self.unpriced_calls else ""
        cached = f" ({self.cached_share:.0%} cached)" if self.cached_tokens else ""
        saved = f", {_dollars(self.saved_usd)} saved" if self.saved_usd else ""
        return (
            f"<CostTracker: {self.calls:,} call{'' if self.calls == 1 else 's'}{unpriced}; {self.prompt_tokens:,}"
            f"{cached} + {self.completion_tokens:,} tokens; {_dollars(self.cost_usd)}{limit}{saved}>"
        )

    def __enter__(self) -> Self:
        _mark_threads()
        with _LOCK:
            _open.append(self)
        _inside.set((*_inside.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LOCK:
            _open.remove(self)
        inside = _inside.get()
        if self in inside:  # not where another context enters than leaves, as in an async generator
            last = len(inside) - 1 - inside[::-1].index(self)
            _inside.set(inside[:last] + inside[last + 1 :])

    @property
    def left(self) -> float:
        """US dollars of the budget that are neither spent nor kept for calls under way; infinite without a budget."""
        flush()
        with self._lock:
            return math.inf if self.budget is None else self.budget - self._cost - self._held

    @property
    def held_usd(self) -> float:
        """US dollars that calls in progress, and those of unknown cost, may cost; also without a budget."""
        flush()
        with self._lock:
            return self._held

    def hold(self, dollars: float, why: str, *, advice: str = "") -> None:
        """Keeps so much of the budget for a call that is about to be sent.

        Args:
            dollars: The most that the call may cost.
            why: How it comes to that, for the error.
            advice: What else would help, for the error.

        Raises:
            BudgetExceededError: it isn't there.
        """
        flush()
        with self._lock:
            spent, held = self._cost, self._held
            if self.budget is None or spent + held + dollars <= self.budget + _ROUNDING:
                self._held += dollars
                return
        kept = f", {_dollars(held)} kept for calls under way or of unknown cost" if held > _ROUNDING else ""
        raise BudgetExceededError(
            f"The budget of {_dollars(self.budget)} could be passed: {_dollars(spent)} are spent{kept}, and this call "
            f"may cost up to {_dollars(dollars)} ({why}). Lower max_tokens, or raise the budget.{advice}"
        )

    def keep(self, dollars: float) -> None:
        """Keeps so much of the budget for what was sent already, whether it is there or not."""
        with self._lock:
            self._held += dollars

    def release(self, dollars: float) -> None:
        """Releases the reservation of a call that isn't billed."""
        with self._lock:
            self._held -= dollars

    def settle(self, dollars: float, usage: Usage | None, *, calls: int = 1, is_total: bool = True) -> None:
        """Counts an answered call, or those of a batch; what was kept for one of unknown cost stays kept.

        Args:
            dollars: What was kept for it.
            usage: What the service reported; None if it reported nothing.
            calls: How many calls it was.
            is_total: Whether the service bills no more than the usage.
        """
        cost = None if usage is None else usage.cost_usd
        with self._lock:
            self._calls += calls
            if usage is not None:
                self._prompt_tokens += usage.prompt_tokens
                self._completion_tokens += usage.completion_tokens
                self._cached_tokens += usage.cached_tokens
                self._saved += usage.saved_usd or 0.0
            self._cost += cost or 0.0
            if cost is None or not is_total:
                self._unpriced_calls += calls
                self._held -= min(cost or 0.0, dollars)
            else:
                self._held -= dollars

    def __getstate__(self) -> Mapping[str, Any]:
        raise TypeError("A CostTracker counts in its own process, and can't be pickled or copied.")


def _start_over() -> None:
    """In a forked process: another thread of the parent may have held the locks."""
    global _LOCK  # noqa: PLW0603
    _LOCK = threading.RLock()
    for tracker in list(_trackers):
        tracker._lock = threading.RLock()  # noqa: SLF001 - its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)


def trackers_here() -> tuple[CostTracker, ...]:
    """The trackers whose block the running code is inside."""
    if not _open:
        return tuple(dict.fromkeys(_inside.get()))
    started_inside = getattr(threading.current_thread(), _STARTED_INSIDE, ())
    return tuple(dict.fromkeys((*(tracker for tracker in started_inside if tracker in _open), *_inside.get())))


@cache
def _mark_threads() -> None:
    """From now on, each thread bears the trackers that it was started inside of.

    A thread does not inherit the context of who starts it (before Python 3.14), and nothing else tells who that was.
    """
    start = threading.Thread.start

    @wraps(start)
    def marking(thread: threading.Thread) -> None:
        trackers = trackers_here()
        if trackers:
            setattr(thread, _STARTED_INSIDE, trackers)
        start(thread)

    threading.Thread.start = marking  # type: ignore[method-assign, assignment]


def _dollars(amount: float) -> str:
    return f"${amount:,.6f}"
