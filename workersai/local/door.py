"""Who may ask: checked by the head of a request, before its body is read.

A page in a browser can send requests to this machine, so a token that everybody knows is not enough. What a page can't
choose are the headers ``Origin``, which names it, and ``Host``, which names the address that the browser called: a name
of the page's own, which it has made point to this machine (DNS rebinding), is none of this server's.
"""

from __future__ import annotations

import hmac
import re
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from workersai.local.binding import admit, is_bound
from workersai.local.wire import WireError

_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/?#@\[\]]+))(?::\d{0,5})?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", re.ASCII)


@dataclass(frozen=True)
class Verdict:
    """Whether a request is refused at the door, and whether its body is of any use."""

    refusal: WireError | None = None
    reads_body: bool = False


class HostNames:
    """The names by which a server may be called.

    Always: localhost, and the addresses of this machine's loopback. A server that listens elsewhere may also be called
    by any address, which no page can point to another machine, and by the name of this machine.

    Args:
        host: The address that is listened on.
        more: Further names.

    Raises:
        ValueError: one of them is no name.
    """

    def __init__(self, host: str, more: Collection[str] = ()) -> None:
        for name in more:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} in allowed_hosts must be a host name, without a scheme and a port.")
        self._open = not _is_loopback(host)
        self._names = {_plain(name) for name in ("localhost", host, *more) if name}
        if self._open:
            own = socket.gethostname()
            self._names |= {_plain(own), _plain(own.partition(".")[0]), _plain(f"{own.partition('.')[0]}.local")}

    def include(self, header: str) -> bool:
        """Whether a ``Host`` header is one of these names, with any port."""
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = _plain(match["address"] or match["name"])
        if name in self._names or name.endswith(".localhost"):
            return True
        return _is_address(name) if self._open else _is_loopback(name)


class Door:
    """Checks each request by its head.

    Args:
        routes: Where there is somebody to answer.
        names: The names of the server.
        api_token: The one token that opens it.
        account_id: The one account that it serves.
    """

    def __init__(self, routes: Sequence[BaseRoute], names: HostNames, *, api_token: str, account_id: str) -> None:
        self._routes = routes
        self._names = names
        self._api_token = api_token
        self._account_id = account_id

    def check(self, request: Request) -> Verdict:
        """Whether the request may come in, and what becomes of its body."""
        try:
            if is_bound(request.scope["path"]):
                admit(request)
            else:
                self._check_caller(request)
            parameters = _route_parameters(self._routes, request.scope)
            if parameters is None:
                return Verdict()  # there is no such route, as the router says in its own words
            if not is_bound(request.scope["path"]):
                self._check_token(request, parameters)
        except WireError as error:
            return Verdict(error)
        return Verdict(reads_body=True)

    def _check_caller(self, request: Request) -> None:
        host = request.headers.get("host")
        # HTTP/1.0 has none, and no browser speaks it.
        if host is not None and not self._names.include(host):
            raise WireError(
                403,
                10000,
                f"Authentication error: the Host {host[:100]!r} is not a name of this server. Call it by its address "
                "or as localhost, or start it with allowed_hosts=[...] (workersai serve --allowed-host NAME).",
            )
        for origin in request.headers.getlist("origin"):
            if not _is_own(origin, host):
                raise WireError(
                    403,
                    10000,
                    f"Authentication error: requests from web pages of another origin, {origin[:100]!r}, are refused. "
                    "Call this server from a program, or through the page's own server.",
                )

    def _check_token(self, request: Request, parameters: dict[str, Any]) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(token.strip().encode(), self._api_token.encode())
        if scheme.lower() != "bearer" or not known:
            raise WireError(401, 10000, "Authentication error")
        if parameters["account_id"] != self._account_id:
            raise WireError(403, 10000, "Authentication error: this token is not for that account")


def _route_parameters(routes: Iterable[BaseRoute], scope: Scope) -> dict[str, Any] | None:
    for route in routes:
        match, inner = route.matches(scope)
        if match is Match.FULL:
            parameters: dict[str, Any] = inner["path_params"]
            return parameters
    return None


def _is_own(origin: str, host: str | None) -> bool:
    """Whether a page comes from this server itself, whose name is checked."""
    return host is not None and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
