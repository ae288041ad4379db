"""The AI Gateway in front of the local server: it answers from its cache what it was asked before.

It caches where a request says so (wire.md#gateway-headers): there is no dashboard here that could have it cache by
default.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workersai.local.records import RequestRecord
from workersai.local.wire import ray

# Cloudflare's page on caching: what is kept under a key of one's own, without a time.
_DEFAULT_TTL = 300.0
_MOST_REPLIES = 1_000
_MOST_BYTES = 64 * 2**20


@dataclass
class _Reply:
    """A reply on its way or in the cache, piece by piece as it was sent."""

    until: float
    messages: list[Message] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of its body."""
        return sum(len(message.get("body", b"")) for message in self.messages)

    @property
    def succeeded(self) -> bool:
        """Whether it is an answer, and whole."""
        first, last = self.messages[0], self.messages[-1]
        whole = last["type"] == "http.response.body" and not last.get("more_body", False)
        return whole and first.get("status") == 200  # noqa: PLR2004 - HTTP's OK


class GatewayCache:
    """The cache of all gateways of the server: the last 1,000 replies, or fewer if they take more than 64 MiB.

    Args:
        clock: Tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._replies: MutableMapping[str, _Reply] = {}
        self._bytes = 0

    async def answer(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, content: bytes | None, record: RequestRecord
    ) -> None:
        """Answers from the cache, or by ``app``, whose answer is kept."""
        headers = Request(scope).headers
        if not headers.get("cf-aig-gateway-id"):
            await app(scope, receive, send)
            return
        key, ttl = _key(Request(scope), content), _ttl(Request(scope))
        told = [(b"cf-aig-log-id", uuid.uuid4().hex.encode())]
        if ttl is None:
            await app(scope, receive, _telling(send, told))
            return
        kept = self._replies.get(key)
        if kept is not None and self._clock() < kept.until:
            await _replay(kept, _telling(send, [*told, (b"cf-ray", ray().encode()), _status(b"HIT")]))
            record.end("complete")
            return
        reply = _Reply(self._clock() + ttl)

        async def keeping(message: Message) -> None:
            reply.messages.append(message)
            if reply.succeeded and record.outcome != "failed":
                self._keep(key, reply)  # before its end is sent, after which it may be asked for again
            await send(message)

        await app(scope, receive, _telling(keeping, [*told, _status(b"MISS")]))

    def _keep(self, key: str, reply: _Reply) -> None:
        self._drop(key)
        self._replies[key] = reply
        self._bytes += reply.size
        while len(self._replies) > _MOST_REPLIES or self._bytes > _MOST_BYTES:
            self._drop(next(iter(self._replies)))

    def _drop(self, key: str) -> None:
        dropped = self._replies.pop(key, None)
        self._bytes -= dropped.size if dropped else 0


def _key(request: Request, content: bytes | None) -> str:
    """What equal requests have in common: the caller, the address and the body; or the caller, and a key of its own."""
    named = request.headers.get("cf-aig-cache-key")
    # A Worker's call names its model in a header.
    model = request.headers.get("cf-consn-model-id", "")
    asked = [request.url.path, request.url.query, model, hashlib.sha256(content or b"").hexdigest()]
    own = [request.headers.get("cf-aig-gateway-id", ""), request.headers.get("authorization", "")]
    return "\n".join([*own, *(["key", named] if named else asked)])


def _ttl(request: Request) -> float | None:
    """Seconds to keep the reply; None where no cache is wanted."""
    if request.method != "POST" or request.headers.get("cf-aig-skip-cache") == "true":
        return None
    given = request.headers.get("cf-aig-cache-ttl", "")
    if given.isascii() and given.isdigit():
        return float(given)
    return _DEFAULT_TTL if request.headers.get("cf-aig-cache-key") else None


def _status(status: bytes) -> tuple[bytes, bytes]:
    return b"cf-aig-cache-status", status


def _telling(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            replaced = {name for name, _ in headers}
            kept = [header for header in message.get("headers", []) if header[0] not in replaced]
            message = {**message, "headers": [*kept, *headers]}
        await send(message)

    return telling


async def _replay(reply: _Reply, send: Send) -> None:
    for message in reply.messages:
        await send(message)
