"""``workersai doctor``: whether an account works, and what its replies look like."""

# No postponed annotations here: Typer reads them at run time.
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workersai.catalog import DEFAULT_MODEL
from workersai.commands.app import CALLS, INTERRUPTED, Model, app
from workersai.commands.output import complain, note
from workersai.errors import ConfigurationError
from workersai.options import CallOptions
from workersai.settings import ACCOUNT_VARIABLES, TOKEN_VARIABLES, Settings

if TYPE_CHECKING:
    from workersai._doctor.checkup import Checkup
    from workersai._doctor.report import Costs

NOT_RUN = 2
"""The exit code if nothing was checked: credentials are missing, or the question was not answered with yes."""

_TIMEOUT, _BATCH_WAIT = 60.0, 60.0
_ACCOUNT_ADVICE = "Copy the account id from the address of your dashboard: dash.cloudflare.com/<account id>"
_TOKEN_ADVICE = 'Create a token at https://dash.cloudflare.com/profile/api-tokens (template "Workers AI")'  # noqa: S105


@app.command(rich_help_panel=CALLS)
def doctor(
    *,
    model: Model = DEFAULT_MODEL,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Skip the question before paid requests are sent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object, for programs.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the replies to a new file, with account, token, ids and text replaced, for a bug report.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Limit for each request.")] = _TIMEOUT,
    batch_wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Limit for all batches together.")
    ] = _BATCH_WAIT,
) -> None:
    """Check your account, and the shape of each kind of reply.

    Checks the token, the account, the permission and the model list. Then sends one call of each form: messages,
    prompt, stream, tools, JSON Mode, reject-if-busy, session affinity, batch, embeddings and reranker. Costs less than
    $0.01 with the default model; the estimate is shown before anything is sent.

    Exit codes: 0 if nothing failed, 1 if a check failed, 2 if nothing was checked, 130 after Ctrl-C. A warning is not
    a failure: the call works, but its reply differs from what is expected.
    """
    settings = _settings(as_json=as_json)
    CallOptions(model=model)
    from workersai._doctor.checkup import Checkup  # noqa: PLC0415 - only this command needs it
    from workersai._doctor.report import Costs  # noqa: PLC0415
    from workersai._doctor.requests import most_cost_usd  # noqa: PLC0415
    from workersai.client import Client  # noqa: PLC0415

    most = most_cost_usd(model)
    _ask(model, most, yes=yes)
    if save is not None:
        _create(save)
    interrupted = False
    with Client(settings=settings, max_retries=0) as client:
        checkup = Checkup(client, model, timeout=timeout, batch_wait=batch_wait)
        try:
            _run(checkup)
        except KeyboardInterrupt:
            interrupted = True
            checkup.interrupt()
    code = INTERRUPTED if interrupted else int(checkup.failed)
    _report(checkup, model, Costs(most, checkup.cost_usd()), code, as_json=as_json)
    if save is not None:
        _save(save, checkup, settings, model)
    raise typer.Exit(code)


def _settings(*, as_json: bool) -> Settings:
    """The account of the environment.

    Raises:
        typer.Exit: A setting is missing or can't be right; it was printed what to do.
    """
    missing = [
        (names[0], advice)
        for names, advice in ((ACCOUNT_VARIABLES, _ACCOUNT_ADVICE), (TOKEN_VARIABLES, _TOKEN_ADVICE))
        if not any(os.environ.get(name, "").strip() for name in names)
    ]
    problems = [f"{name} is not set. {advice}." for name, advice in missing]
    if not missing:
        try:
            return Settings()
        except ConfigurationError as error:
            problems = [error.message]
    if as_json:
        typer.echo(json.dumps({"exit_code": NOT_RUN, "checks": [], "problems": problems}, indent=2))
    for problem in problems:
        complain(problem)
    note("Nothing was sent. No account? Run `workersai serve`, and set the variables that it prints.")
    raise typer.Exit(NOT_RUN)


def _ask(model: str, most: float | None, *, yes: bool) -> None:
    from workersai._doctor.report import dollars  # noqa: PLC0415
    from workersai._doctor.requests import count_of_requests  # noqa: PLC0415

    price = f"at most {dollars(most)}" if most is not None else f"an unknown amount: {model} has no known price"
    note(f"About {count_of_requests(model)} requests to {model} and others, which cost {price}.")
    if yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty()):
        complain("There is no terminal to ask at. To run the checks without a question: workersai doctor --yes")
        raise typer.Exit(NOT_RUN)
    if not typer.confirm("Run the checks?", default=True, err=True):
        note("Nothing was sent.")
        raise typer.Exit(NOT_RUN)


def _create(file: Path) -> None:
    """Creates the file before anything is paid for."""
    try:
        with file.open("x", encoding="utf-8"):
            pass
    except FileExistsError:
        complain(f"{file} already exists. Choose another --save, or remove the file.")
        raise typer.Exit(NOT_RUN) from None
    except OSError as error:
        complain(f"Can't write {file}: {error.strerror or error}.")
        raise typer.Exit(NOT_RUN) from None


def _run(checkup: "Checkup") -> None:
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than all else here

    console = Console(stderr=True)
    with console.status("") if console.is_terminal else nullcontext() as status:
        for name in checkup.run():
            if status is not None:
                status.update(f"checking: {name}")


def _report(checkup: "Checkup", model: str, costs: "Costs", code: int, *, as_json: bool) -> None:
    from workersai._doctor.report import print_report, report_object  # noqa: PLC0415

    if as_json:
        typer.echo(json.dumps(report_object(checkup.findings, model, costs, code), indent=2))
    else:
        print_report(checkup.findings, costs)


def _save(file: Path, checkup: "Checkup", settings: Settings, model: str) -> None:
    from workersai._doctor.saving import saved_text  # noqa: PLC0415

    secrets = (settings.account_id, settings.api_token.get_secret_value())
    try:
        file.write_text(saved_text(checkup.findings, checkup.captures, secrets, model), encoding="utf-8")
    except OSError as error:
        complain(f"Can't write {file}: {error.strerror or error}.")
        raise typer.Exit(1) from None
    note(f"Saved {len(checkup.captures)} replies to {file}. Read the file before you publish it.")
