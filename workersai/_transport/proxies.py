"""Proxies: which one the environment names for a host, and how a tunnel through it is opened.

The handshakes are generators without I/O: they yield bytes to send, or None to be sent what was received next. So the
sync and the async transport open a tunnel by the same code.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

import httpx
from pydantic import SecretStr

from workersai.errors import ConfigurationError
from workersai.settings import is_loopback

logger = logging.getLogger("workersai")

Handshake = Generator[bytes | memoryview | None, bytes, None]

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_REPLY_BYTES = 65_536
_MAX_REASON = 200  # characters of it in an error
_SOCKS_VERSION = 5
_NO_AUTHENTICATION, _PASSWORD = 0, 2
_ADDRESS_SIZES = {1: 4, 4: 16}  # IPv4 and IPv6; a name has its length in front


@dataclass(frozen=True)
class Origin:
    """Where a connection leads: a host and port, with TLS or without."""

    host: str
    port: int
    tls: bool

    @classmethod
    def from_url(cls, url: str) -> Origin:
        """The origin of a URL."""
        parts = urlsplit(url)
        return cls(parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "https")


@dataclass(frozen=True)
class Proxy:
    """A proxy through which a tunnel leads to the origin."""

    scheme: str
    host: str
    port: int
    username: str = ""
    password: SecretStr = field(default_factory=lambda: SecretStr(""))

    @property
    def tls(self) -> bool:
        """Whether the connection to the proxy itself is encrypted."""
        return self.scheme == "https"


def proxy_for(origin: Origin) -> Proxy | None:
    """The proxy that the environment names for an origin (HTTPS_PROXY, ALL_PROXY, NO_PROXY); None for a direct way.

    Only origins with TLS are reached through a proxy: it would see the token of any other. This machine is reached
    directly: what a proxy would connect to under its name is another one.

    Raises:
        ConfigurationError: The variable doesn't hold the URL of a proxy.
    """
    if not origin.tls or is_loopback(origin.host):
        return None
    if _is_exempt(origin, getproxies().get("no", "")):
        return None
    for name in ("https", "all"):
        # Secret, since the URL may hold a password, and tracebacks show local variables.
        url = SecretStr(getproxies().get(name, "").strip())
        if url:
            return _proxy_from_url(url, f"{name.upper()}_PROXY")
    return None


def _proxy_from_url(url: SecretStr, variable: str) -> Proxy:
    parts, port = _split(url)
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS or not parts.hostname:
        del parts  # the error's traceback would show it
        raise ConfigurationError(
            f"{variable} is not the URL of a proxy: expected http://host:port, https://host:port or "
            f"socks5://host:port{f', got the scheme {scheme!r}' if scheme else ''}. Correct or unset it, or add the "
            "host to NO_PROXY."
        )
    return Proxy(
        parts.scheme,
        parts.hostname,
        port or _DEFAULT_PORTS[parts.scheme],
        unquote(parts.username or ""),
        SecretStr(unquote(parts.password or "")),
    )


def _split(url: SecretStr) -> tuple[SplitResult, int | None]:
    with suppress(ValueError):
        full = SecretStr(url.get_secret_value() if "://" in url.get_secret_value() else f"//{url.get_secret_value()}")
        parts = urlsplit(full.get_secret_value(), scheme="http")
        return parts, parts.port
    return SplitResult("", "", "", "", ""), None


def _is_exempt(origin: Origin, no_proxy: str) -> bool:
    return any(_matches(entry.strip(), origin) for entry in no_proxy.split(",") if entry.strip())


def _matches(entry: str, origin: Origin) -> bool:
    """Whether an entry of NO_PROXY names the origin: a host, a domain, an address, a range of them, or ``*``."""
    if entry == "*":
        return True
    entry = re.sub(r"^[a-z]+://", "", entry.lower())
    host = origin.host.lower()
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        network = None
    if network is not None:
        try:
            return ipaddress.ip_address(host) in network
        except ValueError:
            return False  # a name, which is not looked up here
    name, _, port = entry.rpartition(":") if re.search(r":\d+$", entry) else (entry, "", "")
    if port and port.lstrip("0") != str(origin.port):
        return False
    name = name.strip("[]").removeprefix("*").removeprefix(".")
    if not name or not re.fullmatch(r"[\w.:-]+", name):
        logger.debug("Ignored an entry of NO_PROXY that names no host: %r", entry)
        return False
    return host == name or host.endswith(f".{name}")


def open_tunnel(proxy: Proxy, origin: Origin) -> Handshake:
    """The handshake that makes a connection to the proxy one to the origin.

    Raises:
        httpx.ProxyError: The proxy refuses, or its reply can't be understood.
    """
    return _open_socks(proxy, origin) if proxy.scheme.startswith("socks") else _open_http(proxy, origin)


def _open_http(proxy: Proxy, origin: Origin) -> Handshake:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    yield memoryview(
        f"CONNECT {host}:{origin.port} HTTP/1.1\r\nhost: {host}:{origin.port}\r\n{_authorization(proxy)}\r\n".encode()
    )
    reply = b""
    while b"\r\n\r\n" not in reply:
        received = yield None
        reply += received
        if not received or len(reply) > _MAX_REPLY_BYTES:
            raise httpx.ProxyError("the proxy's reply to CONNECT isn't HTTP")
    status = re.match(rb"HTTP/1\.[01] (\d{3})([^\r\n]*)\r\n", reply)
    if status is None:
        raise httpx.ProxyError("the proxy's reply to CONNECT isn't HTTP")
    if not status[1].startswith(b"2"):  # an explanation may follow
        reason = (status[1] + status[2]).decode("latin-1")[:_MAX_REASON]
        raise httpx.ProxyError(f"the proxy refused the connection: {reason}")
    if reply.index(b"\r\n\r\n") + 4 != len(reply):
        raise httpx.ProxyError("the proxy sent more than its reply to CONNECT")


def _authorization(proxy: Proxy) -> str:
    if not proxy.username:
        return ""
    pair = f"{proxy.username}:{proxy.password.get_secret_value()}".encode()
    return f"proxy-authorization: Basic {base64.b64encode(pair).decode()}\r\n"


def _open_socks(proxy: Proxy, origin: Origin) -> Handshake:
    """SOCKS 5 (RFC 1928) with a password (RFC 1929) if the proxy's URL has one; the proxy looks up the host."""
    accepted = (_NO_AUTHENTICATION, _PASSWORD) if proxy.username else (_NO_AUTHENTICATION,)
    yield bytes((_SOCKS_VERSION, 1, accepted[-1]))
    received = _Received()
    version, method = yield from received.take(2)
    if version != _SOCKS_VERSION:
        raise httpx.ProxyError("the proxy's reply isn't SOCKS 5")
    if method not in accepted:
        raise httpx.ProxyError("the SOCKS proxy accepts no authentication that is configured")
    if method == _PASSWORD:
        yield memoryview(b"\x01" + _counted(proxy.username) + _counted(proxy.password.get_secret_value()))
        _, refused = yield from received.take(2)
        if refused:
            raise httpx.ProxyError("the SOCKS proxy refused the user name or the password")
    yield b"\x05\x01\x00\x03" + _counted(origin.host) + origin.port.to_bytes(2, "big")
    version, failure, _, kind = yield from received.take(4)
    if version != _SOCKS_VERSION:
        raise httpx.ProxyError("the proxy's reply isn't SOCKS 5")
    if failure:
        raise httpx.ProxyError(f"the SOCKS proxy refused the connection (code {failure})")
    size = _ADDRESS_SIZES[kind] if kind in _ADDRESS_SIZES else (yield from received.take(1))[0]
    yield from received.take(size + 2)
    if received.rest:
        raise httpx.ProxyError("the SOCKS proxy sent more than its reply")


def _counted(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 255:  # noqa: PLR2004 - one byte holds the length
        raise httpx.ProxyError("SOCKS takes user names, passwords and hosts of at most 255 bytes")
    return bytes((len(encoded),)) + encoded


class _Received:
    """What a handshake has received and not read yet."""

    def __init__(self) -> None:
        self.rest = b""

    def take(self, size: int) -> Generator[bytes | memoryview | None, bytes, bytes]:
        """Waits for so many bytes."""
        while len(self.rest) < size:
            received = yield None
            if not received:
                raise httpx.ProxyError("the proxy closed the connection")
            self.rest += received
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken
