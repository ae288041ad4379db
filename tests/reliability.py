"""What a caller sees of each failure: the table of ``docs/reliability.md``, which ``test_reliability.py`` proves.

``python -m tests.reliability`` writes the page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests import guarantees_calls, guarantees_jobs
from tests.guarantees import Section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
MAX_RETRIES = 1
ANSWER = "the answer"


@dataclass(frozen=True)
class Outcome:
    """What a call that meets the fault each time ends in."""

    error: str  # the class in workersai.errors, or ANSWER
    requests: int = 1
    kept: bool | None = True  # whether the connection is used again; None where that depends on the moment
    partial: bool = False  # whether the error holds the text that had come
    in_time: bool = True  # whether the failure comes by itself, before the timeout of an attempt


@dataclass(frozen=True)
class Case:
    """A fault of the local server, and its outcome for a whole reply and for a stream."""

    fault: str
    what: str
    whole: Outcome
    stream: Outcome


def _refusal(fault: str, what: str, error: str, *, retried: bool = False) -> Case:
    outcome = Outcome(error, requests=1 + MAX_RETRIES if retried else 1)
    return Case(fault, what, outcome, outcome)


CASES = [
    _refusal("10000", "authentication error, 401", "AuthenticationError"),
    _refusal("5007", "no such model, 400", "ModelNotFoundError"),
    _refusal("7000", "no route, 400", "BadRequestError"),
    _refusal("7003", "no route, 404", "BadRequestError"),
    _refusal("5006", "bad input, 400", "BadRequestError"),
    _refusal("5004", "invalid data, 400", "BadRequestError"),
    _refusal("5024", "JSON Mode couldn't be met, 400", "JSONModeError"),
    _refusal("3039", "finetune lacks required files, 400", "BadRequestError"),
    _refusal("3003", "incomplete request, 400", "BadRequestError"),
    _refusal("5021", "context window exceeded, 413", "ContextWindowExceededError"),
    _refusal("3010", "context window exceeded, 400", "ContextWindowExceededError"),
    _refusal("5018", "account not allowed for this model, 403", "PermissionDeniedError"),
    _refusal("3041", "account not allowed for this model, 403", "PermissionDeniedError"),
    _refusal("5016", "model agreement not accepted, 403", "PermissionDeniedError"),
    _refusal("3023", "account blocked, 403", "PermissionDeniedError"),
    _refusal("5019", "deprecated SDK version, 405", "BadRequestError"),
    _refusal("5005", "model does not take a LoRA, 405", "BadRequestError"),
    _refusal("3042", "invalid model id, 404", "ModelNotFoundError"),
    _refusal("3006", "request too large, 413", "RequestTooLargeError"),
    _refusal("3007", "timeout, 408", "APITimeoutError", retried=True),
    _refusal("3008", "aborted, 408", "APITimeoutError", retried=True),
    _refusal("3036", "daily free allocation used up, 429", "QuotaExceededError"),
    _refusal("4006", "daily free allocation used up, 429", "QuotaExceededError"),
    _refusal("3040", "out of capacity, 429", "RateLimitError", retried=True),
    _refusal("3040:0", "the same, with Retry-After", "RateLimitError", retried=True),
    _refusal("3040:86400", "the same, with a Retry-After of a day", "RateLimitError"),
    _refusal("5000", "server error, 500", "ServerError", retried=True),
    _refusal("5028", "model deprecated, 410", "ModelNotFoundError"),
    _refusal("5035", "needs the Workers Paid plan, 403", "PermissionDeniedError"),
    _refusal("5012", "request refused by the model's server, 422", "BadRequestError"),
    _refusal("8001", "invalid input, 400", "BadRequestError"),
    _refusal("8007", "request refused by the model's server, 400", "BadRequestError"),
    _refusal("3030", "text too long for an embedding model, 400", "BadRequestError"),
    _refusal("3046", "timeout, 408", "APITimeoutError", retried=True),
    _refusal("8005", "server error, 500", "ServerError", retried=True),
    _refusal("2021", "gateway: no credit, 402", "PermissionDeniedError"),
    _refusal("2045", "gateway: spend limit, 429", "QuotaExceededError"),
    _refusal("2003", "gateway: rate limited, 429", "RateLimitError", retried=True),
    _refusal("9999", "a code that nobody knows, 400", "BadRequestError"),
    _refusal("9999/503", "the same, 503", "ServerError", retried=True),
    _refusal("error:4006", "the other form of an error body", "QuotaExceededError"),
    *(
        _refusal(f"html:{status}", "a page of the edge", "ServerError", retried=True)
        for status in (502, 504, 520, 521, 522, 523, 524)
    ),
    _refusal("html:503:0", "the same, with Retry-After", "ServerError", retried=True),
    Case("empty", "200 with an empty body", Outcome("ServerError"), Outcome("StreamInterruptedError", requests=2)),
    Case(
        "stall",
        "no reply at all",
        Outcome("APITimeoutError", requests=2, kept=False, in_time=False),
        Outcome("APITimeoutError", requests=2, kept=False, in_time=False),
    ),
    Case(
        "stall:100",
        "nothing more after a part of the body",
        Outcome("APITimeoutError", requests=2, kept=False, in_time=False),
        Outcome("APITimeoutError", kept=False, partial=True, in_time=False),
    ),
    Case(
        "cut",
        "connection closed before the reply",
        Outcome("APIConnectionError", requests=2, kept=False),
        Outcome("APIConnectionError", requests=2, kept=False),
    ),
    Case(
        "cut:1",
        "connection closed after a byte of the body",
        Outcome("APIConnectionError", requests=2, kept=False),
        Outcome("StreamInterruptedError", requests=2, kept=False),
    ),
    Case(
        "cut:100",
        "connection closed within the body",
        Outcome("APIConnectionError", requests=2, kept=False),
        Outcome("StreamInterruptedError", kept=False, partial=True),
    ),
    Case(
        "end:100",
        "the reply ends too early, without a word",
        Outcome("ServerError"),
        Outcome("StreamInterruptedError", partial=True),
    ),
    Case("garbage", "bytes that nobody can read", Outcome("ServerError"), Outcome("ServerError", kept=None)),
    Case(
        "garbage:100",
        "the same after a part of the body",
        Outcome("ServerError"),
        Outcome("ServerError", kept=None, partial=True),
    ),
    Case(
        "event:3040",
        "out of capacity, told in a 200 or in the stream",
        Outcome("RateLimitError", requests=2),
        Outcome("RateLimitError", kept=None, partial=True),
    ),
    Case(
        "event:5006",
        "bad input, told in a 200 or in the stream",
        Outcome("BadRequestError"),
        Outcome("BadRequestError", kept=None, partial=True),
    ),
    Case("whole", "the whole reply at once where a stream was asked for", Outcome(ANSWER), Outcome(ANSWER)),
    Case("dribble:0", "the body byte by byte", Outcome(ANSWER), Outcome(ANSWER)),
    Case("content-type:text/html", "the right reply under a wrong label", Outcome(ANSWER), Outcome(ANSWER)),
]

# The same for calls with a deadline: failures that last longer, with a timeout that is longer still.
_LATE = Outcome("APITimeoutError", kept=False, in_time=False)
_LATE_STREAM = Outcome("APITimeoutError", kept=False, in_time=False, partial=True)
DEADLINE_CASES = [
    Case("stall", "no reply at all", _LATE, _LATE),
    Case("stall:100", "nothing more after a part of the body", _LATE, _LATE_STREAM),
    Case("dribble:0.1", "the body byte by byte: no wait of its own is long", _LATE, _LATE),
    _refusal("3040:30", "a Retry-After that is longer: there is no wait", "RateLimitError"),
]

LANGCHAIN = {
    "AuthenticationError": "ModelAuthenticationError",
    "PermissionDeniedError": "ModelPermissionDeniedError",
    "BadRequestError": "ModelInvalidRequestError",
    "ModelNotFoundError": "ModelNotFoundError",
    "RateLimitError": "ModelRateLimitError",
    "QuotaExceededError": "ModelRateLimitError",
    "RequestTooLargeError": "ModelInvalidRequestError",
    "ContextWindowExceededError": "ContextOverflowError",
    "JSONModeError": "ModelInvalidRequestError",
    "APITimeoutError": "ModelTimeoutError",
    "APIConnectionError": "ModelConnectionError",
    "ServerError": "ModelAPIError",
    "StreamInterruptedError": "ModelConnectionError",
}

_LOAD, _CLIENTS, _FUZZ = "tests/test_load.py", "tests/workersai/test_clients.py", "tests/fuzz/test_parsers.py"
# What else is promised, and the tests of it.
OTHERS: list[tuple[str, list[str]]] = [
    (
        (
            "2,000 calls, 200 at once, of which one in ten fails (429, 502, cuts, stalls, errors in the midst): each "
            "is answered or told, no task, socket, thread, request or response is left, and memory is back to where it "
            "was"
        ),
        [f"{_LOAD}::test_two_thousand_calls_two_hundred_at_once"],
    ),
    (
        "threads share one client, also over such failures",
        [
            f"{_LOAD}::test_threads_that_share_a_client",
            f"{_CLIENTS}::test_one_client_serves_many_threads_over_one_pool",
        ],
    ),
    (
        "event loops one after the other, and in several threads at once",
        [
            f"{_CLIENTS}::test_one_async_client_serves_several_event_loops_one_after_the_other",
            f"{_CLIENTS}::test_one_async_client_serves_event_loops_of_several_threads_at_once",
        ],
    ),
    ("a fork after use", [f"{_CLIENTS}::test_a_forked_process_makes_connections_of_its_own"]),
    ("a client that nobody closes", [f"{_CLIENTS}::test_an_unclosed_client_leaves_no_warning_behind"]),
    (
        (
            "a reader that leaves early, a task that is cancelled, a callback that raises: the server sees the "
            "connection closed, and the next call succeeds"
        ),
        [
            f"{_CLIENTS}::test_leaving_a_stream_early_closes_its_connection_and_leaves_the_client_usable",
            "tests/test_reliability.py::test_a_cancelled_task_leaves_its_model_usable",
            (
                "tests/langchain_workersai/test_callbacks.py"
                "::test_a_callback_that_raises_ends_the_stream_and_closes_its_connection"
            ),
        ],
    ),
    (
        "a server that sends a byte now and then, in the head, between two chunks or in the body, meets the deadline",
        ["tests/workersai/test_deadline.py::test_who_sends_a_byte_now_and_then_meets_the_deadline"],
    ),
    (
        (
            "whatever bytes come, as a stream or at once: an answer made of what was sent, or an error of ours (`make "
            "fuzz`: 100,000 streams, and 120,000 replies, texts and schemas)"
        ),
        [
            f"{_FUZZ}::test_a_stream_gives_only_text_that_was_sent",
            f"{_FUZZ}::test_where_a_stream_is_cut_makes_no_difference",
            f"{_FUZZ}::test_a_whole_reply_is_an_answer_or_our_error",
            f"{_FUZZ}::test_of_a_broken_text_no_other_call_is_made",
            f"{_FUZZ}::test_any_schema_is_rewritten_or_refused",
        ],
    ),
]

_HEAD = """# What becomes of each failure

Each row is a failure that `workersai serve --fault FAULT` produces, and `LocalServer(faults=...)`. It is met by a whole
call and by a stream, sync and async, through LangChain and through LlamaIndex: eight cells, each of them a test, such
as `tests/test_reliability.py::test_each_failure_is_told[3040-langchain-async-stream]`. This page is written by
`python -m tests.reliability`, and a test holds it to the table that the cells are checked against. The later tables
list what holds beyond single failures, each row with its tests.

- **error**: the class of `workersai.errors`. Through LangChain it is LangChain's own as well, in the table below.
- **requests**: how many are sent where each meets the fault, with `max_retries=1`: 2 are a retry. Nothing is tried
  again once a piece of a stream was handed over.
- **partial**: the error holds the text that had come.
- **connection**: *kept* is used again for the next call, *closed* is not; *either*, by whether the
  end of the body had come as well. In each cell the next call succeeds.
- **ended by**: what bounds the time of an attempt: the *reply* itself, or its end, or `timeout`. It is proved by the
  error's words, which say what ended the wait: whatever else could end it is a hundred times longer.

"""

_COLUMNS = """\
| fault | what happens | error: whole | stream | requests: whole | stream | connection: whole | stream | ended by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

_DEADLINE = """
## With a deadline

`deadline` bounds the call as a whole, whatever its attempts are at: here it comes long before `timeout`. The cells are
the tests `tests/test_reliability.py::test_a_deadline_is_kept`.

"""

_OTHERS = """
## Under load, and at the edges

| what | tests |
| --- | --- |
"""

_CLASSES = """
## LangChain's own classes

| error | LangChain's own |
| --- | --- |
"""


SECTIONS = (*guarantees_calls.SECTIONS, *guarantees_jobs.SECTIONS)


def page() -> str:
    """The page, as the repository has it."""
    classes = [f"| `{ours}` | `{theirs}` |" for ours, theirs in LANGCHAIN.items()]
    table, late = _table(CASES, "`timeout`"), _table(DEADLINE_CASES, "`deadline`")
    others = [f"| {what} | {_links(tests)} |\n" for what, tests in OTHERS]
    sections = "".join(_section(section) for section in SECTIONS)
    return (
        _HEAD + table + _DEADLINE + late + _OTHERS + "".join(others) + sections + _CLASSES + "\n".join(classes) + "\n"
    )


def named_tests() -> list[str]:
    """The tests that the page names beside those of its cells: a file and a function, or a file alone."""
    named = [test for _, tests in OTHERS for test in tests]
    named += [test for section in SECTIONS for row in section.rows for test in row.tests]
    return list(dict.fromkeys(named))


def _section(section: Section) -> str:
    columns = (*section.columns, "tests")
    lines = [columns, ("---",) * len(columns), *((*row.cells, _links(row.tests)) for row in section.rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"\n## {section.title}\n\n{_wrapped(section.text)}\n\n{table}"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def _links(tests: Iterable[str]) -> str:
    return ", ".join(f"`{test}`" for test in tests) or "none yet"


def _table(cases: list[Case], bound: str) -> str:
    rows = [
        f"| `{case.fault}` | {case.what} | {' | '.join(_cells(case))} | {'reply' if case.whole.in_time else bound} |\n"
        for case in cases
    ]
    return _COLUMNS + "".join(rows)


def _cells(case: Case) -> list[str]:
    outcomes = (case.whole, case.stream)
    return [
        *(_error(outcome) for outcome in outcomes),
        *(str(outcome.requests) for outcome in outcomes),
        *({True: "kept", False: "closed", None: "either"}[outcome.kept] for outcome in outcomes),
    ]


def _error(outcome: Outcome) -> str:
    if outcome.error == ANSWER:
        return ANSWER
    return f"`{outcome.error}`{', with the partial' if outcome.partial else ''}"


if __name__ == "__main__":
    PAGE.write_text(page())
