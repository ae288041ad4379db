"""What bulk work takes and gives: requests, results, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workersai.errors import WorkersAIError
from workersai.protocol.request import Input
from workersai.protocol.values import Completion


@dataclass(frozen=True)
class BatchRequest:
    """One of many requests.

    Attributes:
        input: A text, or messages, as for :meth:`workersai.Client.run`.
        external_reference: Your own name of it, which comes back with the result; it need not be unique. By default
            ``row-1``, ``row-2`` and so on, by its place.
        options: Options of this one request, over those of the job: the sampling settings, ``max_tokens``, ``stop``,
            ``lora``, ``raw``, ``prompt_form``, ``response_format``, the tools.
        metadata: Whatever else is to come back with the result, as JSON can hold it.
    """

    input: Input
    external_reference: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchResult:
    """The outcome of one request: its completion, or the error that it ended with.

    Attributes:
        index: The place of the request among all of them; the first is 0.
        request: The request, with its reference; given to another ``batch``, it is asked again.
        completion: The answer; None where there is none. Its ``usage`` is None in a batch, whose tokens the service
            tells in all; its ``finish_reason`` is None where the tokens of a long answer could not be counted.
        error: Why there is no answer.
    """

    index: int
    request: BatchRequest
    completion: Completion | None = None
    error: WorkersAIError | None = None

    @property
    def external_reference(self) -> str:
        """Your own name of the request, or the one that it was given."""
        return self.request.external_reference or f"row-{self.index + 1}"

    @property
    def text(self) -> str:
        """The text of the answer.

        Raises:
            WorkersAIError: there is none: ``error``.
        """
        if self.completion is None:
            raise self.error or WorkersAIError("There is no answer.")
        return self.completion.text


@dataclass
class Progress:
    """How far a job is.

    Attributes:
        rows: Its requests, as far as they have been read.
        answered: Those with an answer.
        failed: Those with an error.
        parts: Batches that the service works on.
        calls: Single calls under way.
        prompt_tokens: Tokens of the prompts, as far as the service told them.
        completion_tokens: Tokens of the answers.
        cost_usd: US dollars of both; of models that the catalog lists.
        unclear_parts: Batches of which it is not known whether the service took them, since the process or the
            connection broke off while they were being sent. Their rows were sent again, and may be billed twice.
        unclear_cost_usd: US dollars, at most, that may be billed beyond ``cost_usd``: for these batches, for other
            batches and calls without a known cost, and, in :func:`progress_of`, for single calls in progress.
        ready: Whether all requests have been read and checked.
    """

    rows: int = 0
    answered: int = 0
    failed: int = 0
    parts: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unclear_parts: int = 0
    unclear_cost_usd: float = 0.0
    ready: bool = False

    @property
    def left(self) -> int:
        """Requests that have neither an answer nor an error yet."""
        return self.rows - self.answered - self.failed

    @property
    def done(self) -> bool:
        """Whether each request has an answer or an error."""
        return self.ready and self.left == 0
