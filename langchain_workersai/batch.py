"""Bulk work through LangChain: the service's Batch API, with messages in and messages out.

LangChain's own ``batch`` and ``abatch`` are concurrent calls, and stay so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableBinding, RunnableConfig, ensure_config
from typing_extensions import Unpack, override

from langchain_workersai.errors import error_to_langchain, langchain_errors
from langchain_workersai.messages import message_to_langchain, messages_from_langchain
from langchain_workersai.tools import plain
from workersai.batch import BatchOptions, BatchRequest, BatchResult
from workersai.connected import ConnectedModel
from workersai.errors import WorkersAIError

Result = tuple[int, AIMessage | WorkersAIError]
T = TypeVar("T")


class BatchingChatModel(BaseChatModel, ConnectedModel):
    """A chat model that any number of inputs can be given to at once."""

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
        with langchain_errors():
            manager = CallbackManager.configure(**self._for_callbacks(config, kwargs))

            def requests() -> Iterator[BatchRequest]:
                for index, given in enumerate(inputs or ()):
                    messages = self._messages(given)
                    if manager.handlers:
                        (runs[index],) = manager.on_chat_model_start(*self._start(messages), **self._told(kwargs))
                    yield BatchRequest(messages_from_langchain(messages))

            source = None if inputs is None else requests()
            with closing(self._client.batch(source, **self._job_options(kwargs))) as results:
                for result in results:
                    outcome = _outcome(result)
                    if (run := runs.pop(result.index, None)) is not None:
                        if isinstance(outcome, AIMessage):
                            run.on_llm_end(_llm_result(outcome))
                        else:
                            run.on_llm_error(outcome)
                    yield result.index, outcome

    async def abatch_api_as_completed(
        self,
        inputs: Iterable[LanguageModelInput] | None,
        config: RunnableConfig | None = None,
        **kwargs: Unpack[BatchOptions],
    ) -> AsyncIterator[Result]:
        """The answers to many inputs as they come; see :meth:`batch_api_as_completed`."""
        runs: dict[int, Any] = {}
        with langchain_errors():
            manager = AsyncCallbackManager.configure(**self._for_callbacks(config, kwargs))

            async def requests() -> AsyncIterator[BatchRequest]:
                for index, given in enumerate(inputs or ()):
                    messages = self._messages(given)
                    if manager.handlers:
                        (runs[index],) = await manager.on_chat_model_start(*self._start(messages), **self._told(kwargs))
                    yield BatchRequest(messages_from_langchain(messages))

            source = None if inputs is None else requests()
            async with aclosing(self._async_client.batch(source, **self._job_options(kwargs))) as results:
                async for result in results:
                    outcome = _outcome(result)
                    if (run := runs.pop(result.index, None)) is not None:
                        if isinstance(outcome, AIMessage):
                            await run.on_llm_end(_llm_result(outcome))
                        else:
                            await run.on_llm_error(outcome)
                    yield result.index, outcome

    @override
    def bind(self, **kwargs: Any) -> RunnableBinding[LanguageModelInput, AIMessage]:  # type: ignore[override]
        return BoundChatModel(bound=self, kwargs=kwargs, config={})

    def _messages(self, given: LanguageModelInput) -> list[BaseMessage]:
        return self._convert_input(given).to_messages()

    def _job_options(self, kwargs: BatchOptions) -> BatchOptions:
        options: BatchOptions = self._options(plain(kwargs))  # type: ignore[assignment]
        return options

    def _for_callbacks(self, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        config = ensure_config(config)
        params = self._get_ls_params(**kwargs)
        return {
            "inheritable_callbacks": config.get("callbacks"),
            "local_callbacks": self.callbacks,
            "verbose": self.verbose,
            "inheritable_tags": config.get("tags"),
            "local_tags": self.tags,
            "inheritable_metadata": {**config.get("metadata", {}), **params},
            "local_metadata": self.metadata,
        }

    def _start(self, messages: list[BaseMessage]) -> tuple[dict[str, Any], list[list[BaseMessage]]]:
        return self._serialized, [messages]

    def _told(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {"invocation_params": self._get_invocation_params(**kwargs), "options": {}, "batch_size": 1}


class BoundChatModel(RunnableBinding[LanguageModelInput, AIMessage]):
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


def _outcome(result: BatchResult) -> AIMessage | WorkersAIError:
    if result.completion is not None:
        return message_to_langchain(result.completion)
    return error_to_langchain(result.error or WorkersAIError("There is no answer."))


def _llm_result(message: AIMessage) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def _whole(outcomes: Iterable[AIMessage | WorkersAIError], return_exceptions: bool) -> list[Any]:  # noqa: FBT001
    """All of them, or the first error."""
    found = list(outcomes)
    if not return_exceptions:
        for outcome in found:
            if isinstance(outcome, WorkersAIError):
                raise outcome
    return found
