"""``workersai chat``: at a terminal, and without one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import Serve
from tests.workersai.commands.conftest import COMMAND, Terminal, command, environment
from workersai.local import LocalServer
from workersai.local.engine import GenerationRequest
from workersai.local.scripted import Answer, Gate


def script(request: GenerationRequest) -> str:
    return f"<{request.messages[-1].content}>"


def messages_at(server: LocalServer, index: int = -1) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in server.requests[index].body["messages"]]


def test_each_line_is_a_question_of_one_conversation(serve: Serve) -> None:
    server = serve(script)
    done = command(server, "chat", "--system", "Be terse.", "--max-tokens", 9, stdin="one\n\ntwo\n")
    assert (done.stdout, done.stderr) == ("<one>\n<two>\n", "")
    assert messages_at(server) == [
        ("system", "Be terse."),
        ("user", "one"),
        ("assistant", "<one>"),
        ("user", "two"),
    ]
    assert server.requests[-1].body["max_tokens"] == 9


def test_a_reset_forgets_the_conversation(serve: Serve) -> None:
    server = serve(script)
    done = command(server, "chat", stdin="one\n/help\n/reset\ntwo")
    assert done.stdout == "<one>\n<two>\n"
    assert messages_at(server) == [("user", "two")]


def test_a_schema_gives_objects(serve: Serve, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}}))
    done = command(serve(lambda _: Answer(object={"a": 1})), "chat", "--json-schema", schema, stdin="x\n")
    assert done.stdout == '{\n  "a": 1\n}\n'


def test_a_failed_call_ends_it_without_a_terminal() -> None:
    with LocalServer(script, faults=["5004"]) as server:
        done = command(server, "chat", stdin="one\ntwo\n", ok=False)
    assert "code 5004" in done.stderr
    assert done.stdout == ""


def test_who_stops_reading_gets_no_traceback(serve: Serve) -> None:
    server = serve(script)
    with subprocess.Popen(  # noqa: S603
        [*COMMAND, "chat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(server),
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"<one>\n"
        process.stdout.close()
        process.stdin.write(b"two\n" * 3)
        process.stdin.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "llama"], "model: must be a model's full name"),
        (["--temperature", "9"], "temperature: must be between"),
        (["--json-schema", "nothing.json"], "--json-schema: nothing.json can't be read"),
    ],
)
def test_a_wrong_option_is_told_at_once(serve: Serve, arguments: list[str], words: str) -> None:
    server = serve("never")
    assert words in command(server, "chat", *arguments, stdin="x\n", ok=False).stderr
    assert server.requests == []


def test_no_credentials_are_told_in_one_line() -> None:
    (line,) = command(None, "chat", stdin="x\n", ok=False).stderr.splitlines()
    assert "CLOUDFLARE_ACCOUNT_ID" in line


def test_at_a_terminal_it_greets_streams_and_sums_up(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer(pieces=["first ", "\x1b[31msecond"], hold={1: gate}))
    terminal = Terminal(server, "chat")
    terminal.wait_for("Ctrl-D ends.")
    terminal.wait_for("> ")
    terminal.press("hello\n")
    terminal.wait_for("first ")  # while the second is held back
    gate.open()
    terminal.wait_for("[31msecond")
    assert "\x1b[31m" not in terminal.seen
    terminal.wait_for("> ")
    terminal.press("\x04")
    code, shown = terminal.end()
    assert code == 0
    assert "1 calls, " in shown


def test_ctrl_c_breaks_an_answer_off_and_the_chat_goes_on(serve: Serve) -> None:
    gate = Gate()

    def held(request: GenerationRequest) -> Answer:
        asked = request.messages[-1].content
        return Answer(pieces=["begun ", "never"], hold={1: gate}) if asked == "long" else Answer(f"<{asked}>")

    server = serve(held)
    terminal = Terminal(server, "chat")
    terminal.wait_for("> ")
    terminal.press("long\n")
    terminal.wait_for("begun ")
    terminal.press("\x03")
    terminal.wait_for("(broken off)")
    assert server.requests[0].wait() == "disconnected"
    terminal.wait_for("> ")
    terminal.press("\x03")  # an empty line is left
    terminal.wait_for("> ")
    terminal.press("short\n")
    terminal.wait_for("<short>")
    terminal.wait_for("> ")
    terminal.press("\x04")
    assert terminal.end()[0] == 0
    assert messages_at(server) == [("user", "long"), ("assistant", "begun "), ("user", "short")]


def test_a_failed_call_is_told_and_the_chat_goes_on() -> None:
    with LocalServer(script, faults=["5004"]) as server:
        terminal = Terminal(server, "chat")
        terminal.wait_for("> ")
        terminal.press("one\n")
        terminal.wait_for("code 5004")
        terminal.wait_for("> ")
        terminal.press("two\n")
        terminal.wait_for("<two>")
        terminal.wait_for("> ")
        terminal.press("\x04")
        assert terminal.end()[0] == 0
        assert messages_at(server) == [("user", "two")]


def test_what_no_longer_fits_the_window_is_told(serve: Serve) -> None:
    server = serve("fine")
    done = command(server, "chat", stdin="word " * 15_000 + "\n" + "other " * 15_000 + "\n")
    assert done.stdout == "fine\nfine\n"
    assert "2 older messages no longer fit the window" in done.stderr
    assert len(messages_at(server)) == 1


def test_a_cut_answer_is_told(serve: Serve) -> None:
    usage: Any = None
    done = command(serve(lambda _: Answer("one two three", usage=usage)), "chat", "--max-tokens", 3, stdin="x\n")
    assert "cut off" in done.stderr
