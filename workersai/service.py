"""What answers a program that names no account: Cloudflare where credentials are set, else a server on this machine."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workersai.settings import ACCOUNT_VARIABLES, TOKEN_VARIABLES, Settings

if TYPE_CHECKING:
    from workersai.local import LocalServer

_LOCK = threading.Lock()
_started: LocalServer | None = None


@dataclass(frozen=True, repr=False)
class Service:
    """What answers. Its ``repr`` says so in words, as the first output of a notebook, or of a demo."""

    base_url: str
    """Where it is."""

    server: LocalServer | None = None
    """The server that :func:`ensure_service` started; None where credentials are set."""

    def __repr__(self) -> str:
        if self.server is None:
            billed = ", and is billed to that account" if self.base_url.startswith("https:") else ""
            return f"Credentials are set: this runs on {self.base_url}{billed}."
        return (
            "No credentials are set: this runs on SmolLM2-135M-Instruct, behind a server on this machine.\n"
            "It is a very small model, so its answers are weak; the code is the same for Cloudflare."
        )


def ensure_service() -> Service:
    """Cloudflare where credentials are set, else a local server: for notebooks and demos that run either way.

    Without any of the variables that name an account or a token, the first call starts a
    :class:`workersai.local.LocalServer` with its small model, which runs until the process ends, and sets the variables
    that point clients at it. Later calls find it running.

    Raises:
        ConfigurationError: credentials are set in part, or can't be right.
        EngineError: there are no credentials, and the local model can't be started; the message says what to do.
        ImportError: the same, since a library is missing; the message says what to install.
    """
    global _started  # noqa: PLW0603 - like the environment that it sets, it is the process's own
    with _LOCK:
        if not any(os.environ.get(name, "").strip() for name in (*ACCOUNT_VARIABLES, *TOKEN_VARIABLES)):
            # Only imported here: with credentials, no server and no model are needed.
            from workersai.local import LocalServer  # noqa: PLC0415

            server = LocalServer()
            server.start()
            os.environ.update(server.environment)
            _started = server
        base_url = Settings().base_url
        own = _started is not None and _started.base_url == base_url
        return Service(base_url, _started if own else None)
