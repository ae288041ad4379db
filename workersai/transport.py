"""Between httpx and the flows: what the two clients do alike. No httpx error passes this module."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from functools import cache
from typing import Any, TypeVar

import httpx

from workersai.errors import APIConnectionError, APITimeoutError, ConfigurationError, WorkersAIError
from workersai.protocol.reply import ReplyHead
from workersai.protocol.request import Request
from workersai.settings import DEFAULT_TIMEOUT, Settings, is_loopback

_A_MOMENT = 0.001  # seconds; a timeout of none at all would not even try
_UNTOUCHED = httpx.Timeout(5)  # httpx's own default, which is too short for a model's answer
_LONGEST_CONNECT = 10.0  # seconds; a host that is there accepts a connection sooner
# httpx's own 100 would make a batch of more wait for a connection, and then blame the server.
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

POOL_LOCK = threading.Lock()  # only held to look up a pool, or to make one
if hasattr(os, "register_at_fork"):  # held for the fork, so that no child finds it held by a thread that is not there
    os.register_at_fork(before=POOL_LOCK.acquire, after_in_parent=POOL_LOCK.release, after_in_child=POOL_LOCK.release)

PoolT = TypeVar("PoolT", httpx.Client, httpx.AsyncClient)


def timeouts(seconds: float = DEFAULT_TIMEOUT) -> httpx.Timeout:
    """The timeouts of an attempt: for connecting, and for each wait for the next bytes.

    Waiting for a free connection of the pool is not counted: the service has no part in it.
    """
    return httpx.Timeout(seconds, connect=min(seconds, _LONGEST_CONNECT), pool=None)


def new_pool(kind: type[PoolT], settings: Settings) -> PoolT:
    """A connection pool with our settings; proxies are those of the environment, as httpx reads them.

    Raises:
        ConfigurationError: the environment's proxy or certificate settings can't be used.
    """
    host = httpx.URL(settings.base_url).host
    # This machine is reached without a proxy, which would be sent the token in the clear.
    direct: dict[str, Any] = {f"all://{host}": None} if is_loopback(host) else {}
    try:
        return kind(timeout=timeouts(), verify=_tls(), limits=_LIMITS, mounts=direct)
    except (OSError, ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"The environment's settings for HTTP can't be used ({type(error).__name__}: {error}). Look at HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, or pass an http_client of your own."
        ) from error


@cache
def _tls() -> ssl.SSLContext:
    """The TLS context of all pools of this process: reading the certificates takes tens of milliseconds."""
    return httpx.create_ssl_context()


def build(http: httpx.Client | httpx.AsyncClient, request: Request, left: float | None = None) -> httpx.Request:
    """The request as httpx sends it; where it has no timeout, that of the caller's own pool holds, if it was given one.

    ``left`` are the seconds that the deadline leaves; no wait may begin with a longer timeout.
    """
    seconds = request.timeout
    if seconds is None and http.timeout == _UNTOUCHED:
        seconds = DEFAULT_TIMEOUT
    given = {} if seconds is None else {"timeout": timeouts(seconds).as_dict()}
    built = http.build_request(
        "POST", request.url, headers=httpx.Headers(request.headers), content=request.content, extensions=given
    )
    if left is not None:
        longest = max(left, _A_MOMENT)
        waits: dict[str, float | None] = built.extensions["timeout"]
        built.extensions["timeout"] = {name: min(wait or longest, longest) for name, wait in waits.items()}
    return built


def head_of(response: httpx.Response) -> ReplyHead:
    """Status and headers of a response; httpx's headers are found in any case."""
    if "retry-after" in response.headers:
        with contextlib.suppress(TypeError, ValueError):  # to measure a date by: the reply's own, or now
            parsedate_to_datetime(response.headers.get("date", ""))
            return ReplyHead(status=response.status_code, headers=response.headers)
        response.headers["date"] = formatdate(usegmt=True)
    return ReplyHead(status=response.status_code, headers=response.headers)


FAILURES = (httpx.HTTPError, ssl.SSLError)
"""What sending and receiving raise; a broken TLS record comes as it is from the async pools."""


def error_from_httpx(error: httpx.HTTPError | ssl.SSLError) -> WorkersAIError:
    """The error for a request that got no reply, or not the whole of one; httpx's own is its cause."""
    if isinstance(error, ssl.SSLError):
        broken = APIConnectionError(f"The connection's TLS is broken ({error}). Try again.")
        broken.__cause__ = error
        return broken
    ours = _error_from_httpx(error)
    unsent = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
    ours.never_sent = isinstance(error, unsent)
    ours.__cause__ = error
    error.request.headers["authorization"] = "***"
    _forget_frames(error)
    return ours


def _forget_frames(error: BaseException | None) -> None:
    """Leaves the exceptions, without the frames of the libraries below: their variables hold the request's headers.

    Programs that log tracebacks with all local variables would log the token.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _error_from_httpx(error: httpx.HTTPError) -> WorkersAIError:
    host = error.request.url.netloc.decode()
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
        return APIConnectionError(
            f"Could not connect to {host} ({what}). Check the network, a proxy's setting, and the base URL."
        )
    if isinstance(error, httpx.TimeoutException):
        timeout: Mapping[str, float | None] = error.request.extensions.get("timeout", {})
        waited = timeout.get("write" if isinstance(error, httpx.WriteTimeout) else "read") or 0
        return APITimeoutError(
            f"{host} did not answer in time ({what}; timeout {waited:g} s). Try again, or raise timeout."
        )
    return APIConnectionError(f"The connection to {host} failed ({what}). Try again.")
