"""Bytes -> the data of server-sent events, wherever the network cut them.

This knows the line and event rules of the WHATWG standard ("Server-sent events", 9.2.5 and 9.2.6) and nothing of what
the events mean. Only ``data`` fields are kept: the service uses no event names, ids or retry hints.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"
_BEGIN, _END = b"data: ", b"\n\n"
_BETWEEN = _END + _BEGIN

MAX_EVENT_BYTES = 4_194_304
"""The longest event, 4 MiB: about 100 times the longest answer that the default model's window has room for."""


class SSEDecoder:
    """Splits a byte stream into the ``data`` of its events, as bytes that may still need decoding.

    Working on bytes keeps a UTF-8 character whole that the network cut in two: an event is only looked at once
    its last line has come.
    """

    def __init__(self) -> None:
        self._tail: list[bytes] = []  # the pieces of the line that has not ended yet
        self._data: list[bytes] = []  # the data lines of the event that has not ended yet
        self._after_cr = False  # a line ended in CR: an LF that follows belongs to it
        self._at_start = True
        self._tail_bytes = self._data_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """The length of the event that has not ended yet."""
        return self._tail_bytes + self._data_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that ``chunk`` completes, in order; often none."""
        if chunk.startswith(_BEGIN) and chunk.endswith(_END) and not (self._tail or self._data or self._after_cr):
            # Whole events of one line each, as the service writes them: nearly all chunks are such.
            events = chunk[len(_BEGIN) : -len(_END)].split(_BETWEEN)
            if chunk.count(b"\n") == len(_END) * len(events) and b"\r" not in chunk:
                self._at_start = False
                return events
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._tail.append(chunk)  # a long line is joined once, when it ends
            self._tail_bytes += len(chunk)
            return []
        buffer = b"".join((*self._tail, chunk))
        if self._at_start:
            self._at_start = False
            buffer = buffer.removeprefix(_BOM)
        lines = buffer.splitlines(keepends=True)  # on bytes: LF, CR and CRLF only, as the standard has it
        self._tail = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
        self._tail_bytes = sum(map(len, self._tail))
        self._after_cr = buffer.endswith(b"\r")
        return [event for line in lines if (event := self._line(line.rstrip(b"\r\n"))) is not None]

    def close(self) -> list[bytes]:
        """The data of an event that lacked its closing blank line.

        The standard drops it; here it is handed over, since a server that forgets the last line end is likelier
        than one that was cut off just there, and the reader of the events can tell the two apart.
        """
        line, self._tail = b"".join(self._tail), []
        if self._at_start:
            line = line.removeprefix(_BOM)
        return [event for ended in (line, b"") if (event := self._line(ended)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")  # a comment has an empty name
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1
        return None

    def _dispatch(self) -> bytes | None:
        if not self._data:
            return None
        event, self._data, self._data_bytes = b"\n".join(self._data), [], 0
        return event
