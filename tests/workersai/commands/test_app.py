"""What all commands have in common: the version, the help, and how they fail."""

import subprocess
from pathlib import Path

import pytest

from tests.support import Serve
from tests.workersai.commands.running import COMMAND, PATIENCE, PLAIN, complaint_of, finished, towards
from workersai import __version__


def test_the_version_is_printed() -> None:
    done = finished("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"workersai {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("models",), ("chat", "--nonsense"), ("tokens", "no such file")])
def test_a_fork_of_the_tests_does_what_a_process_of_its_own_does(arguments: tuple[str, ...]) -> None:
    started = subprocess.run(  # noqa: S603
        [*COMMAND, *arguments], env=PLAIN, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    forked = finished(*arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_the_help_lists_each_command_and_the_completion() -> None:
    done = finished("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("chat", "models", "tokens", "serve", "--install-completion"))


def test_a_missing_library_is_one_line_with_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('blocked', name='typer')")
    complaint = complaint_of(finished("models", environment={**PLAIN, "PYTHONPATH": str(tmp_path)}))
    assert complaint == "The command needs typer, which is not installed: pip install 'workersai[cli]'"


def test_without_credentials_it_says_which_to_set() -> None:
    complaint = complaint_of(finished("chat", typed="hi\n"))
    assert complaint.startswith("There is no account id: pass account_id, or set CLOUDFLARE_ACCOUNT_ID")


@pytest.mark.parametrize(("command", "unbuffered"), [("chat", ""), ("chat", "1"), ("models", ""), ("--help", "")])
def test_a_full_disk_is_one_line_of_complaint(serve: Serve, command: str, unbuffered: str) -> None:
    server = serve("One.")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(  # noqa: S603
            [*COMMAND, command],
            env={**towards(server), "PYTHONUNBUFFERED": unbuffered},
            input=b"first\nsecond\n",
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"The output can't be written: No space left on device.\n")
    assert len(server.requests) == (1 if command == "chat" else 0)


def test_a_full_disk_for_the_complaint_too_is_told_by_the_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "models"], env=PLAIN, stdout=full, stderr=full, timeout=PATIENCE, check=False)  # noqa: S603
    assert done.returncode == 1
