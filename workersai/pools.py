"""Connection pools: made on first use, and shared by all clients that would make the same.

Making one takes milliseconds, and a new connection a round trip or two: a program that makes a model for each request
pays neither.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from workersai.errors import ConfigurationError
from workersai.settings import DEFAULT_TIMEOUT, Settings, is_loopback

_LONGEST_CONNECT = 10.0  # seconds; a host that is there accepts a connection so soon

# A batch opens hundreds of connections at once: httpx's own limit of 100 would let the others wait, and then blame the
# server. A thousand are about as many as a process may have open by default. Agents pause for their tools, and httpx's
# 5 seconds would have them connect anew each time.
LIMITS = httpx.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=60)

_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

KeyT = TypeVar("KeyT", bound=Hashable)
ClientT = TypeVar("ClientT", httpx.Client, httpx.AsyncClient)
KindT = TypeVar("KindT", bound=httpx.Client | httpx.AsyncClient)


@dataclass(eq=False)
class Pool(Generic[ClientT]):
    """Connections, and who uses them.

    ``ours`` is False for an ``http_client`` of the caller's own, which is asked in httpx's full way: it may have hooks,
    cookies, an auth or defaults. ``heals`` is whether a cancelled task gives its connection back by itself. ``closed``
    is whether its connections were closed, though calls may be under way. ``at_exit`` and ``keeper`` close what nobody
    closed, with the process and with the event loop; ``let_go`` forgets what can't be closed any more.
    """

    http: ClientT
    ours: bool = False
    heals: bool = False
    closed: bool = False
    at_exit: weakref.finalize[..., Any] | None = None
    let_go: Callable[[], None] = lambda: None
    keeper: AsyncGenerator[None, None] | None = None
    users: weakref.WeakSet[object] = field(default_factory=weakref.WeakSet)


class Pools(Generic[KeyT, ClientT]):
    """The pools that are shared, by what they were made with.

    A pool outlives a user that is forgotten without being closed, since the next one may come soon; it is closed with
    the last user that is closed, with its event loop, or with the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # only held to look up a pool, or to make one
        self._pools: dict[KeyT, Pool[ClientT]] = {}
        self._of_the_parent: list[Pool[ClientT]] = []
        if hasattr(os, "register_at_fork"):
            # Held for the fork, so that no child finds it held by a thread that is not there. A child may not use its
            # parent's connections: the two would read each other's answers.
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._start_over
            )

    def get(self, key: KeyT, user: object, make: Callable[[], Pool[ClientT]]) -> Pool[ClientT]:
        """The pool of that key, made where there is none."""
        pool = self._pools.get(key)
        if pool is None or user not in pool.users:
            with self._lock:
                pool = self._pools.get(key)
                if pool is None:
                    pool = self._pools[key] = make()
                pool.users.add(user)
        return pool

    def leave(self, user: object, *, may_close: Callable[[KeyT], bool] = lambda _: True) -> list[Pool[ClientT]]:
        """Parts a user from its pools. Those that nobody uses now, and that may be closed, the caller is to close."""
        unused = []
        with self._lock:
            for key, pool in list(self._pools.items()):
                if user in pool.users:
                    pool.users.discard(user)
                    if not pool.users and may_close(key):
                        unused.append(self._pools.pop(key))
                        pool.closed = True
        return unused

    def drop(self, gone: Callable[[KeyT], bool]) -> list[Pool[ClientT]]:
        """Takes out the pools whose keys are gone; the caller sees to their end."""
        with self._lock:
            return [self._pools.pop(key) for key in list(self._pools) if gone(key)]

    def remove(self, pool: Pool[ClientT]) -> None:
        """Takes out a pool that is being closed."""
        with self._lock:
            self._pools = {key: other for key, other in self._pools.items() if other is not pool}
            pool.closed = True

    def _start_over(self) -> None:
        self._of_the_parent += self._pools.values()  # never touched again, since their own locks may be held
        for pool in self._of_the_parent:
            if pool.at_exit is not None:
                pool.at_exit.detach()
        self._pools = {}
        self._lock.release()


def settings_key(settings: Settings) -> tuple[str | None, ...]:
    """What decides on a pool: the host where that is this machine, and the environment."""
    host = urlsplit(settings.base_url).hostname or ""
    environment = (os.environ.get(name.lower()) or os.environ.get(name) for name in _ENVIRONMENT)
    return host if is_loopback(host) else None, *environment


def new_client(kind: type[KindT], settings: Settings) -> KindT:
    """An httpx client with our settings; proxies are those of the environment, as httpx reads them.

    Raises:
        ConfigurationError: the environment's proxy or certificate settings can't be used.
    """
    host = httpx.URL(settings.base_url).host
    # This machine is reached without a proxy, which would be sent the token in the clear.
    direct: dict[str, Any] = {f"all://{host}": None} if is_loopback(host) else {}
    try:
        tls = _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return kind(timeout=timeouts(), verify=tls, limits=LIMITS, mounts=direct)
    except (OSError, ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"The environment's settings for HTTP can't be used ({type(error).__name__}: {error}). Look at HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, or pass an http_client of your own."
        ) from error


@cache
def _tls(*_: str | None) -> ssl.SSLContext:
    """The TLS context of all pools of this process: reading the certificates takes tens of milliseconds."""
    return httpx.create_ssl_context()


def timeouts(seconds: float = DEFAULT_TIMEOUT) -> httpx.Timeout:
    """The timeouts of an attempt: for connecting, and for each wait for the next bytes.

    Waiting for a free connection of the pool is not counted: the service has no part in it.
    """
    return httpx.Timeout(seconds, connect=min(seconds, _LONGEST_CONNECT), pool=None)
