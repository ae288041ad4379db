"""The body of a request on its way in: how large it may be, how long it may take, and what it may hold."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from starlette.requests import Request

from workersai.local.wire import WireError

# The limit that the service names for a batch, the largest of its requests.
MOST_BYTES = 10_000_000
# Seconds that a client may let pass between two pieces of a body, and for all of it.
READ_SECONDS = 30.0
BODY_SECONDS = 600.0
# Of a body that is refused, so much is read and dropped, so that the client gets to the reply. Then the connection is
# closed.
_MOST_DROPPED = 64 * 2**20
# Each value takes up to 192 bytes once it is parsed; an array that is empty takes 3 in a body.
_MOST_VALUES = 2_000_000
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Intake:
    """What came of reading a body.

    Args:
        content: The body; None if it was not to be kept, or is too large.
        size: The bytes that were read.
        broken: Why it was not read to its end; the connection can't be used again.
    """

    content: bytes | None
    size: int
    broken: WireError | None = None


async def read_body(request: Request, *, keep: bool) -> Intake:
    """Reads a body to its end, and keeps it if it is wanted and not too large.

    Raises:
        ClientDisconnect: the client left.
    """
    chunks: list[bytes] | None = [] if keep else None
    size = 0
    stream = request.stream()
    clock = asyncio.get_running_loop().time
    end = clock() + BODY_SECONDS
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), min(READ_SECONDS, end - clock()))
        except StopAsyncIteration:
            break
        except asyncio.TimeoutError:
            return Intake(None, size, _too_slow(size))
        size += len(chunk)
        if size > MOST_BYTES:
            chunks = None
        if size > _MOST_DROPPED:
            return Intake(None, size, too_large())
        if chunks is not None:
            chunks.append(chunk)
    return Intake(None if chunks is None else b"".join(chunks), size)


def too_large() -> WireError:
    """The refusal of a body that has too many bytes."""
    return WireError(413, 3006, f"AiError: Request is too large: {MOST_BYTES} bytes at most")


def _too_slow(size: int) -> WireError:
    return WireError(
        408,
        3007,
        f"AiError: Timeout: the body stopped at byte {size}; the next one may take {READ_SECONDS:g} seconds, and all "
        f"of them {BODY_SECONDS:g}",
    )


def check_value_count(content: bytes) -> None:
    """Refuses a body of so many values that parsing it would take hundreds of megabytes.

    Raises:
        WireError: it holds too many (3006).
    """
    if _count_signs(content) <= _MOST_VALUES:
        return
    # Texts may hold any number of the signs that stand between values.
    if _count_signs(_TEXT.sub(b"", content)) > _MOST_VALUES:
        raise WireError(413, 3006, f"AiError: Request is too large: {_MOST_VALUES} values at most")


def _count_signs(content: bytes) -> int:
    return sum(map(content.count, (b",", b":", b"[", b"{")))
