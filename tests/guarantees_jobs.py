"""What holds for budgets, batch jobs and the local server: tables of ``docs/reliability.md``."""

from __future__ import annotations

from tests.guarantees import HERE, Section, new_row

_BILLING = f"{HERE}/test_billing.py"
_COSTS = f"{HERE}/test_costs.py"
_TOKENS = f"{HERE}/test_tokens.py"
_PROTOCOL = f"{HERE}/protocol"
_BATCH = f"{HERE}/batch"
_COMMANDS = f"{HERE}/commands"
_FILES = f"{HERE}/batch/test_journal_files.py"
_RESTARTS = f"{HERE}/batch/test_restarts.py"
_INTAKE = f"{HERE}/local/test_intake.py"
_DOOR = f"{HERE}/local/test_door.py"
_LLAMA = f"{HERE}/local/test_llama.py"

_FREE = f"{_BILLING}::test_what_was_surely_refused_costs_nothing"
_BILLED = f"{_BILLING}::test_what_may_have_been_billed_counts_as_much_as_it_may_cost"
_RULE = f"{_BILLING}::test_the_rule_for_what_no_fault_shows"

BUDGETS = Section(
    "Budgets",
    (
        "Cloudflare doesn't publish which failed requests it bills. A budget counts the most that a failure may have "
        "cost, unless the request surely never reached a model. "
        "[Cost](guides/cost.md#failures-that-may-have-been-billed) explains the rule."
    ),
    ("the request", "counts against a budget"),
    (
        new_row("found no connection", "no", tests=(f"{_BILLING}::test_what_never_reached_a_server_costs_nothing",)),
        new_row(
            "was refused with a 3xx or 4xx other than 408, also out of capacity (3040)", "no", tests=(_FREE, _RULE)
        ),
        new_row("failed at Cloudflare with 521, 523, 525 or 526", "no", tests=(_FREE,)),
        new_row(
            "was answered from an AI Gateway's cache",
            "no",
            tests=(f"{HERE}/test_gateway.py::test_an_answer_from_its_cache_is_told_and_costs_nothing",),
        ),
        new_row("timed out at the service: 408, codes 3007, 3008 and 3046", "yes", tests=(_BILLED,)),
        new_row("failed with 500, 502, 503, 504, 520, 522, 524 or another 5xx", "yes", tests=(_BILLED,)),
        new_row(
            "could not be answered in JSON Mode (5024), or was blocked by a guardrail (2017)", "yes", tests=(_RULE,)
        ),
        new_row("got a 200 that is empty or unreadable, or reports another failure", "yes", tests=(_BILLED,)),
        new_row(
            "was interrupted during its stream, after the first text",
            "yes",
            tests=(_BILLED, f"{_BILLING}::test_usage_of_a_stream_that_breaks_off_is_the_least_that_it_cost"),
        ),
        new_row(
            "timed out here, lost its connection or was cancelled",
            "yes",
            tests=(_BILLED, f"{_COSTS}::test_a_task_that_is_cancelled_may_have_cost_something"),
        ),
        new_row(
            "is a retry of any of these",
            "yes, again",
            tests=(f"{_BILLING}::test_each_retry_is_held_to_the_budget",),
        ),
        new_row(
            "succeeded, without the extra `tokens`",
            "its cost; before, an upper bound that holds for every text",
            tests=(
                f"{_BILLING}::test_without_the_tokenizer_a_budget_is_a_bound",
                f"{_PROTOCOL}/test_token_bounds.py::test_the_bounds_hold_for_every_text",
                f"{_TOKENS}::test_without_the_extra_a_prompt_is_between_the_bounds",
            ),
        ),
    ),
)

JOURNALS = Section(
    "Batch jobs and journals",
    "`workersai batch` and `Client.batch` keep each answer in a journal, from which a job continues.",
    ("what", "what happens"),
    (
        new_row(
            "the journal is deleted, renamed or replaced while its job runs",
            "`JournalError` at the next write; no answer is lost, and the journal is restored",
            tests=(f"{_FILES}::test_a_journal_taken_away_stops_the_job_and_loses_no_answer",),
        ),
        new_row(
            "the journal's folder is moved",
            "`JournalError`; all answers are in the moved journal",
            tests=(f"{_FILES}::test_a_journal_whose_folder_is_moved_has_all_answers_there",),
        ),
        new_row(
            "the journal's folder is deleted",
            "`JournalError`, which says that the answers of this run are lost",
            tests=(f"{_FILES}::test_a_journal_that_cannot_be_restored_is_said_to_be_lost",),
        ),
        new_row(
            "the journal is damaged",
            "`JournalError`, and never fewer or other results",
            tests=(
                f"{_FILES}::test_a_damaged_journal_is_an_error_or_gives_what_was_written",
                f"{_FILES}::test_whatever_is_wrong_in_a_journal_is_an_error_of_the_journal",
            ),
        ),
        new_row(
            "other users of the machine",
            "they can't read the journal (mode 0600)",
            tests=(f"{_FILES}::test_only_its_owner_can_read_any_file_of_a_journal",),
        ),
        new_row(
            "Ctrl-C, SIGTERM or SIGHUP",
            "calls in progress finish, `resume` continues; exit code 130, 143 or 129",
            tests=(
                f"{_COMMANDS}/test_batch_signals.py::test_a_signal_ends_a_job_as_ctrl_c_does",
                f"{_COMMANDS}/test_batch_signals.py::test_a_job_whose_terminal_is_closed_keeps_what_it_paid_for",
            ),
        ),
        new_row(
            "a second signal",
            "calls in progress are interrupted",
            tests=(f"{_COMMANDS}/test_batch_signals.py::test_a_second_signal_interrupts_what_is_in_progress",),
        ),
        new_row(
            "the process is killed",
            "no row is lost; what it was sending counts against `--budget`, up to its maximum",
            tests=(
                f"{_BATCH}/test_journal.py::test_a_job_whose_process_is_killed_loses_no_row",
                f"{_RESTARTS}::test_what_may_be_billed_is_known_after_a_kill",
                f"{_RESTARTS}::test_the_budget_of_a_whole_job_is_kept_over_kills_and_lost_replies",
            ),
        ),
        new_row(
            "the disk is full",
            "an error; the job continues later",
            tests=(f"{_BATCH}/test_journal.py::test_a_full_disk_is_told_and_the_job_goes_on_later",),
        ),
        new_row(
            "a job without an answer, and without a request that may be billed",
            "it can be started again with other options",
            tests=(
                f"{_RESTARTS}::test_a_job_that_came_to_nothing_is_started_over_with_other_options",
                f"{_RESTARTS}::test_a_job_that_may_be_billed_is_not_started_over",
            ),
        ),
        new_row(
            "a value that the output's format can't hold",
            "it is written as text, with a warning that names the column",
            tests=(
                f"{_COMMANDS}/test_tables.py::test_what_a_format_cannot_hold_is_written_in_another_form_with_one_warning",
                f"{_COMMANDS}/test_tables.py::test_any_row_and_any_answer_can_be_written_and_read",
            ),
        ),
        new_row(
            "an empty table, two columns of one name, or an output that can't be written",
            "an error before anything is sent",
            tests=(
                f"{_COMMANDS}/test_batch.py::test_a_table_without_rows_is_an_error_before_anything_is_made",
                f"{_COMMANDS}/test_batch.py::test_an_output_that_can_not_be_written_is_an_error_before_anything_is_sent",
                f"{_COMMANDS}/test_tables.py::test_two_columns_of_one_name_are_an_error",
            ),
        ),
    ),
)

LOCAL_SERVER = Section(
    "The local server",
    "What the [local server](guides/local-server.md) does about requests, pages and schemas that would harm it.",
    ("what", "what happens"),
    (
        new_row(
            "a web page of another origin, or a `Host` that isn't the server's",
            "status 403, code 10000, on each route",
            tests=(
                f"{_DOOR}::test_each_route_refuses_another_host_and_another_origin",
                f"{_DOOR}::test_a_page_of_another_origin_is_refused_with_the_right_token",
            ),
        ),
        new_row(
            "`X-Forwarded-For`",
            "ignored",
            tests=(f"{_DOOR}::test_the_clients_address_is_the_connections_whatever_a_header_says",),
        ),
        new_row(
            "a wrong token, host or route",
            "the request is recorded without its body, and uses up no fault",
            tests=(
                f"{_DOOR}::test_the_body_of_a_request_that_may_not_come_in_is_neither_parsed_nor_kept",
                f"{_DOOR}::test_a_stranger_uses_up_no_fault",
            ),
        ),
        new_row(
            "a head that is not complete after 10 s, or a body that pauses for 30 s",
            "status 408, code 3007, and the connection is closed",
            tests=(
                f"{_INTAKE}::test_a_head_that_is_never_completed_has_a_time_limit",
                f"{_INTAKE}::test_a_head_that_comes_byte_by_byte_has_the_same_limit",
                f"{_INTAKE}::test_a_body_that_never_comes_is_given_up",
                f"{_INTAKE}::test_a_body_that_comes_too_slowly_is_given_up",
            ),
        ),
        new_row(
            "more connections than the process may open files for",
            "the connection that has waited longest for a head is closed",
            tests=(f"{_INTAKE}::test_connections_that_wait_make_room_for_others",),
        ),
        new_row(
            "many or large requests",
            "`server.requests` keeps the newest, at most 64 MiB (`log_bytes`)",
            tests=(f"{_INTAKE}::test_the_log_keeps_so_many_bytes_and_always_the_newest",),
        ),
        new_row(
            "a schema that would make too large a grammar",
            "status 400, code 5024, with the bound",
            tests=(
                f"{HERE}/local/test_schema_bounds.py::test_a_schema_beyond_a_bound_is_5024_with_the_bound",
                f"{HERE}/local/test_schema_bounds.py::test_no_schema_ends_llama_cpp",
            ),
        ),
        new_row(
            "llama.cpp crashes",
            "status 500 for the calls in progress; the next call starts it again",
            tests=(f"{_LLAMA}::test_a_crash_fails_the_calls_in_progress_and_no_other",),
        ),
        new_row(
            "the server is closed, or its program is killed",
            "llama.cpp's process ends as well",
            tests=(
                f"{_LLAMA}::test_closing_the_server_ends_the_process",
                f"{_LLAMA}::test_a_host_that_is_killed_leaves_no_process_behind",
            ),
        ),
    ),
)

SECTIONS = (BUDGETS, JOURNALS, LOCAL_SERVER)
