"""A tool call on the wire -> a ToolCall. The one place that reads them, for whole replies and streams alike.

The service sends calls in three shapes (wire.md#tool-calls, wire.md#streams), and a streamed call in pieces. Here each
shape becomes a :class:`ToolCallDelta`, and deltas become calls: a whole call is a call in one piece.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from workersai.protocol.json_end import ObjectEnd
from workersai.protocol.nulls import with_nulls
from workersai.protocol.refs import Node
from workersai.protocol.surrogates import whole_value_of
from workersai.protocol.values import InvalidToolCall, ToolCall, ToolCallDelta

Place = Literal["choice", "beside", "text"]
"""Where a call stands in a reply: in its choice, beside the choices (or in a native reply), or in its text."""


_MOST_UNFINISHED = 64  # calls that are streamed at the same time, far more than were ever seen


def new_call_id() -> str:
    """An id for a call that came without one: native replies have none, and both frameworks need one."""
    return f"call_{uuid.uuid4().hex}"


@dataclass
class _Growing:
    id: str
    wire_id: str | None
    name: str
    place: Place
    arguments: list[str] = field(default_factory=list)
    looked: int = 0  # how many pieces of the arguments the end was looked for in
    end: ObjectEnd = field(default_factory=ObjectEnd)
    is_garbled: bool = False  # whether the arguments ended, and were no object

    @property
    def is_whole(self) -> bool:
        """Whether it has arguments, and they are an object: each piece is looked at once, the whole parsed once."""
        for piece in self.arguments[self.looked :]:
            self.end.advance(piece)
        self.looked = len(self.arguments)
        if not self.end.is_reached or self.is_garbled:
            return False
        self.is_garbled = not isinstance(_finish(self), ToolCall)
        return not self.is_garbled


class ToolCallAssembler:
    """Collects the calls of one answer, whole or in pieces, in the order in which they began.

    Args:
        nullable: By a tool's name, the schema by which nulls are put back into its arguments.
        parallel: False: only the first call counts; the service has no such setting.
        used_ids: Ids that no call may have, since earlier calls of the conversation have them.
    """

    def __init__(
        self,
        nullable: Mapping[str, Node] | None = None,
        *,
        parallel: bool = True,
        used_ids: Collection[str] = (),
    ) -> None:
        self._nullable = nullable or {}
        self._most = None if parallel else 1
        self._used_ids = set(used_ids)
        self._calls: list[_Growing] = []
        self._by_index: dict[int, int] = {}  # the wire's index -> the place in self._calls
        self._repeats = _Repeats()

    def add(self, wires: Sequence[dict[str, Any]], *, place: Place = "beside") -> list[ToolCallDelta]:
        """Takes the entries of one ``tool_calls`` array; returns what each added, with an index of our own.

        The hybrid shape has the same call in two places (wire.md#tool-calls): it is one call.
        """
        deltas = (self._add(wire, place) for wire in wires if not self._repeats.has(wire, place, self._calls))
        return [self._shown(delta) for delta in deltas if delta is not None and self._counts(delta.index)]

    def close(self) -> list[ToolCallDelta]:
        """The arguments that were held back: those in which nulls are put back, which takes all of them."""
        return [
            ToolCallDelta(index=index, id=None, name=None, arguments=_arguments_text(self._finished(call)))
            for index, call in enumerate(self._calls[: self._most])
            if call.name in self._nullable
        ]

    @property
    def any(self) -> bool:
        """Whether a call has begun."""
        return bool(self._calls)

    def calls(self, *, cut_off: bool = False) -> tuple[tuple[ToolCall, ...], tuple[InvalidToolCall, ...]]:
        """The calls as they stand: those whose arguments are an object, and those whose are not.

        Args:
            cut_off: Whether the answer broke off: the last call may then lack its arguments, or a part of them.
        """
        finished = [self._finished(call) for call in self._calls[: self._most]]
        if cut_off and finished and len(finished) == len(self._calls):
            finished[-1] = _cut_off(finished[-1], self._calls[-1])
        return (
            tuple(call for call in finished if isinstance(call, ToolCall)),
            tuple(call for call in finished if isinstance(call, InvalidToolCall)),
        )

    def dropped(self) -> tuple[ToolCall | InvalidToolCall, ...]:
        """The calls after the first, where only one was wanted."""
        return () if self._most is None else tuple(self._finished(call) for call in self._calls[self._most :])

    def _counts(self, index: int) -> bool:
        return self._most is None or index < self._most

    def _shown(self, delta: ToolCallDelta) -> ToolCallDelta:
        held_back = self._calls[delta.index].name in self._nullable
        return replace(delta, arguments="") if held_back else delta

    def _finished(self, growing: _Growing) -> ToolCall | InvalidToolCall:
        call = _finish(growing)
        schema = self._nullable.get(call.name)
        if schema is None or isinstance(call, InvalidToolCall):
            return call
        return replace(call, arguments=with_nulls(call.arguments, schema))

    def _add(self, wire: dict[str, Any], place_in_reply: Place) -> ToolCallDelta | None:
        name, arguments = _name_and_arguments(wire)
        given = wire.get("id")
        wire_id = given if isinstance(given, str) and given else None
        if not (name or arguments or wire_id):
            return None  # the finaliser of a streamed call: its id, type and name are all null
        place = self._place(wire.get("index"), wire_id, name)
        if place is None:
            return self._begin(wire.get("index"), wire_id, name, _unless_nothing(arguments), place_in_reply)
        call = self._calls[place]
        if not call.arguments:
            arguments = _unless_nothing(arguments)
        call.arguments += [arguments] if arguments else []
        late = name if name and not call.name else None
        call.name = call.name or name
        return ToolCallDelta(index=place, id=None, name=late, arguments=arguments)

    def _begin(self, index: Any, wire_id: str | None, name: str, arguments: str, where: Place) -> ToolCallDelta:
        # Routes repeat ids within a reply and in later turns; a tool's result is matched to its call by the id.
        call_id = new_call_id() if wire_id is None or wire_id in self._used_ids else wire_id
        self._used_ids.add(call_id)
        call = _Growing(call_id, wire_id, name, where, arguments=[arguments] if arguments else [])
        self._calls.append(call)
        place = len(self._calls) - 1
        if isinstance(index, int):
            self._by_index[index] = place
        return ToolCallDelta(index=place, id=call.id, name=name or None, arguments=arguments)

    def _place(self, index: Any, wire_id: str | None, name: str) -> int | None:
        """Which call a piece goes on with, or None where it begins another."""
        if not isinstance(index, int):
            # A native call has no index and comes whole, with its name; what has neither goes on with the last.
            return None if name or not self._calls else len(self._calls) - 1
        place = self._by_index.get(index)
        begun = None if place is None else self._calls[place].wire_id
        if wire_id is not None and begun is not None and wire_id != begun:
            return None  # another id under an index that was used: another call
        if place is not None and name and self._calls[place].name and self._calls[place].is_whole:
            return None  # another name after a whole call
        return place


class _Repeats:
    """Finds the calls that a reply has in two places.

    Strategy: once calls stand in both places, whole calls are counted by place, name and arguments. One that was seen
    less often in its own place than in the other is that other call again. So two equal calls in one place stay two.
    Calls in pieces are counted once they are whole.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Counter[tuple[str, str]]] = {"choice": Counter(), "beside": Counter()}
        self._seen: set[Place] = set()
        self._looked = 0  # how many of the calls were looked at
        # The newest calls that were not whole yet, each with the number of its pieces at the last look.
        self._unfinished: deque[tuple[_Growing, int]] = deque(maxlen=_MOST_UNFINISHED)

    def has(self, wire: dict[str, Any], place: Place, calls: Sequence[_Growing]) -> bool:
        """Whether the entry is a call of the other place again."""
        if place == "text":
            return False
        self._seen.add(place)
        if len(self._seen) == 1:
            return False
        key = _key(*_name_and_arguments(wire))
        if key is None:  # a piece of a call, which is compared once all of it is there
            return False
        self._count(calls)
        if self._counts[place][key] >= self._counts["beside" if place == "choice" else "choice"][key]:
            return False
        self._counts[place][key] += 1
        return True

    def _count(self, calls: Sequence[_Growing]) -> None:
        """Counts the calls that have become whole since; one without a new piece is not parsed again."""
        unfinished = [*self._unfinished, *((call, 0) for call in calls[self._looked :] if call.place != "text")]
        self._looked = len(calls)
        self._unfinished.clear()
        for call, pieces in unfinished:
            key = None if pieces == len(call.arguments) > 0 else _key(call.name, "".join(call.arguments))
            if key is None:
                self._unfinished.append((call, len(call.arguments)))
            else:
                self._counts[call.place][key] += 1


def _key(name: str, arguments: str) -> tuple[str, str] | None:
    """What two equal calls have in common; None for a call that isn't whole."""
    call = call_from_text("", name, arguments)
    return (name, json.dumps(call.arguments, sort_keys=True)) if isinstance(call, ToolCall) else None


def _name_and_arguments(wire: dict[str, Any]) -> tuple[str, str]:
    """Name and arguments of a native call, or of one in OpenAI's shape; arguments as JSON text, or a piece of it."""
    function = wire.get("function")
    call = function if isinstance(function, dict) else wire
    # "parameters" is what the model itself calls them, in a call that it wrote as text.
    arguments = call.get("arguments")
    if arguments is None:
        arguments = call.get("parameters")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return str(call.get("name") or ""), arguments


def _arguments_text(call: ToolCall | InvalidToolCall) -> str:
    if isinstance(call, InvalidToolCall):
        return call.arguments
    return json.dumps(call.arguments, ensure_ascii=False)


def _unless_nothing(arguments: str) -> str:
    """The beginning of the arguments; blank or null, which a call without any can have, is nothing."""
    return "" if arguments.strip() in ("", "null") else arguments


def _finish(call: _Growing) -> ToolCall | InvalidToolCall:
    return call_from_text(call.id, call.name, "".join(call.arguments))


def _cut_off(call: ToolCall | InvalidToolCall, growing: _Growing) -> ToolCall | InvalidToolCall:
    """The last call of an answer that broke off; without any arguments, those may just not have come."""
    if isinstance(call, ToolCall) and growing.arguments:
        return call
    error = "The answer was cut off before the arguments of the call were whole."
    return InvalidToolCall(id=call.id, name=call.name, arguments="".join(growing.arguments), error=error)


def call_from_text(call_id: str, name: str, text: str) -> ToolCall | InvalidToolCall:
    """A call whose arguments are JSON text; a function without parameters is called with ``""`` on some routes."""
    error = "The call has no name." if not name else ""
    arguments: Any = {}
    if text:
        try:
            arguments = whole_value_of(text.encode(), allow_inf_nan=False)  # what can't be sent back is no JSON
        except ValueError as problem:
            error = error or f"The arguments are not JSON: {problem}."
    if not isinstance(arguments, dict):
        error = error or "The arguments are not a JSON object."
    if error:
        return InvalidToolCall(id=call_id, name=name, arguments=text, error=error)
    return ToolCall(id=call_id, name=name, arguments=arguments)
