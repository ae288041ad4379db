"""Between the transports and the flows: what the two clients do alike. No error of httpx's passes this module."""

from __future__ import annotations

import contextlib
import logging
import ssl
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from workersai._transport.decoding import BodyDecoder
from workersai.errors import APIConnectionError, APITimeoutError, WorkersAIError
from workersai.pools import Pool
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Request
from workersai.settings import DEFAULT_TIMEOUT

logger = logging.getLogger("workersai")

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class _Headed(Protocol):
    status: int
    headers: Any


def read_head(reply: _Headed) -> ReplyHead:
    """Status and headers of a reply, whose names are in lower case or found in any case."""
    logger.debug("The service answered with status %d", reply.status)
    headers = reply.headers
    if "retry-after" in headers:
        try:
            parsedate_to_datetime(headers.get("date", ""))
        except (TypeError, ValueError):  # no date to measure the wait by: it is measured from now
            headers["date"] = formatdate(usegmt=True)
    return ReplyHead(status=reply.status, headers=headers)


def new_decoder(head: ReplyHead, request: Request) -> BodyDecoder:
    """What decodes and bounds the body of a reply.

    Raises:
        ServerError: The reply is compressed in a way that was not requested.
    """
    return BodyDecoder(head.headers.get("content-encoding", ""), request.max_reply_bytes)


FAILURES = (httpx.HTTPError, ssl.SSLError)
"""What sending and receiving raise; a broken TLS record is raised as it is by httpx's async pools."""


def check_open(pool: Pool[Any]) -> None:
    """Fails where the connections were closed under a call, which would open others that nobody closes.

    Raises:
        APIConnectionError: They were.
    """
    if pool.closed:
        raise _closed()


def _closed() -> APIConnectionError:
    return APIConnectionError(
        "The client was closed before this call had ended. Close it after all calls have finished.", retryable=False
    )


def error_from_httpx(
    error: httpx.HTTPError | ssl.SSLError, request: Request, *, closed: bool = False
) -> WorkersAIError:
    """The error for a request that got no reply, or not all of one; httpx's own is its cause.

    ``closed`` is whether the connections were closed here.
    """
    if closed:
        early = _closed()
        early.__cause__ = error
        _forget_frames(error)
        return early
    if isinstance(error, ssl.SSLError):
        broken = APIConnectionError(f"The connection's TLS is broken ({error}). Try again.")
        broken.__cause__ = error
        _forget_frames(error)
        return broken
    ours = _error_from_httpx(error, request)
    ours.never_sent = isinstance(error, _UNSENT)
    ours.__cause__ = error
    _forget_frames(error)
    # What a program finds in it may be printed: it has the address, and no secret.
    error.request = httpx.Request("POST", request.url, headers={"authorization": "***"})
    return ours


def _forget_frames(error: BaseException | None) -> None:
    """Leaves the exceptions, without the frames of the libraries below: their variables hold the request's headers.

    Programs that log tracebacks with all local variables would log the token.
    """
    seen = list[BaseException]()
    while error is not None and error not in seen:  # an exception may be its own cause
        seen.append(error)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _error_from_httpx(error: httpx.HTTPError, request: Request) -> WorkersAIError:
    host = urlsplit(request.url).netloc
    kind = type(error).__name__
    what = f"{kind}: {error}" if str(error) else kind
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
        return APIConnectionError(
            f"Could not connect to {host} ({what}). Check the network, a proxy's setting, and the base URL."
        )
    if isinstance(error, httpx.TimeoutException):
        waited = _timeout_of(error, request)
        return APITimeoutError(
            f"{host} did not answer in time ({what}; timeout {waited:g} s). Try again, or raise timeout."
        )
    return APIConnectionError(f"The connection to {host} failed ({what}). Try again.")


def _timeout_of(error: httpx.TimeoutException, request: Request) -> float:
    """The timeout that was in force: for a client of the caller's own, the one httpx noted in its request."""
    with contextlib.suppress(RuntimeError):  # it is one of ours, which has no request
        waits: dict[str, float | None] = error.request.extensions.get("timeout", {})
        return waits.get("write" if isinstance(error, httpx.WriteTimeout) else "read") or 0
    return request.timeout or DEFAULT_TIMEOUT
