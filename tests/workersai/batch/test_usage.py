"""The usage of a batch is counted once, whether its rows report it, the batch as a whole, or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.raw_server import raw_server, reply
from tests.workersai.batch.conftest import QUICK
from workersai import Client, CostTracker
from workersai.batch import progress_of

ROW, TOTAL = {"prompt_tokens": 10, "completion_tokens": 2}, {"prompt_tokens": 25, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("rows", "total", "counted", "unpriced"),
    [
        ([ROW, ROW], None, (20, 4), 0),
        ([ROW, ROW], {"prompt_tokens": 20, "completion_tokens": 4}, (20, 4), 0),
        ([None, None], TOTAL, (25, 5), 0),
        ([ROW, None], TOTAL, (25, 5), 0),
        ([ROW, None], None, (10, 2), 2),
        ([None, None], None, (0, 0), 2),
    ],
)
def test_usage_is_counted_once(tmp_path: Path, rows: Any, total: Any, counted: tuple[int, int], unpriced: int) -> None:
    responses = [
        {"id": n, "success": True, "result": {"response": "x", **({"usage": usage} if usage else {})}}
        for n, usage in enumerate(rows)
    ]
    done = json.dumps({"result": {"responses": responses, **({"usage": total} if total else {})}, "success": True})
    queued = b'{"result":{"status":"queued","request_id":"r-1"},"success":true}'

    def handle(connected: Any, request: bytes) -> None:
        connected.sendall(reply(done.encode() if b'"request_id"' in request else queued))

    with raw_server(handle) as server, Client(**server.account) as client, CostTracker(budget=1) as cost:
        with client.batch(["a", "b"], mode="batch", journal=tmp_path / "job", max_tokens=100, **QUICK) as job:
            assert len(list(job)) == 2
        assert (cost.prompt_tokens, cost.completion_tokens, cost.unpriced_calls) == (*counted, unpriced)
        assert (cost.held_usd > 0) == (unpriced > 0)
    for progress in (job.progress, progress_of(tmp_path / "job")):
        assert (progress.prompt_tokens, progress.completion_tokens) == counted
        assert (progress.unclear_cost_usd > 0) == (unpriced > 0)
