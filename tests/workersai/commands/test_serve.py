"""``workersai serve``, as a process of its own."""

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.workersai.commands.running import COMMAND, PLAIN, complaint_of, finished
from tests.workersai.local.asking import MODEL, PATIENCE, VERIFY, result_of


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    # A shell that runs the tests in the background has them ignore Ctrl-C, and what they start with them.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(  # noqa: S603
        [*COMMAND, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=PLAIN
    )
    signal.signal(signal.SIGINT, before)
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.kill()


def exports_of(process: subprocess.Popen[str]) -> dict[str, str]:
    """The three variables that it prints, read up to the last of them."""
    assert process.stdout
    variables: dict[str, str] = {}
    for line in process.stdout:
        if found := re.fullmatch(r"export (\w+)=(\S+)\n", line):
            variables[found[1]] = found[2]
        if len(variables) == 3:
            break
    return variables


def test_the_command_alone_tells_what_there_is() -> None:
    assert "serve" in finished().stdout
    assert "--model" in finished("serve", "--help").stdout


@pytest.mark.model
def test_serve_prints_what_to_export_and_answers_until_it_is_interrupted() -> None:
    with serving("--port", "0", "--token", "mine", "--account", "me") as process:
        variables = exports_of(process)
        assert variables.keys() == {"CLOUDFLARE_BASE_URL", "CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN"}
        assert (variables["CLOUDFLARE_ACCOUNT_ID"], variables["CLOUDFLARE_API_TOKEN"]) == ("me", "mine")
        response = httpx.post(
            f"{variables['CLOUDFLARE_BASE_URL']}/accounts/me/ai/run/{MODEL}",
            json={"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 5},
            headers={"authorization": "Bearer mine"},
            verify=VERIFY,
            timeout=PATIENCE,
        )
        assert result_of(response)["response"]
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=PATIENCE)
        assert (process.returncode, rest.strip(), complaints) == (0, "Stopped.", "")


@pytest.mark.model
def test_what_is_printed_can_be_pasted_into_a_shell() -> None:
    with serving("--port", "0", "--token", "it's;a$(token)", "--account", "a-b") as process:
        assert process.stdout
        lines: list[str] = []
        while len(lines) < 3:
            line = process.stdout.readline()
            assert line, "it ended early"
            lines += [line] if line.startswith("export ") else []
    script = "".join(lines) + 'printf "%s|%s" "$CLOUDFLARE_ACCOUNT_ID" "$CLOUDFLARE_API_TOKEN"'
    shown = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)  # noqa: S603
    assert shown.stdout == "a-b|it's;a$(token)"


def test_a_model_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    assert complaint_of(finished("serve", "--port", "0", "--model", str(missing))) == f"There is no file {missing}."


@pytest.mark.model
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    page = tmp_path / "page.gguf"
    page.write_text("<html>")
    assert f"llama.cpp can't run {page}" in complaint_of(finished("serve", "--port", "0", "--model", str(page)))


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        complaint = complaint_of(finished("serve", "--port", str(port)))
    assert complaint == f"Can't listen on 127.0.0.1:{port}: Address already in use. Choose another --host or --port."


@pytest.mark.parametrize(("option", "value"), [("--token", "a b"), ("--token", ""), ("--account", "a/b")])
def test_a_token_or_an_account_that_no_client_would_take_is_one_line(option: str, value: str) -> None:
    complaint = complaint_of(finished("serve", "--port", "0", option, value))
    assert complaint.endswith("Choose another --account or --token.")


def test_an_allowed_host_that_is_no_name_is_one_line() -> None:
    complaint = complaint_of(finished("serve", "--port", "0", "--allowed-host", "a", "--allowed-host", "http://b"))
    assert complaint == (
        "--allowed-host: 'http://b' in allowed_hosts must be a host name, without a scheme and a port."
    )


@pytest.mark.model
def test_serve_is_strict_and_called_by_another_name_where_it_is_told_so() -> None:
    with serving("--port", "0", "--strict", "--allowed-host", "models.internal") as process:
        url = exports_of(process)["CLOUDFLARE_BASE_URL"] + f"/accounts/local-account/ai/run/{MODEL}"
        headers = {"authorization": "Bearer local-token"}
        for host, status in (("models.internal", 400), ("other.internal", 403)):
            named = {**headers, "host": host}
            refused = httpx.post(
                url, json={"prompt": "a", "stop": None}, headers=named, verify=VERIFY, timeout=PATIENCE
            )
            assert refused.status_code == status


@pytest.mark.model
def test_serve_answers_in_the_chosen_dialect() -> None:
    with serving("--port", "0", "--dialect", "chat") as process:
        response = httpx.post(
            exports_of(process)["CLOUDFLARE_BASE_URL"] + f"/accounts/local-account/ai/run/{MODEL}",
            json={"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 2},
            headers={"authorization": "Bearer local-token"},
            verify=VERIFY,
            timeout=PATIENCE,
        )
    assert result_of(response)["choices"][0]["message"]["content"]
    assert "response" not in result_of(response)


def test_an_unknown_dialect_is_a_usage_error_that_lists_them() -> None:
    done = finished("serve", "--dialect", "nonsense")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("native", "hybrid", "chat"))


def test_a_port_out_of_range_is_a_usage_error() -> None:
    done = finished("serve", "--port", "65536")
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_a_host_that_others_can_reach_is_warned_of(tmp_path: Path) -> None:
    done = finished("serve", "--host", "0.0.0.0", "--port", "0", "--model", str(tmp_path / "none"))  # noqa: S104
    warning, complaint = done.stderr.splitlines()
    assert warning == "Warning: other machines can reach 0.0.0.0, over plain HTTP."
    assert complaint.startswith("There is no file")


def test_a_missing_server_is_one_line_with_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError('blocked', name='starlette')")
    complaint = complaint_of(finished("serve", "--port", "0", environment={**PLAIN, "PYTHONPATH": str(tmp_path)}))
    assert complaint == "workersai.local needs starlette, which is not installed: pip install 'workersai[local]'"
