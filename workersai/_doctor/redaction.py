"""Removes what is private from captured bodies, and keeps their structure.

Types, keys, counts, white space and punctuation stay, since they are what a reply's reader can get wrong. Words of a
text become ``x``, but for the words that the requests of this command hold themselves: so a tool call that a model
wrote as text can still be recognized as one. Ids become numbered ones, the same id the same number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from workersai._doctor.requests import TOOL_NAME

_KEPT_WORDS = frozenset(
    """true false null type function functions name parameters arguments json python tag tool call chatcmpl
    city country get weather tool_calls response content""".split()  # noqa: SIM905 - a list of words
)
_TOKENS = re.compile(
    r"\\u[0-9A-Fa-f]{4}|\\."  # an escape of JSON
    r"|\d+(?:[eE][+-]?\d+)?"
    r"|[^\W\d_]+",
)
_ENUMERATED = frozenset(
    """finish_reason role type object status pooling property_id unit currency cost_metric_name_1
    stop_reason""".split()  # noqa: SIM905 - as above
)
_ENUM = re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,40}")
_MODEL = re.compile(r"@[\w-]+(/[\w-][\w.-]*)+", re.ASCII)
_ID_KEY = re.compile(r"(^|_)(id|ray|uuid|fingerprint)$", re.IGNORECASE)
_PLAIN_VALUE = re.compile(r"[\d.]{1,12}|true|false")
_PARTS = frozenset({"text", "output_text", "reasoning_text", "summary_text", "refusal"})
_KEY = re.compile(r"[A-Za-z_][A-Za-z_0-9-]{0,40}")
_REPEATED_ID = re.compile(rf"functions\.{TOOL_NAME}:\d{{1,4}}")
_REFERENCES = frozenset({"doctor-prompt", "doctor-template", "doctor-messages"})
_FREE = frozenset({"response", "content", "text", "reasoning", "reasoning_content", "arguments", "parameters"})
"""Fields that hold what a model wrote: below them, keys and numbers are text as well."""

_TIMES = frozenset({"created", "created_at", "issued_on", "expires_on", "not_before", "modified_on"})
_VECTOR = 3  # numbers of a vector that are kept
_SHORTEST_SECRET = 6

_PATTERNS = (
    (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "user@example.com"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b[0-9a-f]{16}(-[A-Z]{3})\b"), "<ray>"),
    (re.compile(r"\b(?=[A-Za-z]*\d)[A-Za-z0-9_-]{16,}\b"), "<id>"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "192.0.2.1"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4}){1,7}(?![\w:])", re.IGNORECASE), "2001:db8::1"),
)


class Redactor:
    """Replaces what is private in the bodies of one run.

    Args:
        secrets: The account id, the token, and anything else that must not occur.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        self._ids: dict[str, str] = {}
        self._texts: set[str] = set()

    def value(self, value: Any, key: str = "", *, free: bool = False) -> Any:
        """A JSON value without what is private; ``free`` for what a model wrote."""
        free = free or (key in _FREE and not _is_structure(value, key))
        if isinstance(value, dict):
            return self._object(value, free=free)
        if isinstance(value, list):
            if len(value) > _VECTOR and all(isinstance(each, float) for each in value):
                return value[:_VECTOR]
            return [self.value(each, free=free) for each in value]
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float):
            return self._number(value, key, free=free)
        return self._string(value, key, free=free)

    def message(self, text: str) -> str:
        """The words of an error, which a report needs: without ids, addresses, and texts of the run."""
        for pattern, stand_in in _PATTERNS:
            text = pattern.sub(stand_in, text)
        for known in sorted(self._texts, key=len, reverse=True):
            text = text.replace(known, masked(known))
        return text

    def final(self, text: str) -> str:
        """The file's text, in which not one of the secrets and ids of the run is left, wherever it stood."""
        for known in sorted((*self._secrets, *self._ids), key=len, reverse=True):
            if len(known) >= _SHORTEST_SECRET:
                text = re.sub(re.escape(json.dumps(known)[1:-1]), "***", text, flags=re.IGNORECASE)
        return text

    def note_id(self, found: str) -> str:
        """The stand-in of an id."""
        if _REPEATED_ID.fullmatch(found) or found in _REFERENCES:
            return found
        return self._ids.setdefault(found, f"{_prefix(found)}id{len(self._ids) + 1}")

    def _object(self, value: Mapping[str, Any], *, free: bool) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, inner in value.items():
            name = key
            if free:
                name = masked(key)
            elif not _KEY.fullmatch(key):
                name = self.message(key)
            while name in made:
                name += "_"
            is_error = key in ("errors", "error") and not free
            made[name] = self._errors(inner, key) if is_error else self.value(inner, key, free=free)
        return made

    def _errors(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: self._errors(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._errors(each, key) for each in value]
        if not isinstance(value, str):
            return value
        return self.note_id(value) if _ID_KEY.search(key) else self.message(value)

    def _number(self, value: float, key: str, *, free: bool) -> float:
        if key in _TIMES:
            return 1
        if not free:
            return value
        return 1 if isinstance(value, int) else 1.5

    def _string(self, value: str, key: str, *, free: bool) -> str:
        if not value:
            return value
        if not free:
            if key in _ENUMERATED and _ENUM.fullmatch(value):
                return value
            if _ID_KEY.search(key) or key == "external_reference":
                return self.note_id(value)
            if key == "value" and _PLAIN_VALUE.fullmatch(value):  # of a property in the catalogue
                return value
            if key in ("model", "name") and (_MODEL.fullmatch(value) or value == TOOL_NAME):
                return value
        if value.strip() and len(value) >= _SHORTEST_SECRET:
            self._texts.add(value)
        return masked(value)


def masked(text: str) -> str:
    """A text with its words and digits replaced; its white space, punctuation and JSON stay."""
    return _TOKENS.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    token = found[0]
    if token.startswith("\\"):
        return "\\u00e9" if token[1] == "u" else token
    if token[0].isdigit():
        return re.sub(r"\d", "1", token)
    if token in _KEPT_WORDS:
        return token
    return "".join(("X" if each.isupper() else "x") if each.isascii() else "é" for each in token)


def _is_structure(value: Any, key: str) -> bool:
    """Whether a field that usually holds a model's text holds the service's own objects: scores, or typed parts."""
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        return False
    if key == "response":
        return all(each.keys() == {"id", "score"} for each in value)
    return key == "content" and all(each.get("type") in _PARTS for each in value)


def _prefix(found: str) -> str:
    """The part of an id that shows who made it, as in ``chatcmpl-tool-``."""
    match = re.match(r"(?:chatcmpl|tool|call|functions|resp|rs|msg)(?:[-_.](?:tool|call))*[-_.]", found)
    return match[0] if match else ""
