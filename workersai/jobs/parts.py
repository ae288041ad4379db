"""A batch as the service knows it, one part of a job: submitted, then asked for until it is done."""

from __future__ import annotations

from dataclasses import dataclass

from workersai.billing import may_have_been_billed
from workersai.calls import Call
from workersai.errors import ServerError, WorkersAIError
from workersai.flows import Flow, Send, Turn, receive_all, retried
from workersai.protocol.batch import BatchReply, batch_reply_of
from workersai.protocol.reply import ReplyHead, error_from_body

_REQUEST_TIMEOUT = 408  # of the 4xx, the one that may come after the service has taken the request


@dataclass(frozen=True)
class Told:
    """What the service told of a batch."""

    reply: BatchReply
    head: ReplyHead


@dataclass(frozen=True)
class Unclear:
    """A submission of which it is not known whether the service took it, and how it failed."""

    error: WorkersAIError


def submission(call: Call) -> Flow[Told | Unclear]:
    """Submits a batch, tried again only where the service surely did not take it: each is paid for."""

    def attempt() -> Flow[Told | Unclear]:
        try:
            return (yield from _asked(call))
        except WorkersAIError as error:
            if _was_not_taken(error):
                raise
            return Unclear(error)

    told = yield from retried(call, attempt, lambda: True)
    if isinstance(told, Told) and told.reply.responses is None and told.reply.request_id is None:
        return Unclear(ServerError("The service took a batch and gave it no request_id, so it can't be asked for."))
    return told


def poll(call: Call) -> Flow[Told]:
    """Asks how far a batch is."""
    return retried(call, lambda: _asked(call), lambda: True)


def _asked(call: Call) -> Flow[Told]:
    if call.limiter is not None:
        yield Turn(call.limiter)
    head: ReplyHead = yield Send(call.request)
    body = yield from receive_all(head)
    if not head.ok:
        raise error_from_body(body, head)
    return Told(batch_reply_of(body, head, call.asked.model), head)


def _was_not_taken(error: WorkersAIError) -> bool:
    """Whether a request surely did nothing: it didn't reach the service, or was refused in its own words.

    To take a batch no model has to answer, so here each 4xx is a refusal, also if its reason was lost.
    """
    status = error.status_code or 0
    refused = 400 <= status < 500 and status != _REQUEST_TIMEOUT  # noqa: PLR2004 - HTTP's client errors
    return refused or not may_have_been_billed(error)
