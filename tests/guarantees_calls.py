"""What holds for single calls and their connections: tables of ``docs/reliability.md``."""

from __future__ import annotations

from tests.guarantees import HERE, Section, new_row

_ABANDONED = f"{HERE}/transport/test_abandoned_streams.py"
_LIMITS = f"{HERE}/transport/test_time_limits.py"
_BOUNDS = f"{HERE}/transport/test_reply_bounds.py"
_CONNECTING = "tests/workersai/transport/test_connecting.py"
_PROXIES = "tests/workersai/transport/test_broken_proxies.py"
_INTERRUPTIONS = "tests/workersai/transport/test_interruptions.py"
_STRAY = f"{HERE}/transport/test_stray_replies.py"
_TOKEN = f"{HERE}/transport/test_token.py"
_DEADLINE = f"{HERE}/test_deadline.py"
_CLIENTS = f"{HERE}/test_clients.py"
_POOLS = f"{HERE}/test_pools.py"
_PACING = f"{HERE}/test_pacing.py"
_CLOSING = f"{HERE}/test_closing.py"
_COSTS = f"{HERE}/test_costs.py"
_WINDOW = f"{HERE}/test_window.py"
_PROTOCOL = f"{HERE}/protocol"

HANGS = Section(
    "Hangs and leaks",
    (
        "The garbage collector and signal handlers can run at any line of a program. The code that they start here "
        "takes no lock and doesn't wait."
    ),
    ("what", "what happens"),
    (
        new_row(
            "A stream is left without closing it, and collected at any line, in any thread",
            "its connection ends at once, and no call hangs",
            tests=(
                f"{_ABANDONED}::test_streams_may_be_collected_at_any_allocation",
                f"{_ABANDONED}::test_the_connection_of_an_abandoned_stream_ends_at_once",
                f"{_ABANDONED}::test_an_error_of_the_callers_own_leaves_the_stream_to_the_collector",
            ),
        ),
        new_row(
            "The same over your own `httpx.Client`",
            "its connection ends at once; a clean-up thread removes it from httpx's pool a moment later",
            tests=(f"{_ABANDONED}::test_a_client_of_the_callers_own_is_safe_as_well",),
        ),
        new_row(
            "The cost of such a stream",
            "counted as an unpriced call; `CostTracker` waits for the clean-up thread when it is read",
            tests=(
                f"{_ABANDONED}::test_what_an_abandoned_stream_may_have_cost_is_counted",
                f"{_COSTS}::test_a_stream_that_the_garbage_collector_ends_does_not_block",
            ),
        ),
        new_row(
            "Very many such streams",
            "about 256 wait for the clean-up thread; beyond that, the next calls do its work",
            tests=(f"{_ABANDONED}::test_ends_that_wait_stay_bounded",),
        ),
        new_row(
            "A web app whose browsers leave during streams",
            "it continues to answer",
            tests=(f"{_ABANDONED}::test_a_web_app_survives_browsers_that_leave",),
        ),
        new_row(
            "A signal handler raises at any line (Ctrl-C, SIGALRM)",
            "no lock and no connection is lost, and later calls succeed",
            tests=(
                f"{_ABANDONED}::test_a_signal_handler_may_raise_at_any_line",
                f"{_PACING}::test_an_interrupt_anywhere_leaves_the_lock_free_and_the_line_in_order",
            ),
        ),
        new_row(
            "A task is cancelled at any moment",
            "its connection is closed or used again, and never lost",
            tests=(f"{_POOLS}::test_a_task_that_is_cancelled_at_any_moment_gives_its_connection_back",),
        ),
        new_row(
            "A client is closed during calls",
            "they end at once with `APIConnectionError`, also calls that wait for a connection or a retry",
            tests=(
                f"{_CLOSING}::test_a_run_ends_when_another_thread_closes_its_client",
                f"{_CLOSING}::test_calls_that_wait_for_a_connection_end_as_well",
                f"{_CLOSING}::test_a_call_that_waits_for_its_retry_ends_without_it",
            ),
        ),
        new_row(
            "A wait for a connection or a result has a short limit, on a busy machine",
            "it ends at its limit",
            tests=("tests/workersai/test_wait_queue.py::test_a_wait_ends_however_short_it_is",),
        ),
        new_row(
            "A process forks during calls",
            "the child leaves its parent's streams open, and finds no lock taken",
            tests=(
                f"{_INTERRUPTIONS}::test_a_forked_child_leaves_the_streams_of_its_parent_alone",
                f"{_INTERRUPTIONS}::test_a_forked_child_finds_no_tracker_locked",
            ),
        ),
        new_row(
            "Thousands of calls that wait for a rate limit are cancelled",
            "the work for each doesn't grow with their number",
            tests=(
                f"{_PACING}::test_who_leaves_costs_no_more_in_a_long_line",
                f"{_PACING}::test_joining_costs_the_same_in_a_long_line",
            ),
        ),
        new_row(
            "Long tool calls in text, stop strings, schemas and conversations",
            "the work grows in proportion to their length",
            tests=(
                f"{_PROTOCOL}/test_leaks.py::test_a_text_is_read_in_a_time_in_proportion_to_it",
                f"{_PROTOCOL}/test_stop.py::test_a_text_is_searched_in_a_time_in_proportion_to_it",
                f"{_PROTOCOL}/test_schema.py::test_a_schema_is_rewritten_in_a_time_in_proportion_to_it",
                f"{_WINDOW}::test_finding_the_turns_takes_a_time_in_proportion_to_the_conversation",
            ),
        ),
        new_row(
            "The token, also after an error, a cancelled call or Ctrl-C",
            "it is in no frame's variables, `repr`, `args` or `vars`",
            tests=(_TOKEN, "tests/test_secrets.py"),
        ),
    ),
)

_EACH = "`timeout`, `deadline`"
_CONNECT = "10 s, `timeout` or `deadline`, for all steps together"
_HTTPX_CONNECT = "10 s or `timeout`, for each step; `deadline`"
_OWN_WAIT = "each wait alone: `timeout`, or what was left of `deadline`"

TIME_LIMITS = Section(
    "Time limits by phase",
    (
        "`timeout` limits each wait, `deadline` the whole call. The shorter of them ends a phase. *httpx, async* is "
        '`http_client="httpx"` or your own `httpx.AsyncClient`. With your own `httpx.Client`, a call can outlast its '
        "`deadline`: httpx offers no limit for the look-up of a host, nor for a head that is sent byte by byte. The "
        "last column shows the limits of such a call."
    ),
    ("phase", "sync, async", "httpx, async", "your own `httpx.Client`"),
    (
        new_row(
            "turn of a `rate_limit`",
            *["`deadline`: an error at once if the turn comes too late"] * 3,
            tests=(f"{_PACING}::test_a_thread_does_not_wait_for_a_turn_that_is_refused",),
        ),
        new_row(
            "wait for a free connection",
            *["`deadline`"] * 3,
            tests=(f"{_DEADLINE}::test_the_deadline_bounds_the_wait_for_a_connection_too",),
        ),
        new_row(
            "looking up the host",
            _CONNECT,
            _HTTPX_CONNECT,
            "the operating system",
            tests=(f"{_CONNECTING}::test_a_resolver_that_takes_its_time_is_ended_by_the_deadline",),
        ),
        new_row(
            "connecting to one of several addresses",
            f"{_CONNECT}; each next address is tried after 0.25 s, in parallel",
            _HTTPX_CONNECT,
            "each address alone",
            tests=(
                f"{_CONNECTING}::test_the_next_address_is_tried_when_one_doesn_t_answer",
                f"{_CONNECTING}::test_addresses_that_never_answer_end_with_the_deadline",
            ),
        ),
        new_row(
            "handshake with a proxy", _CONNECT, "`timeout` for each wait; `deadline`", _OWN_WAIT, tests=(_PROXIES,)
        ),
        new_row(
            "TLS handshake",
            _CONNECT,
            _HTTPX_CONNECT,
            _OWN_WAIT,
            tests=(_LIMITS, f"{HERE}/test_tls.py::test_a_deadline_is_kept_over_tls"),
        ),
        new_row("sending the request", _EACH, _EACH, _OWN_WAIT, tests=(_LIMITS,)),
        new_row("interim replies (status 1xx)", _EACH, _EACH, _OWN_WAIT, tests=(_LIMITS,)),
        new_row(
            "head of the reply",
            _EACH,
            _EACH,
            _OWN_WAIT,
            tests=(_LIMITS, f"{_DEADLINE}::test_a_server_that_says_nothing"),
        ),
        new_row(
            "body",
            _EACH,
            _EACH,
            "`timeout`; `deadline`, checked at each piece that is received",
            tests=(
                _LIMITS,
                f"{_DEADLINE}::test_a_body_that_stalls",
                f"{_DEADLINE}::test_who_sends_a_byte_now_and_then_meets_the_deadline",
            ),
        ),
        new_row("decompression", *["`deadline`, checked every 64 KiB"] * 3, tests=(_LIMITS, _BOUNDS)),
        new_row(
            "a stream's reader, between two deltas",
            *["`deadline`, checked before each delta; `partial` holds all that was received"] * 3,
            tests=(
                f"{_DEADLINE}::test_the_readers_own_time_counts_and_what_was_received_is_in_the_error",
                f"{_DEADLINE}::test_a_burst_of_deltas_does_not_outlast_the_deadline",
            ),
        ),
        new_row(
            "end of the body, after `[DONE]`",
            *["0.1 s; the answer is complete"] * 2,
            "`timeout` or `deadline`; the answer is complete",
            tests=(f"{_DEADLINE}::test_after_the_whole_answer_nothing_is_waited_for",),
        ),
        new_row(
            "wait before a retry",
            *["`deadline`: no retry if it leaves no time"] * 3,
            tests=(f"{_DEADLINE}::test_a_retry_that_the_deadline_leaves_no_time_for_is_not_waited_for",),
        ),
    ),
)

BOUNDS = Section(
    "Bounds of a reply",
    (
        "A server or a proxy that doesn't stop sending can't fill the memory. If such an error ends a stream, its "
        "`partial` holds what was received before. The last two rows are about schemas that you send, and vectors."
    ),
    ("what", "bound", "beyond it"),
    (
        new_row(
            "a reply, after decompression",
            "`max_reply_bytes`. Default: 67,108,864 (64 MiB)",
            "`ServerError`, not retried",
            tests=(_BOUNDS,),
        ),
        new_row(
            "one step of decompression", "64 KiB", "the next step, after a check of size and deadline", tests=(_BOUNDS,)
        ),
        new_row("`content-encoding`", "gzip, deflate or none", "`ServerError`, not retried", tests=(_BOUNDS,)),
        new_row(
            "a head, with the interim replies before it",
            "131,072 bytes, checked after each read of up to 256 KiB; with httpx, about 100 KiB for each head",
            "`APIConnectionError`; with httpx, only the deadline ends interim replies that don't stop",
            tests=(_LIMITS,),
        ),
        new_row(
            "what frames the chunks of a body",
            "1 MiB, and 16 bytes for each byte of the body; with httpx, about 100 KiB for each chunk",
            "`APIConnectionError`, for a stream `StreamInterruptedError`; with httpx, only the deadline ends trailers",
            tests=(_LIMITS,),
        ),
        new_row("one event of a stream", "4,194,304 bytes (4 MiB)", "`ServerError`, not retried", tests=(_BOUNDS,)),
        new_row(
            "lists and objects in each other",
            "200 levels, on each Python",
            "`ServerError`",
            tests=(
                f"{_PROTOCOL}/test_surrogates.py::test_a_nested_reply_with_a_half_is_an_error_of_ours",
                f"{_PROTOCOL}/test_surrogates.py::test_a_half_makes_no_difference_to_how_deep_a_value_may_be",
            ),
        ),
        new_row(
            "a schema of yours, once written out",
            "10,000 parts, 64 levels, 5,000,000 characters, 256 references in a chain",
            "`BadRequestError` that names the bound; nothing is sent",
            tests=(
                f"{_PROTOCOL}/test_schema.py::test_a_schema_that_grows_without_end_is_refused",
                f"{_PROTOCOL}/test_schema.py::test_a_small_schema_of_a_huge_one_is_refused_before_it_is_made",
            ),
        ),
        new_row(
            "indices of vectors",
            "each text's index once",
            "`ServerError`, if one is missing, repeated, out of range or not an integer",
            tests=(f"{_PROTOCOL}/test_embeddings.py::test_vectors_come_in_the_order_of_their_places_or_not_at_all",),
        ),
    ),
)

CONNECTIONS = Section(
    "Connections",
    (
        "A connection is used again only if its reply ended as announced and not a byte followed it. Otherwise, one "
        'call could be given the reply of another. This holds for sync and async calls and for `http_client="httpx"`. '
        "A client of your own follows httpx's rules."
    ),
    ("what the server or the network does", "what happens"),
    (
        new_row(
            "a second reply after the first", "the connection is closed; the next call uses another", tests=(_STRAY,)
        ),
        new_row("a body after status 204 or 304", "the same", tests=(_STRAY,)),
        new_row("bytes on an idle connection", "the same", tests=(_STRAY,)),
        new_row("two different `content-length` headers", "`APIConnectionError`", tests=(_STRAY,)),
        new_row(
            "two equal `content-length` headers, or `content-length` with `transfer-encoding`",
            "`APIConnectionError`; httpx accepts such a reply",
            tests=("tests/workersai/transport/test_http1_refusals.py::test_what_has_no_certain_meaning_is_refused",),
        ),
        new_row(
            "a reader that leaves a stream, or a call that is cancelled",
            "the connection is closed",
            tests=(
                f"{_CLIENTS}::test_leaving_a_stream_early_closes_its_connection_and_leaves_the_client_usable",
                f"{_CLIENTS}::test_a_cancelled_task_closes_its_connection",
            ),
        ),
        new_row(
            "a proxy in `HTTPS_PROXY` or `ALL_PROXY`",
            "calls go through it, unless `NO_PROXY` names the host",
            tests=(f"{_CLIENTS}::test_a_proxy_in_the_environment_is_honoured",),
        ),
        new_row(
            "a proxy that refuses, fails or can't be reached",
            "an error that says so and shows no password; a refusal has the proxy's status",
            tests=(
                f"{_PROXIES}::test_a_proxy_that_fails_is_an_error_that_says_why",
                f"{_PROXIES}::test_a_socks_proxy_that_fails_is_an_error_that_says_why",
                f"{_PROXIES}::test_a_proxy_that_can_t_be_reached_is_an_error",
            ),
        ),
        new_row(
            "several addresses, of which some refuse, don't answer or are of a family that this machine lacks",
            "the next one is tried; if none is left, `APIConnectionError`",
            tests=(
                f"{_CONNECTING}::test_the_next_address_is_tried_when_one_refuses",
                f"{_CONNECTING}::test_an_address_of_a_family_that_this_machine_lacks_is_passed_over",
                f"{_CONNECTING}::test_it_is_an_error_when_all_refuse",
            ),
        ),
        new_row(
            "a slow look-up of a host",
            "other async calls continue",
            tests=(f"{_CONNECTING}::test_a_resolver_that_takes_its_time_holds_up_no_other_call",),
        ),
        new_row(
            "a reply before the end of the upload, such as 413",
            "the reply is read; its connection is closed",
            tests=(f"{_INTERRUPTIONS}::test_a_reply_that_comes_before_the_end_of_the_upload_is_read",),
        ),
        new_row(
            "a service on this machine, with a proxy set",
            "it is reached directly",
            tests=(f"{_CLIENTS}::test_this_machine_is_reached_without_a_proxy",),
        ),
    ),
)

SECTIONS = (HANGS, TIME_LIMITS, BOUNDS, CONNECTIONS)
