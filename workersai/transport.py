"""Between httpx and the flows: what the two clients do alike. No httpx error passes this module."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Any

import httpx

from workersai.errors import APIConnectionError, APITimeoutError, WorkersAIError
from workersai.pools import Pool, timeouts
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Request
from workersai.settings import DEFAULT_TIMEOUT

logger = logging.getLogger("workersai")

_A_MOMENT = 0.001  # seconds; a timeout of none at all would not even try
_UNTOUCHED = httpx.Timeout(5)  # httpx's own default, which is too short for a model's answer
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def build(pool: Pool[Any], request: Request, left: float | None = None) -> httpx.Request:
    """The request as httpx sends it. Where it has no timeout, that of the caller's own client holds, if there is one.

    ``left`` are the seconds that the deadline leaves; no wait may begin with a longer timeout.
    """
    built = _built(pool.http, request) if pool.ours else _merged(pool.http, request)
    if left is not None:
        longest = max(left, _A_MOMENT)
        waits: dict[str, float | None] = built.extensions["timeout"]
        built.extensions["timeout"] = {name: min(wait or longest, longest) for name, wait in waits.items()}
    return built


def _built(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """The request without httpx's merging of URLs, headers and cookies, a quarter of the work of a call."""
    url = _parsed(request.url)
    headers = httpx.Headers(
        [
            (b"Host", url.netloc),
            (b"Content-Length", b"%d" % len(request.content)),
            (b"Accept-Encoding", http.headers["accept-encoding"].encode()),
            *((name.encode(), value.encode()) for name, value in request.headers.items()),
        ]
    )
    timeout = timeouts(request.timeout or DEFAULT_TIMEOUT).as_dict()
    built = httpx.Request(
        "POST", url, headers=headers, stream=httpx.ByteStream(request.content), extensions={"timeout": timeout}
    )
    built.read()  # as a request that httpx made itself was
    return built


@lru_cache
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


def _merged(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    seconds = request.timeout
    if seconds is None and http.timeout == _UNTOUCHED:
        seconds = DEFAULT_TIMEOUT
    given = {} if seconds is None else {"timeout": timeouts(seconds).as_dict()}
    return http.build_request(
        "POST", request.url, headers=httpx.Headers(request.headers), content=request.content, extensions=given
    )


def is_plain(response: httpx.Response) -> bool:
    """Whether the body is sent as it is: then httpx's decoding of it, some of it for each piece, can be left out."""
    return "content-encoding" not in response.headers


def head_of(response: httpx.Response) -> ReplyHead:
    """Status and headers of a response; httpx's headers are found in any case."""
    logger.debug("The service answered with status %d", response.status_code)
    if "retry-after" in response.headers:
        with contextlib.suppress(TypeError, ValueError):  # to measure a date by: the reply's own, or now
            parsedate_to_datetime(response.headers.get("date", ""))
            return ReplyHead(status=response.status_code, headers=response.headers)
        response.headers["date"] = formatdate(usegmt=True)
    return ReplyHead(status=response.status_code, headers=response.headers)


FAILURES = (httpx.HTTPError, ssl.SSLError)
"""What sending and receiving raise; a broken TLS record comes as it is from the async pools."""


def check_open(pool: Pool[Any]) -> None:
    """Fails where the connections were closed under a call, which would open others that nobody closes.

    Raises:
        APIConnectionError: they were.
    """
    if pool.closed:
        raise _closed()


def _closed() -> APIConnectionError:
    return APIConnectionError(
        "The client was closed before this call had ended. Close it once its calls are done.", retryable=False
    )


def error_from_httpx(
    error: httpx.HTTPError | ssl.SSLError, request: httpx.Request, *, closed: bool = False
) -> WorkersAIError:
    """The error for a request that got no reply, or not the whole of one; httpx's own is its cause.

    ``closed`` is whether the connections were closed here.
    """
    request.headers["authorization"] = "***"
    if closed:
        early = _closed()
        early.__cause__ = error
        _forget_frames(error)
        return early
    if isinstance(error, ssl.SSLError):
        broken = APIConnectionError(f"The connection's TLS is broken ({error}). Try again.")
        broken.__cause__ = error
        return broken
    ours = _error_from_httpx(error, request)
    ours.never_sent = issubclass(_as_it_was(error), _UNSENT)
    ours.__cause__ = error
    error.request = request
    _forget_frames(error)
    return ours


def _forget_frames(error: BaseException | None) -> None:
    """Leaves the exceptions, without the frames of the libraries below: their variables hold the request's headers.

    Programs that log tracebacks with all local variables would log the token.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _as_it_was(error: httpx.HTTPError) -> type[BaseException]:
    """The kind of an error: the aiohttp transport calls a connection that is refused or lost a ``ConnectTimeout``."""
    kinds = {kind.__name__ for kind in type(error.__cause__).__mro__}
    if "ClientConnectionError" not in kinds:
        return type(error)
    if "ServerTimeoutError" in kinds:
        return httpx.ConnectTimeout if "ConnectionTimeoutError" in kinds else httpx.ReadTimeout
    return httpx.ConnectError if "ClientConnectorError" in kinds else httpx.ReadError


def _error_from_httpx(error: httpx.HTTPError, request: httpx.Request) -> WorkersAIError:
    host = request.url.netloc.decode()
    kind = _as_it_was(error)
    what = f"{kind.__name__}: {error}" if str(error) else kind.__name__
    if issubclass(kind, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
        return APIConnectionError(
            f"Could not connect to {host} ({what}). Check the network, a proxy's setting, and the base URL."
        )
    if issubclass(kind, httpx.TimeoutException):
        timeout: Mapping[str, float | None] = request.extensions.get("timeout", {})
        waited = timeout.get("write" if issubclass(kind, httpx.WriteTimeout) else "read") or 0
        return APITimeoutError(
            f"{host} did not answer in time ({what}; timeout {waited:g} s). Try again, or raise timeout."
        )
    return APIConnectionError(f"The connection to {host} failed ({what}). Try again.")
