"""``http_client="httpx"``: an ``httpx.AsyncClient`` of ours, on connections of httpcore's.

httpcore leaves two gaps, which its network interface lets us close:

- It keeps bytes that follow a reply, and gives them to the next caller. Each stream here parses along, and reports
  itself as readable once a byte too many was received: httpcore doesn't use such a connection again.
- Its frames hold the headers of a request in plain text, where a traceback with local variables shows them. So a
  request bears a placeholder for each secret, which is replaced when the bytes are written.
"""

from __future__ import annotations

import logging
import re
import secrets
import ssl
from collections.abc import Iterable
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import anyio
import httpcore
import httpx
from pydantic import SecretStr
from typing_extensions import override

from workersai import pools
from workersai._transport.http1 import ReplyParser
from workersai._transport.httpx_clients import AsyncHttpxTransport, new_timeout
from workersai._transport.proxies import Origin
from workersai.errors import ConfigurationError
from workersai.settings import DEFAULT_TIMEOUT, is_loopback

logger = logging.getLogger("workersai")

_PLACEHOLDER = re.compile(rb"workersai-secret-[0-9a-f]{32}")


class Placeholder:
    """Stands for a secret in a request; the secret is known as long as this object is."""

    _all: ClassVar[WeakValueDictionary[bytes, Placeholder]] = WeakValueDictionary()

    def __init__(self, secret: SecretStr) -> None:
        self.secret = secret
        self.text = f"workersai-secret-{secrets.token_hex(16)}"
        self._all[self.text.encode()] = self

    @classmethod
    def reveal(cls, head: bytes) -> memoryview:
        """The head of a request with the secrets in it; a memoryview, whose ``repr`` shows nothing."""
        return memoryview(_PLACEHOLDER.sub(cls._secret_for, head))

    @classmethod
    def _secret_for(cls, found: re.Match[bytes]) -> bytes:
        placeholder = cls._all.get(found[0])
        return found[0] if placeholder is None else placeholder.secret.get_secret_value().encode("latin-1")


def new_transport(origin: Origin) -> AsyncHttpxTransport:
    """A client with our settings, and what sends requests through it.

    Where the names that httpx keeps private are gone, its connections can't be watched: then none is used twice, and
    requests bear their secrets.

    Raises:
        ConfigurationError: The environment's proxy or certificate settings can't be used.
    """
    http = _new_client(origin, pools.LIMITS)
    if _watch_connections(http):
        return AsyncHttpxTransport(http, Placeholder)
    logger.debug("This version of httpx is not known: its connections are not used again")
    once = httpx.Limits(max_connections=pools.LIMITS.max_connections, max_keepalive_connections=0)
    return AsyncHttpxTransport(_new_client(origin, once))


def _new_client(origin: Origin, limits: httpx.Limits) -> httpx.AsyncClient:
    """A client with our settings; proxies are those of the environment, as httpx reads them.

    Raises:
        ConfigurationError: The environment's proxy or certificate settings can't be used.
    """
    # Without TLS an origin is this machine, too: a proxy would be sent the token in the clear.
    is_direct = not origin.tls or is_loopback(origin.host)
    direct: dict[str, Any] = {"all://": None} if is_direct else {}
    try:
        return httpx.AsyncClient(
            timeout=new_timeout(DEFAULT_TIMEOUT), verify=pools.new_tls_context(), limits=limits, mounts=direct
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"The environment's settings for HTTP can't be used ({type(error).__name__}: {error}). Look at HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY and NO_PROXY, or pass an http_client of your own."
        ) from error


def _watch_connections(http: httpx.AsyncClient) -> bool:
    """Puts our network backend below the client's pools, for which httpx has no public way; returns if it could."""
    mounts = getattr(http, "_mounts", None)
    if mounts is None:
        return False
    proxied = (transport for transport in mounts.values() if transport is not None)  # None leads past a proxy
    watched: list[Any] = [
        getattr(transport, "_pool", None) for transport in (getattr(http, "_transport", None), *proxied)
    ]
    backends: list[Any] = [getattr(pool, "_network_backend", None) for pool in watched]
    if None in backends:
        return False
    for pool, backend in zip(watched, backends, strict=True):
        pool._network_backend = _Backend(backend)  # noqa: SLF001
    return True


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    @override
    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_unix_socket(path, timeout, socket_options))

    @override
    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection whose replies are parsed along."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._parser = ReplyParser()
        self._is_spoilt = False

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        received = await self._stream.read(max_bytes, timeout)
        if received:
            try:
                self._parser.feed(received)
            except httpx.TransportError:
                self._is_spoilt = True  # httpcore reads it in its own way; the connection isn't used again
        self._parser.take_body()
        return received

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._parser.is_complete and self._parser.is_reusable:
            self._parser.start()
        head, separator, content = buffer.partition(b"\r\n\r\n")
        if b"workersai-secret-" not in head:
            await self._stream.write(buffer, timeout)
            return
        await self._stream.write(Placeholder.reveal(head), timeout)  # type: ignore[arg-type]  # any buffer will do
        await self._stream.write(separator + content, timeout)

    @override
    async def aclose(self) -> None:
        self._parser.discard()
        await self._stream.aclose()

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        self._parser.discard()  # what follows is encrypted
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:  # httpcore closes it after an error, and not if it is cancelled
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise

    @override
    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and (self._is_spoilt or (self._parser.is_complete and not self._parser.is_reusable)):
            return True
        return self._stream.get_extra_info(info)
