"""The file of ``--save``: every reply of a run with private parts replaced, each with the facts that a sample needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from workersai._doctor.captures import Capture
from workersai._doctor.findings import Finding
from workersai._doctor.redaction import Redactor, masked
from workersai._version import __version__

_HEADERS = ("content-type", "retry-after", "server", "cf-ai-neurons", "cf-aig-cache-status")
_ID_HEADERS = ("cf-ray", "cf-aig-log-id", "x-request-id", "cf-ai-req-id")
_LISTED_MODELS = 3  # of the catalogue, whose entries are alike
_MOST_TEXT = 2_000  # characters of a body that is not JSON
_DATA = re.compile(r"(data:[ ]?)(.*)")


def saved_text(findings: Sequence[Finding], captures: Sequence[Capture], secrets: Iterable[str], model: str) -> str:
    """The content of the file, as JSON.

    Args:
        findings: The rows. Their words are left out, since an error may quote a reply.
        captures: The requests and replies of the run.
        secrets: The account id and the token.
        model: The model that was checked.
    """
    redactor = Redactor(secrets)
    for capture in captures:  # before anything is kept: an error may quote the text of a later reply
        _note_ids(capture, redactor)
        _body(capture, redactor)
    content = {
        "workersai": __version__,
        "model": model,
        "when": date.today().isoformat(),  # noqa: DTZ011 - the day where the command runs
        "findings": [_row(finding) for finding in findings],
        "samples": [_sample(number, capture, redactor) for number, capture in enumerate(captures, 1)],
    }
    return redactor.final(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def _row(finding: Finding) -> dict[str, Any]:
    error: dict[str, Any] = {
        name: finding.details[name] for name in ("error", "code", "status_code") if name in finding.details
    }
    shape = {"shape": finding.shape, "expected_shape": finding.expected_shape} if finding.shape else {}
    return {"name": finding.name, "status": finding.status, **shape, **error}


def _sample(number: int, capture: Capture, redactor: Redactor) -> dict[str, Any]:
    sent = capture.sent or {}
    suffix = "sse" if capture.kind == "stream" else "json"
    return {
        "file": f"d{number:02}_{re.sub('[^a-z]+', '_', capture.name.lower())}.{suffix}",
        "kind": capture.kind,
        "model": capture.model,
        "status": capture.head.status if capture.head else None,
        "tools": [tool["function"] for tool in sent.get("tools", ())],
        "max_tokens": sent.get("max_tokens"),
        "form": capture.form,
        "source": f"workersai doctor {__version__}",
        "evidence": "captured",
        "when": date.today().isoformat(),  # noqa: DTZ011 - as above
        "expect": None,
        "note": "" if capture.failure is None else type(capture.failure).__name__,
        "path": capture.path,
        "request": _request(capture, redactor),
        "headers": _headers(capture, redactor),
        "body": _body(capture, redactor),
    }


def _request(capture: Capture, redactor: Redactor) -> Any:
    """The body that was sent, which holds nothing of the user's but the id of a batch."""
    if capture.sent is None or "request_id" not in capture.sent:
        return capture.sent
    return {"request_id": redactor.note_id(str(capture.sent["request_id"]))}


def _headers(capture: Capture, redactor: Redactor) -> dict[str, str]:
    found = capture.head.headers if capture.head else {}
    kept = {name: redactor.message(found[name]) for name in _HEADERS if name in found}
    return kept | {name: redactor.note_id(found[name]) for name in _ID_HEADERS if name in found}


def _note_ids(capture: Capture, redactor: Redactor) -> None:
    _headers(capture, redactor)
    _request(capture, redactor)


def _body(capture: Capture, redactor: Redactor) -> Any:
    """The body: an object for JSON, else its text; None without a reply."""
    if capture.head is None:
        return None
    try:
        payload = json.loads(capture.body)
    except (ValueError, RecursionError):
        return _text(capture, redactor)
    if capture.kind == "catalog" and isinstance(payload, dict) and isinstance(payload.get("result"), list):
        payload = {**payload, "result": payload["result"][:_LISTED_MODELS]}
    return redactor.value(payload)


def _text(capture: Capture, redactor: Redactor) -> str:
    text = capture.body.decode("utf-8", "replace")
    if capture.kind != "stream" or not re.search(r"^data:", text, re.MULTILINE):
        return masked(text[:_MOST_TEXT])
    return "".join(_line(line, redactor) for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", text))


def _line(line: str, redactor: Redactor) -> str:
    """A line of a stream, its end included."""
    content = line.rstrip("\r\n")
    end, match = line[len(content) :], _DATA.fullmatch(content)
    if match is None:
        return masked(content) + end
    label, data = match.groups()
    if data.strip() == "[DONE]":
        return line
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return label + masked(data) + end
    return label + json.dumps(redactor.value(value), ensure_ascii=False, separators=(",", ":")) + end
