"""The offered tools, as the readers of text tool calls need them: their names, their parameters, the keys of a call.

A call is an object of a name and ``parameters`` (or ``arguments``), or of a ``function`` that has both. gpt-oss also
writes the flat form ``{"name": "get_weather", "city": "Paris"}``, with the arguments beside the name
(wire.md#text-tool-calls). The flat form counts only if each other key is a parameter of the tool.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

CALL_KEYS = frozenset({"type", "id", "name", "parameters", "arguments", "function"})
"""The keys of a call that is not flat."""
FUNCTION_KEYS = CALL_KEYS - {"function"}
"""The keys of the function in a call."""
ARGUMENTS = frozenset({"parameters", "arguments"})
_BESIDE_ARGUMENTS = frozenset({"name", "type", "id"})


class Form(NamedTuple):
    """One form that the object of a call can have."""

    keys: frozenset[str]
    parameters: frozenset[str] = frozenset()
    """The keys that are arguments: only a flat call has them."""
    name: str | None = None
    """The tool that a flat call calls; None: any."""


STANDARD = Form(CALL_KEYS)
FUNCTION = Form(FUNCTION_KEYS)


class OfferedTools:
    """The tools that the model may call.

    Args:
        names: Their names.
        parameters: The names of the parameters by the tool's name. Default: unknown, so no call is read as flat.
    """

    def __init__(self, names: Collection[str], parameters: Mapping[str, Collection[str]] | None = None) -> None:
        self.names = frozenset(names)
        self._parameters = {
            name: frozenset(own) - {"name"} for name, own in (parameters or {}).items() if name in self.names
        }
        flat = (Form(own | _BESIDE_ARGUMENTS, own, name) for name, own in self._parameters.items() if own)
        self.forms = (STANDARD, *flat)
        every_parameter = frozenset[str]().union(*self._parameters.values())
        self.checked_keys = frozenset({"name", "type", "function"}) - every_parameter
        """The keys whose value is checked as it arrives. An argument can have any value."""
        self.longest_name = max(map(len, self.names), default=0)
        self.longest_key = max(map(len, CALL_KEYS | every_parameter))
        self._sorted_names = sorted(self.names)
        self._sorted_keys = sorted(CALL_KEYS | every_parameter)

    def has_name_with(self, prefix: str) -> bool:
        """Whether a tool's name begins so."""
        return _has_prefix(self._sorted_names, prefix)

    def has_key_with(self, prefix: str) -> bool:
        """Whether a key of any call begins so."""
        return _has_prefix(self._sorted_keys, prefix)

    def calls(self, value: Any) -> list[dict[str, Any]]:
        """The calls in a decoded object or list, in the form of the HTTP API; empty unless all of it is calls."""
        values = value if isinstance(value, list) else [value]
        calls = [self._standard_call(one) or self._flat_call(one) for one in values if isinstance(one, dict)]
        found = [call for call in calls if call is not None]
        return found if len(found) == len(values) else []

    def _standard_call(self, value: dict[str, Any]) -> dict[str, Any] | None:
        function = value.get("function", value)
        if not (value.keys() <= CALL_KEYS and isinstance(function, dict) and function.keys() <= CALL_KEYS):
            return None
        name = function.get("name")
        if not isinstance(name, str) or name not in self.names or value.get("type", "function") != "function":
            return None
        if "type" not in value and not ARGUMENTS & function.keys():
            return None
        return {**function, "id": None}  # without an id, which the model can only have made up

    def _flat_call(self, value: dict[str, Any]) -> dict[str, Any] | None:
        name = value.get("name")
        own = self._parameters.get(name) if isinstance(name, str) else None
        if not own or ("type" not in own and value.get("type", "function") != "function"):
            return None
        arguments = {key: value[key] for key in value if key in own}
        if not arguments or not value.keys() - own <= _BESIDE_ARGUMENTS:
            return None
        return {"name": name, "arguments": arguments, "id": None}


def _has_prefix(words: list[str], prefix: str) -> bool:
    at = bisect_left(words, prefix)
    return at < len(words) and words[at].startswith(prefix)
