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
from typing import Any, Generic, Protocol, TypeVar

import httpx
from pydantic import SecretStr

from workersai._transport.proxies import Origin, Proxy, proxy_for
from workersai.errors import ConfigurationError
from workersai.settings import Settings

# A batch opens hundreds of connections at once: httpx's own limit of 100 would let the others wait, and then blame the
# server. A thousand are about as many as a process may have open by default. Agents pause for their tools, and httpx's
# 5 seconds would have them connect again each time.
LIMITS = httpx.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=60)

_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

KeyT = TypeVar("KeyT", bound=Hashable)


class Transport(Protocol):
    """What sends requests: a pool of ours, or a client of httpx's."""

    closed: bool


TransportT = TypeVar("TransportT", bound=Transport)


@dataclass(eq=False)
class Pool(Generic[TransportT]):
    """A transport, and who uses it.

    Attributes:
        transport: What sends the requests.
        is_guarded: Whether awaits on it must not be cancelled directly, as httpx's async clients lose connections then.
        at_exit: Closes it with the process, if nobody has before.
        forget: Lets go of connections whose event loop can't close them any more.
        is_forgotten: Whether that was done.
        keeper: Closes it with its event loop, if nobody has before.
        users: The clients that share it.
    """

    transport: TransportT
    is_guarded: bool = False
    at_exit: weakref.finalize[..., Any] | None = None
    forget: Callable[[], None] = lambda: None
    is_forgotten: bool = False
    keeper: AsyncGenerator[None, None] | None = None
    users: weakref.WeakSet[object] = field(default_factory=weakref.WeakSet)

    @property
    def closed(self) -> bool:
        """Whether it was closed, though calls may be under way."""
        return self.transport.closed


class Pools(Generic[KeyT, TransportT]):
    """The pools that are shared, by what they were made with.

    A pool outlives a user that is forgotten without being closed, since the next one may come soon; it is closed with
    the last user that is closed, with its event loop, or with the process.
    """

    def __init__(self) -> None:
        # Held to look up a pool, or to make one: in normal code only, never in a finalizer.
        self._lock = threading.RLock()
        self._pools: dict[KeyT, Pool[TransportT]] = {}
        self._of_the_parent: list[Pool[TransportT]] = []
        if hasattr(os, "register_at_fork"):
            # Held for the fork, so that no child finds it held by a thread that is not there. A child may not use its
            # parent's connections: the two would read each other's answers.
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._start_over
            )

    def get(self, key: KeyT, user: object, make: Callable[[], Pool[TransportT]]) -> Pool[TransportT]:
        """The pool of that key, made where there is none."""
        pool = self._pools.get(key)
        if pool is None or user not in pool.users:
            with self._lock:
                pool = self._pools.get(key)
                if pool is None:
                    pool = self._pools[key] = make()
                pool.users.add(user)
        return pool

    def leave(self, user: object, *, may_close: Callable[[KeyT], bool] = lambda _: True) -> list[Pool[TransportT]]:
        """Parts a user from its pools. Those that nobody uses now, and that may be closed, the caller is to close."""
        unused = []
        with self._lock:
            for key, pool in list(self._pools.items()):
                if user in pool.users:
                    pool.users.discard(user)
                    if not pool.users and may_close(key):
                        unused.append(self._pools.pop(key))
                        pool.transport.closed = True
        return unused

    def drop(self, gone: Callable[[KeyT], bool]) -> list[Pool[TransportT]]:
        """Takes out the pools whose keys are gone; the caller sees to their end."""
        with self._lock:
            return [self._pools.pop(key) for key in list(self._pools) if gone(key)]

    def remove(self, pool: Pool[TransportT]) -> None:
        """Takes out a pool that is being closed."""
        with self._lock:
            self._pools = {key: other for key, other in self._pools.items() if other is not pool}
            pool.transport.closed = True

    def _start_over(self) -> None:
        self._of_the_parent += self._pools.values()  # kept for good: their connections are the parent's
        for pool in self._of_the_parent:
            if pool.at_exit is not None:
                pool.at_exit.detach()
        self._pools = {}
        self._lock.release()


PoolKey = tuple[Origin, tuple[SecretStr, ...]]


def settings_key(settings: Settings) -> PoolKey:
    """What decides on a pool: the origin, and the environment."""
    # Secret, since the URL of a proxy may hold a password, and tracebacks show the key.
    environment = (SecretStr(os.environ.get(name.lower()) or os.environ.get(name) or "") for name in _ENVIRONMENT)
    return Origin.from_url(settings.base_url), tuple(environment)


def route_to(origin: Origin) -> tuple[Proxy | None, ssl.SSLContext | None]:
    """The proxy and the TLS context for an origin, by the environment.

    Raises:
        ConfigurationError: The environment's proxy or certificate settings can't be used.
    """
    proxy = proxy_for(origin)
    return proxy, new_tls_context() if origin.tls or (proxy is not None and proxy.tls) else None


def new_tls_context() -> ssl.SSLContext:
    """The TLS context of all pools with the same environment.

    Raises:
        ConfigurationError: A variable names certificates that can't be read.
    """
    try:
        return _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The certificates can't be read ({type(error).__name__}: {error}). Correct or unset SSL_CERT_FILE and "
            "SSL_CERT_DIR, or pass an http_client of your own."
        ) from error


@cache
def _tls(*_: str | None) -> ssl.SSLContext:
    """Read once: it takes tens of milliseconds."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
