"""The samples of the service's replies (tests/wire), and a server that sends one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tests.raw_server import RawServer, chunk, raw_server
from workersai import Tool

FOLDER = Path(__file__).parent / "wire" / "samples"


class Sample(BaseModel):
    """An entry of ``index.json``."""

    model_config = ConfigDict(extra="forbid")

    file: str
    kind: str
    model: str
    status: int
    tools: list[dict[str, Any]]
    max_tokens: int | None
    form: str
    source: str
    evidence: str
    when: str
    expect: dict[str, Any]
    note: str
    forced: str | None
    stop: list[str]

    @property
    def name(self) -> str:
        """Its key, such as ``w07``."""
        return self.file.partition("_")[0]

    @property
    def body(self) -> bytes:
        """What the service sent."""
        return (FOLDER / self.file).read_bytes()

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events, and not JSON."""
        return self.file.endswith(".sse")

    @property
    def offered(self) -> list[Tool]:
        """The tools of the request."""
        return [
            Tool(
                tool["name"],
                "What the test offers.",
                {
                    "type": "object",
                    "properties": {
                        name: {"type": kind, "description": name} for name, kind in tool["parameters"].items()
                    },
                },
            )
            for tool in self.tools
        ]


SAMPLES = [Sample(**entry) for entry in json.loads((FOLDER / "index.json").read_text())]


def of_kinds(*kinds: str) -> list[Sample]:
    """The samples of these kinds."""
    return [sample for sample in SAMPLES if sample.kind in kinds]


@dataclass
class Outcome:
    """What a client made of a reply, in the terms of ``expect``."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    reasoning: str = ""
    usage: list[int] | None = None
    finish: str | None = None
    ids: list[str] = field(default_factory=list)

    def check(self, expected: dict[str, Any]) -> None:
        """Compares with what a sample expects; what it doesn't name may be anything, but for text beside calls."""
        for name, value in expected.items():
            assert getattr(self, name) == value, name
        assert len(set(self.ids)) == len(self.calls)
        assert all(self.ids)


@contextmanager
def sent(sample: Sample, *, in_bytes: bool = False) -> Iterator[RawServer]:
    """A server that answers each request with the sample; ``in_bytes`` in pieces of one byte."""
    with raw_server(answering(sample, in_bytes=in_bytes)) as server:
        yield server


def answering(sample: Sample, *, in_bytes: bool = False) -> Callable[[Any, bytes], None]:
    """The handler of such a server."""
    kind = "text/event-stream" if sample.is_stream else "application/json"

    def handle(connected: Any, request: bytes) -> None:
        head = f"HTTP/1.1 {sample.status} X\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        pieces = [bytes([byte]) for byte in sample.body] if in_bytes else [sample.body]
        connected.sendall(head.encode())
        for piece in pieces:
            connected.sendall(chunk(piece))
        connected.sendall(b"0\r\n\r\n")

    return handle
