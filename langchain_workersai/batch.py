"""Bulk work through LangChain: the service's Batch API, with LangChain's inputs in and its answers out.

LangChain's own ``batch`` and ``abatch`` are concurrent calls, and stay so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, ensure_config
from typing_extensions import Unpack, override

from langchain_workersai.errors import error_to_langchain, langchain_errors
from langchain_workersai.served import ServedModel
from workersai.batch import BatchOptions, BatchRequest, BatchResult, without_the_jobs
from workersai.errors import WorkersAIError
from workersai.protocol.request import Input
from workersai.protocol.values import Completion

Result = tuple[int, Any]


class BatchingModel(ServedModel):
    """A model that any number of inputs can be given to at once; a subclass says what they and the answers are."""

    @abstractmethod
    def _prompt_of(self, given: LanguageModelInput) -> Any:
        """What an input asks, as callbacks are told it."""

    @abstractmethod
    def _input_of(self, prompt: Any) -> Input:
        """The same as the service is asked it."""

    @abstractmethod
    def _starting(self, manager: CallbackManager | AsyncCallbackManager) -> Callable[..., Any]:
        """What tells callbacks of prompts."""

    @abstractmethod
    def _ended(self, completion: Completion) -> tuple[Any, LLMResult]:
        """The answer, and the same as callbacks are told it."""

    @override
    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        settled: Any = {**(config or {}), **kwargs}
        return BoundModel(bound=self, kwargs={}, config=settled)

    def batch_api(
        self,
        inputs: Iterable[LanguageModelInput] | None,
        config: RunnableConfig | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Unpack[BatchOptions],
    ) -> list[Any]:
        """The answers to many inputs, in their order, by the service's Async Batch API where that fits.

        Args:
            inputs: Texts, messages or prompt values. None: those of the ``journal``.
            config: Callbacks, tags and metadata of the runs, one for each input.
            return_exceptions: True: an input that failed has its error in the list. False: once all have ended, the
                first error is raised; with a ``journal``, the answers are in it.
            **kwargs: ``journal``, ``mode``, ``part_size`` and their kind (:class:`workersai.batch.BatchOptions`), and
                the options of the calls, tools and ``response_format`` too.

        What fits, how messages become the one prompt that a batch takes, and what becomes of failures is written at
        :meth:`workersai.Client.batch`.

        Raises:
            BadRequestError: inputs can't be sent, each told with its row; nothing was sent.
            JournalError: the journal is another job's, in use, or can't be written.
            WorkersAIError: an input failed, or all would have; each is LangChain's own error as well.
        """
        kwargs["in_order"] = True
        return _whole(
            (outcome for _, outcome in self.batch_api_as_completed(inputs, config, **kwargs)), return_exceptions
        )

    async def abatch_api(
        self,
        inputs: Iterable[LanguageModelInput] | None,
        config: RunnableConfig | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Unpack[BatchOptions],
    ) -> list[Any]:
        """The answers to many inputs, in their order; see :meth:`batch_api`."""
        kwargs["in_order"] = True
        results = [outcome async for _, outcome in self.abatch_api_as_completed(inputs, config, **kwargs)]
        return _whole(results, return_exceptions)

    def batch_api_as_completed(
        self,
        inputs: Iterable[LanguageModelInput] | None,
        config: RunnableConfig | None = None,
        **kwargs: Unpack[BatchOptions],
    ) -> Iterator[Result]:
        """The answers to many inputs as they come, each with its place; one that failed is its error.

        They are not held: this is for more than fits the memory. Arguments and errors are those of :meth:`batch_api`.
        """
        runs: dict[int, Any] = {}
        manager = CallbackManager.configure(**self._for_callbacks(config, kwargs))
        start = self._starting(manager)

        def requests() -> Iterator[BatchRequest]:
            for index, given in enumerate(inputs or ()):
                prompt = self._prompt_of(given)
                if manager.handlers:
                    (runs[index],) = start([prompt], **self._told(kwargs))
                yield BatchRequest(self._input_of(prompt))

        source = None if inputs is None else requests()
        try:
            with langchain_errors(), closing(self._client.batch(source, **self._job_options(kwargs))) as results:
                for result in results:
                    outcome, ended = self._outcome(result)
                    if (run := runs.pop(result.index, None)) is not None:
                        (run.on_llm_error(outcome) if ended is None else run.on_llm_end(ended))
                    yield result.index, outcome
        except BaseException as error:
            for run in runs.values():
                run.on_llm_error(error)
            raise

    async def abatch_api_as_completed(
        self,
        inputs: Iterable[LanguageModelInput] | None,
        config: RunnableConfig | None = None,
        **kwargs: Unpack[BatchOptions],
    ) -> AsyncIterator[Result]:
        """The answers to many inputs as they come; see :meth:`batch_api_as_completed`."""
        runs: dict[int, Any] = {}
        manager = AsyncCallbackManager.configure(**self._for_callbacks(config, kwargs))
        start = self._starting(manager)

        async def requests() -> AsyncIterator[BatchRequest]:
            for index, given in enumerate(inputs or ()):
                prompt = self._prompt_of(given)
                if manager.handlers:
                    (runs[index],) = await start([prompt], **self._told(kwargs))
                yield BatchRequest(self._input_of(prompt))

        source = None if inputs is None else requests()
        try:
            with langchain_errors():
                async with aclosing(self._async_client.batch(source, **self._job_options(kwargs))) as results:
                    async for result in results:
                        outcome, ended = self._outcome(result)
                        if (run := runs.pop(result.index, None)) is not None:
                            await (run.on_llm_error(outcome) if ended is None else run.on_llm_end(ended))
                        yield result.index, outcome
        except BaseException as error:
            for run in runs.values():
                await run.on_llm_error(error)
            raise

    def _job_options(self, kwargs: BatchOptions) -> BatchOptions:
        options: BatchOptions = self._options(self._as_said(kwargs))  # type: ignore[assignment]
        return options

    def _for_callbacks(self, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        config = ensure_config(config)
        params = self._get_ls_params_with_defaults(**kwargs)
        return {
            "inheritable_callbacks": config.get("callbacks"),
            "local_callbacks": self.callbacks,
            "verbose": self.verbose,
            "inheritable_tags": config.get("tags"),
            "local_tags": self.tags,
            "inheritable_metadata": {**config.get("metadata", {}), **params},
            "local_metadata": self.metadata,
        }

    def _told(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        params = {**self._identifying_params, "_type": self._llm_type, **without_the_jobs(kwargs)}
        return {"invocation_params": params, "options": {}, "batch_size": 1}

    def _outcome(self, result: BatchResult) -> tuple[Any, LLMResult | None]:
        if result.completion is not None:
            return self._ended(result.completion)
        return error_to_langchain(result.error or WorkersAIError("There is no answer.")), None


class BoundModel(RunnableBinding[LanguageModelInput, Any]):
    """A model with bound options, which go into bulk work as well.

    LangChain's own binding would hand on a method that it doesn't know without them. To everything else it is that.
    """

    @override
    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        if not name.removeprefix("a").startswith("batch_api"):
            return method
        return lambda *args, **kwargs: method(*args, **{**self.kwargs, **kwargs})

    @classmethod
    @override
    def lc_id(cls) -> list[str]:
        return RunnableBinding.lc_id()


def _whole(outcomes: Iterable[Any], return_exceptions: bool) -> list[Any]:  # noqa: FBT001
    """All of them, or the first error."""
    found = list(outcomes)
    if not return_exceptions:
        for outcome in found:
            if isinstance(outcome, WorkersAIError):
                raise outcome
    return found
