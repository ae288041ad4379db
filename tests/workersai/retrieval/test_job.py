"""How the job of some texts goes on, step by step, without a connection."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_core import from_json

from workersai import Client, CostTracker, Embeddings, errors
from workersai.flows import Send, Wait
from workersai.jobs.steps import Begin, Ended, Hand, Next, Take
from workersai.protocol.reply import ReplyHead
from workersai.retrieval.asking import Asker
from workersai.retrieval.job import EmbeddingJob
from workersai.retrieval.options import Ways

CLIENT = Client(account_id="acc", api_token="token", base_url="http://127.0.0.1:1/client/v4")


class Driven:
    """A job, with all that it has begun; who drives it says what ends."""

    def __init__(self, texts: Iterator[str], ways: Ways, **options: Any) -> None:
        self._flow = EmbeddingJob(Asker(CLIENT, options), ways).flow()
        self._texts = texts
        self.begun: list[Begin] = []
        self.handed: list[Embeddings] = []
        self.read = 0

    def until_it_waits(self, outcome: Any = None) -> None:
        while not isinstance(step := self._flow.send(outcome), Next):
            outcome = None
            if isinstance(step, Take):
                outcome = list(itertools.islice(self._texts, step.most))
                self.read += len(outcome)
            elif isinstance(step, Begin):
                self.begun.append(step)
            elif isinstance(step, Hand):
                self.handed.extend(step.results)

    def end(self, *ended: Ended) -> None:
        self.until_it_waits(list(ended))


def vectors(begin: Begin) -> Ended:
    return Ended(begin.key, Embeddings([[1.0]], "model", None, (), None, None, None))


@pytest.mark.parametrize("most_at_once", [2, 8, 90])
def test_no_more_is_read_while_the_first_vectors_are_awaited(most_at_once: int) -> None:
    job = Driven(map(str, itertools.count()), Ways(), max_concurrency=most_at_once)
    job.until_it_waits()
    ended = 1
    while ended < len(job.begun):
        ended += 1
        job.end(vectors(job.begun[ended - 1]))
    assert len(job.begun) == max(8_000, most_at_once * 100) / 100
    assert (job.handed, job.read) == ([], len(job.begun) * 100)
    job.end(vectors(job.begun[0]))
    assert len(job.handed) == ended


def test_what_came_before_a_failure_is_handed_over() -> None:
    job = Driven(map(str, range(500)), Ways(), max_concurrency=3)
    job.until_it_waits()
    first, second, _ = job.begun
    failure = errors.ServerError("no")
    job.end(Ended(second.key, error=failure))
    assert len(job.begun) == 3, "nothing more is begun"
    with pytest.raises(errors.ServerError) as caught:
        job.end(vectors(first))
    assert caught.value is failure
    assert len(job.handed) == 1


def test_the_texts_of_one_call_have_one_deadline_and_those_of_a_corpus_none_together() -> None:
    texts = [str(number) for number in range(500)]
    job = EmbeddingJob(Asker(CLIENT, {"deadline": 60}), Ways())
    checked = job.checked(texts)
    flow, outcome, ends = job.flow(), None, []
    while not isinstance(step := flow.send(outcome), Next):
        outcome = list(checked) if isinstance(step, Take) else None
        ends.extend([step.call.ends] if isinstance(step, Begin) else [])
    assert len(ends) == 5
    assert ends[0] is not None
    assert all(each is ends[0] for each in ends)
    corpus = Driven(iter(texts), Ways(), deadline=60)
    corpus.until_it_waits()
    assert [(begin.call.ends, begin.call.deadline) for begin in corpus.begun] == [(None, 60)] * 5


@pytest.mark.parametrize("reply", [(200, {"status": "queued"}), (502, {})])
def test_a_batch_that_may_have_been_taken_is_sent_again_after_a_wait(
    reply: tuple[int, Any], caplog: pytest.LogCaptureFixture
) -> None:
    job = Driven(iter(["a"]), Ways("batch"), max_retries=2)
    job.until_it_waits()
    (submitted,) = job.begun
    status, result = reply
    head = ReplyHead(status, {"retry-after": "7"})
    body = json.dumps({"result": result, "success": status == 200}).encode()

    def answered(*, outcome: Any) -> Any:
        assert isinstance(submitted.flow.send(outcome), Send)
        submitted.flow.send(head)
        return submitted.flow.send(body)

    waits = [answered(outcome=None), answered(outcome=True)]
    assert all(isinstance(wait, Wait) for wait in waits)
    assert [wait.retry.attempt for wait in waits] == [1, 2]
    assert status == 200 or [wait.retry.wait for wait in waits] == [7, 7]
    with pytest.raises(errors.ServerError):
        answered(outcome=True)
    assert caplog.text.count("may be billed twice") == 2


def test_a_batch_that_may_have_been_taken_is_sent_again_only_within_the_budget() -> None:
    with CostTracker(budget=3.5 * 3 * 0.067e-6) as cost:  # of three tokens each
        job = Driven(iter(["a"]), Ways("batch"), max_retries=9)
        job.until_it_waits()
        (submitted,) = job.begun
        step = submitted.flow.send(None)
        for _ in range(2):
            step = after_a_bad_gateway(submitted, step)
        with pytest.raises(errors.BudgetExceededError):
            after_a_bad_gateway(submitted, step)
    assert cost.unpriced_calls == 3


def after_a_bad_gateway(submitted: Begin, step: Any) -> Any:
    """The step after a submission was answered with a 502, and the wait before the next has passed."""
    assert isinstance(step, Send)
    submitted.flow.send(ReplyHead(502, {"retry-after": "1"}))
    assert isinstance(submitted.flow.send(b"<html></html>"), Wait)
    return submitted.flow.send(True)  # noqa: FBT003 - whether the deadline leaves time for it


def test_only_texts_that_have_their_vectors_are_paid_for() -> None:
    """The batch fails for one of its two groups, and tells no usage."""
    with CostTracker() as cost:
        job = Driven(iter(["one two"] * 150), Ways("batch"), model="@cf/baai/bge-small-en-v1.5")
        job.until_it_waits()
        (submitted,) = job.begun
        data = [[0.5] * 384] * 100
        responses = [
            {"id": 0, "success": True, "result": {"shape": [100, 384], "data": data}},
            {"id": 1, "success": False, "result": {}, "errors": [{"code": 3040, "message": "no capacity"}]},
        ]
        next(submitted.flow)
        submitted.flow.send(ReplyHead(200, {}))
        with pytest.raises(StopIteration) as end:
            submitted.flow.send(json.dumps({"result": {"responses": responses}, "success": True}).encode())
        job.end(Ended(submitted.key, end.value.value))
    assert cost.prompt_tokens == 100 * 4
    _, again = job.begun
    assert (again.call.operation, len(from_json(again.call.request.content)["text"])) == ("embeddings", 50)
