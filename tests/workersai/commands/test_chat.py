"""``workersai chat``: in a pipe, and at a terminal with real keys."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import Serve
from tests.thoughts import ONLY_THOUGHTS, in_turn, thinking
from tests.workersai.commands.running import (
    COMMAND,
    CTRL_D,
    PATIENCE,
    at_terminal,
    complaint_of,
    finished,
    towards,
    wait_until_idle,
)
from workersai.local import Answer, Gate, LocalServer, Refusal
from workersai.local.engine import Usage

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
FAILURE = Refusal(5006, "No such thing", 400)


def said_to(server: LocalServer) -> list[tuple[str, str]]:
    """The last conversation that the server was asked with."""
    return [(message["role"], message["content"]) for message in server.requests[-1].body["messages"]]


def user(text: str) -> tuple[str, str]:
    return "user", text


def assistant(text: str) -> tuple[str, str]:
    return "assistant", text


def test_each_line_is_a_question_of_one_conversation(serve: Serve) -> None:
    server = serve(["One.", "Two."])
    done = finished("chat", "--system", "Be brief.", environment=towards(server), typed="first\n\n  \nsecond")
    assert (done.returncode, done.stdout, done.stderr) == (0, "One.\nTwo.\n", "")
    assert said_to(server) == [("system", "Be brief."), user("first"), assistant("One."), user("second")]


def test_the_options_are_sent(serve: Serve) -> None:
    server = serve("Yes.")
    given = ("-m", "@cf/example/model", "--temperature", "0.1", "--max-tokens", "7")
    finished("chat", *given, environment=towards(server), typed="hi\n")
    (request,) = server.requests
    assert request.path.endswith("/@cf/example/model")
    assert (request.body["temperature"], request.body["max_tokens"], request.body["stream"]) == (0.1, 7, True)


def test_a_chat_stays_with_one_instance_and_goes_through_the_gateway(serve: Serve) -> None:
    server = serve(["One.", "Two."])
    done = finished("chat", "--gateway", "gw", environment=towards(server), typed="first\nsecond")
    assert done.returncode == 0
    headers = [record.headers for record in server.requests]
    assert [each["cf-aig-gateway-id"] for each in headers] == ["gw", "gw"]
    assert headers[0]["x-session-affinity"] == headers[1]["x-session-affinity"] != "auto"


def test_reset_forgets_the_conversation_but_not_the_system_message(serve: Serve) -> None:
    server = serve("Yes.")
    finished("chat", "--system", "Be brief.", environment=towards(server), typed="first\n/reset\nsecond\n")
    assert said_to(server) == [("system", "Be brief."), user("second")]


def test_help_lists_what_else_there_is_and_asks_nothing(serve: Serve) -> None:
    server = serve("Yes.")
    done = finished("chat", environment=towards(server), typed="/help\n")
    assert (done.returncode, done.stdout, server.requests) == (0, "", [])
    assert "/reset" in done.stderr


def test_a_command_that_there_is_not_is_told_and_not_asked(serve: Serve) -> None:
    server = serve("Yes.")
    done = finished("chat", environment=towards(server), typed="/clear\n/etc/hosts is what?\n")
    assert (done.stdout, said_to(server)) == ("Yes.\n", [user("/etc/hosts is what?")])
    assert "There is no /clear; /help lists what there is." in done.stderr


def test_the_first_failure_in_a_pipe_ends_the_command(serve: Serve) -> None:
    server = serve(["One.", FAILURE, "Three."])
    done = finished("chat", environment=towards(server), typed="first\nsecond\nthird\n")
    assert (done.returncode, done.stdout) == (1, "One.\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("No such thing. Correct what it names. (HTTP 400, code 5006")
    assert len(server.requests) == 2


def test_a_stream_that_fails_midway_shows_what_came(serve: Serve) -> None:
    server = serve([Answer("It was a", failure=FAILURE)])
    done = finished("chat", environment=towards(server), typed="first\n")
    assert (done.returncode, done.stdout) == (1, "It was a\n")
    assert "No such thing" in done.stderr


def test_a_retry_is_told(serve: Serve) -> None:
    server = serve([Refusal(3040, "Out of capacity", 429), "Yes."])
    done = finished("chat", environment=towards(server), typed="first\n")
    assert (done.returncode, done.stdout) == (0, "Yes.\n")
    assert done.stderr.startswith("Trying again in ")


def test_a_wrong_token_is_one_line(serve: Serve) -> None:
    environment = {**towards(serve("Yes.")), "CLOUDFLARE_API_TOKEN": "wrong"}
    complaint = complaint_of(finished("chat", environment=environment, typed="hi\n"))
    assert complaint.startswith("Authentication error. Check CLOUDFLARE_API_TOKEN")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--max-tokens", "0", "max_tokens: must be at least 1, got 0."),
        ("--temperature", "6", "temperature: must be between 0 and 5, got 6.0."),
        ("-m", "llama", "model: must be a model's full name"),
    ],
)
def test_an_option_out_of_range_is_told_before_the_first_question(
    serve: Serve, option: str, value: str, says: str
) -> None:
    server = serve("Yes.")
    assert complaint_of(finished("chat", option, value, environment=towards(server))).startswith(says)


def test_markup_and_escapes_of_an_answer_are_text_in_a_pipe(serve: Serve) -> None:
    server = serve([Answer(pieces=["[bold]hi[/bold] ", "\x1b[31mred\x07"])])
    assert finished("chat", environment=towards(server), typed="hi\n").stdout == "[bold]hi[/bold] \x1b[31mred\x07\n"


def test_what_the_encoding_of_stdout_can_not_hold_is_written_as_its_number(serve: Serve) -> None:
    environment = {**towards(serve("Zoë €")), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(  # noqa: S603
        [*COMMAND, "chat"], input=b"hi\n", capture_output=True, timeout=PATIENCE, check=True, env=environment
    )
    assert done.stdout == b"Zo\xeb \\u20ac\n"


def test_a_line_that_is_not_utf_8_is_told_with_its_number(serve: Serve) -> None:
    server = serve("Yes.")
    done = finished("chat", environment=towards(server), typed=b"first\n\xff\xfe\n")
    assert (done.returncode, done.stdout) == (1, "Yes.\n")
    assert done.stderr == "Line 2 of standard input is not UTF-8. Convert it to UTF-8 first.\n"


def test_a_reader_that_leaves_ends_the_command_without_a_word(serve: Serve) -> None:
    server = serve("One.")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(  # noqa: S603
            [*COMMAND, "chat"],
            input=b"first\nsecond\n",
            stdout=nobody,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
            env=towards(server),
        )
    assert (done.returncode, done.stderr, len(server.requests)) == (1, b"", 1)


def test_ctrl_c_in_a_pipe_ends_the_command_with_130(serve: Serve) -> None:
    gate = Gate()
    server = serve([Answer("One. Two.", hold={1: gate})])
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it runs in the background ignore it
    process = subprocess.Popen(  # noqa: S603
        [*COMMAND, "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=towards(server),
    )
    signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"first\n")
        process.stdin.flush()
        assert process.stdout.read(4) == b"One."
        wait_until_idle(process)
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, complaints) == (130, b"\n", b"")


def test_json_mode_prints_each_object_indented(serve: Serve, tmp_path: Path) -> None:
    schema = tmp_path / "person.json"
    schema.write_text(json.dumps(PERSON))
    server = serve([Answer(object={"name": "Zoë"}), Answer(object={"name": "Ann"})])
    done = finished("chat", "--json-schema", str(schema), environment=towards(server), typed="first\nsecond\n")
    assert (done.stdout, done.stderr) == ('{\n  "name": "Zoë"\n}\n{\n  "name": "Ann"\n}\n', "")
    assert said_to(server) == [user("first"), assistant('{"name": "Zoë"}'), user("second")]
    asked: dict[str, Any] = server.requests[-1].body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["required"] == ["name"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "Can't read {}: No such file or directory."),
        ('{"type": ', "No JSON can be read from {}: Expecting value: line 1 column 10 (char 9)."),
        ("[" * 100_000, "No JSON can be read from {}: "),
        ("[1]", "response_format: json_schema must be a JSON Schema, not list."),
    ],
    ids=["missing", "cut", "deep", "list"],
)
def test_a_schema_that_can_not_be_used_is_one_line(
    serve: Serve, tmp_path: Path, content: str | None, says: str
) -> None:
    server, schema = serve("Yes."), tmp_path / "schema.json"
    if content is not None:
        schema.write_text(content)
    complaint = complaint_of(finished("chat", "--json-schema", str(schema), environment=towards(server), typed="hi\n"))
    assert complaint.startswith(says.format(schema))
    assert server.requests == []


def test_turns_that_were_left_out_and_an_answer_that_was_cut_are_told(serve: Serve) -> None:
    server = serve([Answer("One."), *(Answer(text, finish_reason="length") for text in ("Two", "Three."))])
    long = "word " * 15_000
    given = ("--max-tokens", "5")
    done = finished("chat", *given, environment=towards(server), typed=f"{long}\n{long}\nlast\n")
    assert (done.returncode, done.stdout) == (0, "One.\nTwo\nThree.\n")
    left_out = "2 of the oldest messages were left out, so that the rest fitted the window."
    cut = "The answer is cut off: it took all the tokens that it may (--max-tokens)."
    assert done.stderr.splitlines() == [left_out, cut, left_out, cut]


def test_reasoning_is_not_shown_and_an_answer_of_nothing_else_is_a_notice(serve: Serve) -> None:
    server = serve(in_turn(thinking("Hm.", text="One."), ONLY_THOUGHTS, thinking("Hm.", text="Two.")))
    done = finished("chat", environment=towards(server), typed="first\nsecond\nthird\n")
    assert (done.returncode, done.stdout) == (0, "One.\nTwo.\n")
    assert done.stderr.splitlines() == [
        "The model used all its tokens for thinking and wrote no answer. Allow it more with --max-tokens."
    ]
    assert said_to(server) == [user("first"), assistant("One."), user("third")]


def test_a_chat_at_a_terminal(serve: Serve) -> None:
    server = serve([Answer("One.", usage=Usage(100, 10)), FAILURE, Answer("Three.", usage=Usage(100, 10))])
    with at_terminal("chat", environment=towards(server)) as terminal:
        greeting = terminal.read_until("> ")
        assert "@cf/meta/llama-3.3-70b-instruct-fp8-fast" in greeting
        assert "Ctrl-D" in greeting
        terminal.enter("first")
        assert "One.\n> " in terminal.read_until("> ")
        terminal.enter("second")
        assert "No such thing" in terminal.read_until("\n> ")
        terminal.enter("third")
        terminal.read_until("Three.\n> ")
        terminal.type(CTRL_D)
        code, rest = terminal.end()
    assert code == 0
    assert "2 calls, 200 tokens of prompt, 20 of answers, $0.000103" in rest
    assert said_to(server) == [user("first"), assistant("One."), user("third")]


def test_ctrl_c_breaks_off_an_answer_and_the_chat_goes_on(serve: Serve) -> None:
    gate = Gate()
    server = serve([Answer("Once upon a time.", hold={2: gate}), "Done."])
    with at_terminal("chat", environment=towards(server)) as terminal:
        terminal.read_until("> ")
        terminal.enter("a story")
        terminal.read_until("Once upon")
        terminal.interrupt()
        terminal.read_until("\n> ")
        assert server.requests[0].wait() == "disconnected"
        terminal.enter("thanks")
        terminal.read_until("Done.\n> ")
        terminal.type(CTRL_D)
        code, rest = terminal.end()
    assert (code, "2 calls (1 of unknown cost)" in rest) == (0, True)
    assert said_to(server) == [user("a story"), assistant("Once upon"), user("thanks")]


def test_a_question_whose_answer_had_not_begun_is_forgotten_with_ctrl_c(serve: Serve) -> None:
    gate = Gate()
    server = serve([Answer("Never told.", hold={0: gate}), "Done."])
    with at_terminal("chat", environment=towards(server)) as terminal:
        terminal.read_until("> ")
        terminal.enter("first")
        gate.wait_until_reached()
        terminal.interrupt()
        terminal.read_until("\n> ")
        terminal.enter("second")
        terminal.read_until("Done.\n> ")
    assert said_to(server) == [user("second")]


def test_ctrl_c_at_the_prompt_leaves_the_line(serve: Serve) -> None:
    server = serve("Yes.")
    with at_terminal("chat", environment=towards(server)) as terminal:
        terminal.read_until("> ")
        terminal.type("not this")
        terminal.read_until("not this")
        terminal.interrupt()
        terminal.read_until("\n> ")
        terminal.enter("this")
        terminal.read_until("Yes.\n> ")
    assert said_to(server) == [user("this")]


def test_escapes_of_an_answer_do_not_reach_the_terminal(serve: Serve) -> None:
    server = serve([Answer(pieces=["\ta\x1b]0;title\x07\n", "b\x9b31m\rc\x00\x7f"]), Refusal(5006, "Bad\x1b[31m", 400)])
    with at_terminal("chat", environment=towards(server)) as terminal:
        terminal.read_until("> ")
        terminal.enter("hi")
        shown = terminal.read_until("\n> ")
        terminal.enter("again")
        complaint = terminal.read_until("\n> ")
    assert "\ta]0;title\nb31mc\n> " in shown
    assert "Bad[31m." in complaint


def test_of_a_chat_that_is_written_to_a_file_the_file_holds_the_answers_alone(serve: Serve, tmp_path: Path) -> None:
    server = serve("Yes.")
    with (
        (tmp_path / "answers").open("wb") as answers,
        at_terminal("chat", environment=towards(server), stdout=answers.fileno()) as terminal,
    ):
        terminal.read_until("> ")
        terminal.enter("hi")
        terminal.read_until("> ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert (tmp_path / "answers").read_text() == "Yes.\n"
