"""Bulk work through LlamaIndex: the service's Batch API, with prompts or messages in and responses out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing, closing

from llama_index.core.base.llms.base import BaseLLM
from typing_extensions import Unpack

from llamaindex_workersai.messages import chat_response, completion_response, messages_from_llamaindex
from llamaindex_workersai.telling import BatchInput, Response, Telling
from workersai.batch import BatchOptions, BatchRequest, BatchResult
from workersai.connected import ConnectedModel
from workersai.errors import WorkersAIError


class BatchingLLM(BaseLLM, ConnectedModel):
    """An LLM that any number of inputs can be given to at once."""

    def batch_api(
        self,
        inputs: Iterable[BatchInput] | None,
        *,
        return_exceptions: bool = False,
        **kwargs: Unpack[BatchOptions],
    ) -> list[Response | WorkersAIError]:
        """The answers to many inputs, in their order, by the service's Async Batch API where that fits.

        Args:
            inputs: Prompts, or lists of messages. None: those of the ``journal``.
            return_exceptions: True: an input that failed has its error in the list. False: once all have ended, the
                first error is raised; with a ``journal``, the answers are in it.
            **kwargs: ``journal``, ``mode``, ``part_size`` and their kind (:class:`workersai.batch.BatchOptions`), and
                the options of the calls, ``response_format`` too.

        What fits, how messages become the one prompt that a batch takes, and what becomes of failures is written at
        :meth:`workersai.Client.batch`. LlamaIndex's callbacks and instrumentation are told of each input.

        Raises:
            BadRequestError: inputs can't be sent, each told with its row; nothing was sent.
            JournalError: the journal is another job's, in use, or can't be written.
            WorkersAIError: an input failed, or all would have.
        """
        kwargs["in_order"] = True
        return _whole([outcome for _, outcome in self.batch_api_as_completed(inputs, **kwargs)], return_exceptions)

    async def abatch_api(
        self,
        inputs: Iterable[BatchInput] | None,
        *,
        return_exceptions: bool = False,
        **kwargs: Unpack[BatchOptions],
    ) -> list[Response | WorkersAIError]:
        """The answers to many inputs, in their order; see :meth:`batch_api`."""
        kwargs["in_order"] = True
        results = [outcome async for _, outcome in self.abatch_api_as_completed(inputs, **kwargs)]
        return _whole(results, return_exceptions)

    def batch_api_as_completed(
        self, inputs: Iterable[BatchInput] | None, **kwargs: Unpack[BatchOptions]
    ) -> Iterator[tuple[int, Response | WorkersAIError]]:
        """The answers to many inputs as they come, each with its place; one that failed is its error.

        They are not held: this is for more than fits the memory. Arguments and errors are those of :meth:`batch_api`.
        """
        with (
            Telling(self, kwargs) as telling,
            closing(self._client.batch(_requests(inputs, telling), **self._job_options(kwargs))) as results,
        ):
            for result in results:
                yield result.index, _outcome(result, telling)

    async def abatch_api_as_completed(
        self, inputs: Iterable[BatchInput] | None, **kwargs: Unpack[BatchOptions]
    ) -> AsyncIterator[tuple[int, Response | WorkersAIError]]:
        """The answers to many inputs as they come; see :meth:`batch_api_as_completed`."""
        with Telling(self, kwargs) as telling:
            job = self._async_client.batch(_requests(inputs, telling), **self._job_options(kwargs))
            async with aclosing(job) as results:
                async for result in results:
                    yield result.index, _outcome(result, telling)

    def _job_options(self, kwargs: BatchOptions) -> BatchOptions:
        options: BatchOptions = self._options(kwargs)  # type: ignore[assignment]
        return options


def _requests(inputs: Iterable[BatchInput] | None, telling: Telling) -> Iterator[BatchRequest] | None:
    return None if inputs is None else _told(inputs, telling)


def _told(inputs: Iterable[BatchInput], telling: Telling) -> Iterator[BatchRequest]:
    for index, given in enumerate(inputs):
        request = BatchRequest(given if isinstance(given, str) else messages_from_llamaindex(given))
        telling.begin(index, given)
        yield request


def _outcome(result: BatchResult, telling: Telling) -> Response | WorkersAIError:
    outcome = _response(result)
    telling.end(result.index, outcome)
    return outcome


def _response(result: BatchResult) -> Response | WorkersAIError:
    if result.completion is None:
        return result.error or WorkersAIError("There is no answer.")
    if isinstance(result.request.input, str):
        return completion_response(result.completion)
    return chat_response(result.completion)


def _whole(outcomes: list[Response | WorkersAIError], return_exceptions: bool) -> list[Response | WorkersAIError]:  # noqa: FBT001
    """All of them, or the first error."""
    if not return_exceptions:
        for outcome in outcomes:
            if isinstance(outcome, WorkersAIError):
                raise outcome
    return outcomes
