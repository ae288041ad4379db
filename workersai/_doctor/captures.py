"""Sends the requests of a check over the library's own transport, and keeps each reply as it came."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from workersai.calls import Call
from workersai.client import Client
from workersai.errors import WorkersAIError
from workersai.flows import Flow, Pause, Receive, ReceiveAll, Send
from workersai.options import CallOptions, RequestOptions
from workersai.protocol.reply import Asked, ReplyHead, error_from_body, error_of
from workersai.protocol.request import Request, json_bytes, request_to

Kind = Literal["whole", "stream", "batch", "embed", "rerank", "catalog", "token"]


@dataclass
class Capture:
    """One request with the reply that it got.

    Attributes:
        name: The check that sent it.
        kind: The kind of reply that was requested.
        model: The model that was called; empty for requests to none.
        form: The form of the request: ``messages``, ``prompt``, ``template``, or empty.
        sent: The body of the request; None for a GET.
        path: The path behind the account, with its query.
        head: Status and headers; None without a reply.
        chunks: The body as the network cut it.
        times: For each chunk, the seconds since the request was sent.
        failure: The error that ended the exchange, if one did.
    """

    name: str
    kind: Kind
    model: str
    form: str
    sent: Mapping[str, Any] | None
    path: str
    head: ReplyHead | None = None
    chunks: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    failure: WorkersAIError | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks)

    @property
    def payload(self) -> Any:
        """The body as JSON; None for a body that isn't JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def content_type(self) -> str:
        """The media type of the reply, without parameters."""
        label: str = self.head.headers.get("content-type", "") if self.head else ""
        return label.partition(";")[0].strip().lower()

    def answered(self) -> ReplyHead:
        """The head of a reply that promises an answer.

        Raises:
            WorkersAIError: There was no reply, or it reports a failure.
        """
        if self.failure is not None:
            raise self.failure
        assert self.head is not None  # noqa: S101 - without a failure there was a reply
        if not self.head.ok:
            raise error_from_body(self.body, self.head)
        error = None if self.kind == "stream" else error_of(self.payload, self.head)
        if error is not None:
            raise error
        return self.head


class Recorder:
    """Sends requests one after the other, without retries, and keeps every reply.

    Args:
        client: Whose account and connections are used.
        timeout: Seconds that each request may take.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self.captures: list[Capture] = []
        self._client = client
        self._timeout = timeout

    def run(
        self,
        name: str,
        body: Mapping[str, Any],
        *,
        model: str,
        kind: Kind = "whole",
        form: str = "messages",
        query: str = "",
        session: str | None = None,
    ) -> Capture:
        """Sends a body to a model; failures are kept in the capture, not raised."""
        options: RequestOptions = RequestOptions(model=model, session_affinity=session, timeout=self._timeout)
        request = request_to(self._client.settings, options, json_bytes(body), query=query)
        return self._send(Capture(name, kind, model, form, body, f"/ai/run/{model}{query}"), request)

    def get(self, name: str, path: str, *, kind: Kind, in_account: bool = True) -> Capture:
        """Requests a path of the account, or of the whole API."""
        settings = self._client.settings
        base = f"{settings.base_url}/accounts/{settings.account_id}" if in_account else settings.base_url
        # request_to makes the headers; only the address and the method differ.
        post = request_to(settings, CallOptions(timeout=self._timeout), b"")
        headers = {key: value for key, value in post.headers.items() if key != "content-type"}
        request = replace(post, url=f"{base}{path}", headers=headers, method="GET")
        return self._send(Capture(name, kind, "", "", None, path), request)

    def pause(self, seconds: float) -> None:
        """Waits, as between two polls of a batch."""

        def flow() -> Flow[None]:
            yield Pause(seconds)

        self._pump(flow(), request_to(self._client.settings, CallOptions(), b""))

    @property
    def host(self) -> str:
        """Where the requests go."""
        return urlsplit(self._client.settings.base_url).netloc

    def _send(self, capture: Capture, request: Request) -> Capture:
        self.captures.append(capture)  # before it is sent: an interrupted one is saved as well
        started = time.monotonic()

        def flow() -> Flow[None]:
            capture.head = yield Send(request)
            if capture.kind != "stream":
                capture.chunks.append((yield ReceiveAll()))
                capture.times.append(time.monotonic() - started)
                return
            while chunk := (yield Receive()):
                capture.chunks.append(chunk)
                capture.times.append(time.monotonic() - started)

        try:
            self._pump(flow(), request)
        except WorkersAIError as error:
            error.reword(request.without_token(error.message))
            capture.failure = error
        return capture

    def _pump(self, flow: Flow[None], request: Request) -> None:
        call = Call(request, Asked(model="", max_tokens=None), max_retries=0, deadline=self._timeout)
        self._client._pump(call, flow)  # noqa: SLF001 - the package's own driver, as batch jobs use it
