"""How a job is to be done: its settings, checked, and the calls that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from workersai.batch.reading import Mode
from workersai.batch.records import BATCH_INPUT, SHAPING, options_to_json
from workersai.batch.values import BatchRequest
from workersai.calls import Call
from workersai.catalog import DEFAULT_MODEL, ModelCard, model_card
from workersai.checks import is_number, shown
from workersai.costs import CostTracker
from workersai.errors import BadRequestError, BudgetExceededError, ConfigurationError, WorkersAIError
from workersai.options import call_options
from workersai.pacing import Limiter, limiter_of_account
from workersai.protocol.batch import (
    BatchInput,
    checked_batch_input,
    most_added_tokens,
    poll_request,
    submit_request,
)
from workersai.protocol.request import json_text
from workersai.settings import Settings

_MOST_ROWS, _MOST_CALLS, _LONGEST_INTERVAL = 100_000, 1_000, 3_600.0
_MODES = ("auto", "batch", "calls")


@dataclass(frozen=True)
class Plan:
    """The settings of a job; :meth:`workersai.Client.batch` says what they mean."""

    journal: Path | None = None
    mode: Mode = "auto"
    in_order: bool = False
    part_size: int = 1_000
    concurrency: int = 32
    poll_interval: float = 2.0
    retry_failed: bool = False
    on_invalid: Literal["refuse", "keep"] = "refuse"
    hands_over: bool = True
    """Whether the results are handed to the caller, or only kept in the journal."""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise BadRequestError(f"mode must be one of {', '.join(_MODES)}, not {shown(self.mode)}.")
        if self.on_invalid not in ("refuse", "keep"):
            raise BadRequestError(f"on_invalid must be 'refuse' or 'keep', not {shown(self.on_invalid)}.")
        for name, most in (("part_size", _MOST_ROWS), ("concurrency", _MOST_CALLS)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise BadRequestError(f"{name} must be a whole number from 1 to {most:,}, not {shown(value)}.")
        if not isinstance(self.notes, Mapping):
            raise BadRequestError(f"notes must be a dict, not {type(self.notes).__name__}.")
        try:
            json_text(dict(self.notes))
        except BadRequestError as error:
            raise BadRequestError(f"notes: {error.message}") from None
        for name in ("in_order", "retry_failed", "hands_over"):
            if not isinstance(getattr(self, name), bool):
                raise BadRequestError(f"{name} must be True or False, not {shown(getattr(self, name))}.")
        seconds = self.poll_interval
        if not (is_number(seconds) and 0 < seconds <= _LONGEST_INTERVAL):
            raise BadRequestError(f"poll_interval must be seconds above 0, at most 3,600, not {shown(seconds)}.")


@dataclass
class Asker:
    """Makes the calls of a job.

    Args:
        settings: Who calls.
        prepare: What makes a call of an input and options, and checks both.
        given: The options of the job, with the client's defaults below them.
        own: Those of them that were given to the job itself.
        trackers: What counts its cost.
    """

    settings: Settings
    prepare: Callable[[Any, Any], Call]
    given: Mapping[str, Any]
    own: Mapping[str, Any]
    trackers: tuple[CostTracker, ...]
    shaping: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
            BadRequestError: one is none that a call takes.
            ConfigurationError: there is a budget, and the price of the model is not known.
        """
        self.shaping = options_to_json({name: self.given[name] for name in SHAPING if self.given.get(name) is not None})
        self.shaping.setdefault("model", DEFAULT_MODEL)
        self.carrier  # noqa: B018 - which checks them
        # Whatever the default of a later version is, the job goes on in this form.
        self.shaping[BATCH_INPUT] = checked_batch_input(self.given.get(BATCH_INPUT), self.model)
        self.check_price()

    def adopt(self, shaping: Mapping[str, Any]) -> None:
        """Takes the options of the job that the journal is of."""
        self.shaping = dict(shaping)
        for name in ("carrier", "_call_options", "_job_options"):
            self.__dict__.pop(name, None)
        self.check_price()

    def check_price(self) -> None:
        """Fails where a budget can't be kept.

        Raises:
            ConfigurationError: the price of the model is not known.
        """
        if self.card is None and any(tracker.budget is not None for tracker in self.trackers):
            raise ConfigurationError(f"The price of {self.model} is not known, so no budget can be kept.")

    @property
    def model(self) -> str:
        """What is asked."""
        return str(self.shaping["model"])

    @property
    def batch_input(self) -> BatchInput:
        """How conversations stand in the items of its batches."""
        form: BatchInput = self.shaping[BATCH_INPUT]
        return form

    @property
    def card(self) -> ModelCard | None:
        """What is known of it."""
        return model_card(self.model)

    @property
    def limiter(self) -> Limiter | None:
        """The limit that all requests keep: the account's, unless another, or None, was given."""
        given = "rate_limit" in self.given
        return self.carrier.limiter if given else limiter_of_account(str(self.settings.account_id))

    @cached_property
    def carrier(self) -> Call:
        """A call that has the job's own ways, for requests that are none of a row's."""
        return replace(self.prepare("-", self._options({})), trackers=(), in_json=None, operation=None)

    def call(self, request: BatchRequest) -> Call:
        """A row as a single call.

        Raises:
            BadRequestError: it can't be one.
            ContextWindowExceededError: it doesn't fit.
        """
        return self._paced(self.prepare(request.input, self._options(request.options)))

    def in_batch(self, call: Call) -> Call:
        """The single call of a row, with the tokens that the row may take as an item of a batch."""
        if call.operation != "chat":
            return call
        prompt, answer = call.most_tokens
        return replace(call, most_tokens=(prompt + most_added_tokens(self.batch_input), answer))

    def refusal(self, request: BatchRequest, *, batched: bool) -> BudgetExceededError | None:
        """Why a budget has no room for a row, or None if all have."""
        try:
            call = self.call(request)
            with (self.in_batch(call) if batched else call).meter() as meter:
                meter.unsent = True  # so that what it keeps is given back
        except BudgetExceededError as error:
            return error
        except WorkersAIError:  # which shows when it is to be sent
            return None
        return None

    def _paced(self, call: Call) -> Call:
        in_json = None if call.in_json is None else self._paced(call.in_json)
        return replace(call, limiter=self.limiter, trackers=self.trackers, in_json=in_json)

    def submission(self, items: Sequence[str]) -> Call:
        """What submits a batch of these items."""
        return self._carrying(submit_request(self.settings, self._call_options, items))

    def poll(self, request_id: str) -> Call:
        """What asks for a batch."""
        return self._carrying(poll_request(self.settings, self._call_options, request_id))

    def _carrying(self, request: Any) -> Call:
        return replace(self.carrier, request=request, limiter=self.limiter)

    @cached_property
    def _call_options(self) -> Any:
        apart = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "on_retry")
        return call_options({name: value for name, value in self._options({}).items() if name not in apart})

    def _options(self, of_row: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a row: those that shape the answer are the job's own, whatever the client's defaults are."""
        return {**self._job_options, **of_row}

    @cached_property
    def _job_options(self) -> dict[str, Any]:
        options = {name: None if name in SHAPING else value for name, value in self.given.items()} | self.shaping
        return {name: value for name, value in options.items() if name != BATCH_INPUT}  # which no single call has
