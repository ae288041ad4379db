"""Checks of the connection, the token, the account, the permission and the model list. They cost nothing.

One request answers all of them if it succeeds. If it is refused, Cloudflare's API is asked whether it knows the token
at all, so that the row names the setting that is wrong: ``/user/tokens/verify``, and ``/accounts/{id}/tokens/verify``
for a token that an account owns (Cloudflare's API reference, "Verify Token").
"""

from __future__ import annotations

from typing import Any

from workersai._doctor.captures import Capture, Recorder
from workersai._doctor.findings import RUN_PERMISSION, Check, Finding, skipped
from workersai.protocol.reply import ReplyHead, error_from_body

NAMES = ("connection", "token", "account", "permission", "model list")

_TOKEN_ADVICE = 'Create one at https://dash.cloudflare.com/profile/api-tokens (template "Workers AI").'  # noqa: S105
_ACCOUNT_ID = "Check CLOUDFLARE_ACCOUNT_ID: it is in the address of your dashboard, dash.cloudflare.com/<account id>."
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_NO_ROUTE = (7000, 7003)
_PER_PAGE = 100
_MOST_PAGES = 5
_CODES_OF_A_BAD_TOKEN = (1000, 6003, 6111)
"""Cloudflare's API: an invalid token, an invalid request header, an invalid format of the Authorization header."""


def account_check(recorder: Recorder, model: str) -> Check:
    """The check of everything that is needed before a model is called."""

    def run() -> list[Finding]:
        capture = recorder.get("model list", _page(1), kind="catalog")
        if capture.failure is not None:
            raise capture.failure
        assert capture.head is not None  # noqa: S101 - without a failure there was a reply
        connected = Finding("connection", "ok", f"{recorder.host} replied in {capture.times[-1]:.2f} s")
        return [connected, *found(capture, capture.head)]

    def found(capture: Capture, head: ReplyHead) -> list[Finding]:
        if head.ok:
            capture.answered()
            return _accepted(recorder, capture, model)
        error = error_from_body(capture.body, head)
        if head.status in (_UNAUTHORIZED, _FORBIDDEN) or error.code in (10000, *_CODES_OF_A_BAD_TOKEN):
            return _refused(recorder, head.status, error.code)
        if error.code in _NO_ROUTE or head.status == 404:  # noqa: PLR2004
            seen = f"There is no such account at {recorder.host} (HTTP {head.status}, code {error.code})."
            return [
                skipped("token", "unknown: the account id was not found"),
                Finding("account", "fail", seen, f"{_ACCOUNT_ID} Check CLOUDFLARE_BASE_URL, too.", blocks="all"),
                *(skipped(name, "the account id was not found") for name in NAMES[3:]),
            ]
        # The list itself failed: the calls below show whether the account works.
        return [
            *(skipped(name, "unknown: the model list failed") for name in NAMES[1:4]),
            Finding("model list", "warn", str(error), "Run the check again later."),
        ]

    return Check(NAMES, "", run)


def _page(number: int) -> str:
    return f"/ai/models/search?page={number}&per_page={_PER_PAGE}"


def _accepted(recorder: Recorder, capture: Capture, model: str) -> list[Finding]:
    listed = _names(capture)
    found, number = len(listed), 1
    # result_info.total_count is no bound for pages (wire.md#model-list): the last page is the one that isn't full.
    while found == _PER_PAGE and number < _MOST_PAGES:
        number += 1
        more = _names(recorder.get("model list", _page(number), kind="catalog"))  # none if it fails
        listed, found = listed + more, len(more)
    rows = [
        Finding("token", "ok", "accepted"),
        Finding("account", "ok", "found"),
        Finding("permission", "ok", "may list models; `messages` shows whether it may run them"),
    ]
    details, count = {"models": listed}, len(set(listed))
    if model in listed:
        return [*rows, Finding("model list", "ok", f"{count:,} models; this model is listed", details=details)]
    seen, advice = f"{count:,} models, but not {model}", "Check the name: the model may be renamed or retired."
    return [*rows, Finding("model list", "warn", seen, advice, details=details)]


def _names(capture: Capture) -> list[str]:
    payload = capture.payload
    result = payload.get("result") if isinstance(payload, dict) else None
    entries: list[Any] = result if isinstance(result, list) else []
    return [str(entry["name"]) for entry in entries if isinstance(entry, dict) and entry.get("name")]


def _refused(recorder: Recorder, status: int, code: int | None) -> list[Finding]:
    refusal = f"HTTP {status}, code {code}" if code is not None else f"HTTP {status}"
    is_known = _is_known_token(recorder)
    if is_known is None:  # the server can't verify tokens: 403 comes after the token was accepted
        is_known = status == _FORBIDDEN
    if not is_known:
        found = f"Cloudflare doesn't accept CLOUDFLARE_API_TOKEN ({refusal}): wrong, expired or deleted."
        return [
            Finding("token", "fail", found, _TOKEN_ADVICE, blocks="all"),
            *(skipped(name, "the token was not accepted") for name in NAMES[2:]),
        ]
    found = f"The token is accepted, but not for this account ({refusal})."
    return [
        Finding("token", "ok", "accepted"),
        Finding(
            "account",
            "fail",
            found,
            f"{_ACCOUNT_ID} If it is right, the token lacks a permission. {RUN_PERMISSION}",
            blocks="all",
        ),
        *(skipped(name, "the token doesn't reach this account") for name in NAMES[3:]),
    ]


def _is_known_token(recorder: Recorder) -> bool | None:
    """Whether Cloudflare knows the token as active; None if that can't be found out."""
    answers = [
        _verified(recorder.get("token", "/user/tokens/verify", kind="token", in_account=False)),
        _verified(recorder.get("token", "/tokens/verify", kind="token")),
    ]
    if True in answers:
        return True
    # A token of a user is unknown among those of the account, and the other way round: both must deny it.
    return None if None in answers else False


def _verified(capture: Capture) -> bool | None:
    if capture.head is None:
        return None
    payload, result = capture.payload, None
    if isinstance(payload, dict):
        result = payload.get("result")
    if capture.head.ok and isinstance(result, dict):
        return result.get("status") == "active"
    error = error_from_body(capture.body, capture.head)
    is_denied = capture.head.status == _UNAUTHORIZED or error.code in _CODES_OF_A_BAD_TOKEN
    return False if is_denied else None
