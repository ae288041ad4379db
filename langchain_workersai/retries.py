"""Retries, told to LangChain's callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun

from langchain_workersai.errors import error_to_langchain

if TYPE_CHECKING:
    from workersai.retries import OnRetry, Retry


def on_retry(run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> OnRetry | None:
    """What tells the run's callbacks (``on_retry``) of each retry, in the form of the library that LangChain uses.

    LangChain's own ``stream`` and ``astream`` hand over no run to tell it to: there, the log tells of retries.
    """
    if run_manager is None:
        return None
    slept = 0.0

    def tell(retry: Retry) -> object:
        nonlocal slept
        from tenacity import RetryCallState, Retrying  # noqa: PLC0415 - only for who has a retry

        error = error_to_langchain(retry.error)
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = retry.attempt
        state.set_exception((type(error), error, error.__traceback__))
        state.idle_for, state.upcoming_sleep = slept, retry.wait
        slept += retry.wait
        return run_manager.on_retry(state)

    return tell
