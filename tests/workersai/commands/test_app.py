"""What all commands have in common: the version, the help, and how they fail."""

from pathlib import Path

from tests.workersai.commands.running import PLAIN, complaint_of, finished
from workersai import __version__


def test_the_version_is_printed() -> None:
    done = finished("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"workersai {__version__}\n", "")


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
