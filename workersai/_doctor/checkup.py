"""Runs the checks in their order, and skips those that can't succeed any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from workersai._doctor.account import account_check
from workersai._doctor.batches import BatchChecks
from workersai._doctor.calls import TextChecks
from workersai._doctor.captures import Capture, Recorder
from workersai._doctor.findings import Check, Finding, finding_from_error, skipped
from workersai._doctor.shapes import result_of_payload, stream_facts, usage_of_result
from workersai._doctor.vectors import vector_checks
from workersai.catalog import priced_card
from workersai.client import Client
from workersai.errors import APIConnectionError, APITimeoutError, WorkersAIError


class Checkup:
    """One run of all checks.

    Args:
        client: Whose account is checked.
        model: The model that generates text.
        timeout: Seconds that each request may take.
        batch_wait: Seconds that the batches may take together.

    Attributes:
        findings: The rows so far.
    """

    def __init__(self, client: Client, model: str, *, timeout: float, batch_wait: float) -> None:
        self.findings: list[Finding] = []
        self._recorder = Recorder(client, timeout)
        text = TextChecks(self._recorder, model)
        self._checks: list[Check] = [
            account_check(self._recorder, model),
            *text.checks(),
            BatchChecks(self._recorder, model, text, batch_wait).check(),
            *vector_checks(self._recorder),
        ]
        self._blocked: dict[str, str] = {}  # by model, and "" for all: the row that says why

    @property
    def captures(self) -> list[Capture]:
        """All requests so far, with their replies."""
        return self._recorder.captures

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return any(finding.status == "fail" for finding in self.findings)

    def run(self) -> Iterator[str]:
        """Runs all checks; gives the name of each before it begins."""
        for check in self._checks:
            cause = self._blocked.get("") or self._blocked.get(check.model)
            if cause is not None:
                self.findings += [skipped(name, f"{cause!r} failed") for name in check.names]
                continue
            yield check.names[0]
            started = time.monotonic()
            for finding in self._found(check):
                self.findings.append(finding.with_seconds(time.monotonic() - started))
                if finding.blocks:
                    self._blocked.setdefault("" if finding.blocks == "all" else check.model, finding.name)

    def interrupt(self) -> None:
        """Notes that the rest was not run."""
        done = {finding.name for finding in self.findings}
        names = [name for check in self._checks for name in check.names if name not in done]
        self.findings += [skipped(name, "interrupted") for name in names]

    def cost_usd(self) -> float:
        """The cost by the usage of the replies, in US dollars; replies without usage or a price count nothing."""
        return sum(_cost_usd(capture) for capture in self.captures)

    def _found(self, check: Check) -> list[Finding]:
        try:
            return check.run()
        except WorkersAIError as error:
            first, *rest = check.names
            finding = finding_from_error(first, error)
            if not check.model and isinstance(error, APIConnectionError | APITimeoutError):
                finding = replace(finding, blocks="all")
            return [finding, *(skipped(name, f"{first!r} failed") for name in rest)]


def _cost_usd(capture: Capture) -> float:
    card = priced_card(capture.model)
    if card is None or capture.head is None:
        return 0.0
    counted: Any = usage_of_result(result_of_payload(capture.payload))
    if capture.kind == "stream" and counted is None:
        counted = stream_facts(capture.chunks).tokens
    return card.cost_usd(counted[0], counted[1]) if counted else 0.0
