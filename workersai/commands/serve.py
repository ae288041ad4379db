"""``workersai serve``: the local server, from the command line."""

# No postponed annotations here: Typer reads them at run time.
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from workersai.commands.app import WITHOUT_AN_ACCOUNT, app
from workersai.errors import ConfigurationError
from workersai.settings import Settings

if TYPE_CHECKING:
    from workersai.local import LocalServer

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command(rich_help_panel=WITHOUT_AN_ACCOUNT)
def serve(  # noqa: PLR0913 - each is an option of its own
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65535)] = 8787,
    model: Annotated[Path | None, typer.Option(help="A GGUF file to run in place of SmolLM2-135M-Instruct.")] = None,
    token: Annotated[str, typer.Option(help="The one token that it accepts.")] = "local-token",  # noqa: S107
    account: Annotated[str, typer.Option(help="The one account that it serves.")] = "local-account",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="Make replies fail: a code (3040), error:4006, html:502, empty:200, stall:100, cut:100, end:100, "
            "garbage:100, event:3040, whole, dribble:0.01, content-type:text/plain, item:3040 (of a batch); with @0.1 "
            "behind it, one in ten. "
            "May be given more than once, each with its share."
        ),
    ] = None,
    batch_delay: Annotated[float, typer.Option(help="Seconds that a batch stays queued.", min=0)] = 0.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse fields that the published schemas don't list.")
    ] = False,
    dialect: Annotated[
        Literal["native", "hybrid", "chat"],
        typer.Option(
            help="Shape of the replies: hybrid (Llama 3.3 now), native (until August 2026) or chat (newer models)."
        ),
    ] = "hybrid",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name by which this server may be called, without a port. May be given more than once."
        ),
    ] = None,
) -> None:
    """Serve Workers AI's wire on this machine, with a small real model behind it, until Ctrl-C."""
    try:
        from workersai.local import LocalServer  # noqa: PLC0415 - a server and a model
        from workersai.local.faults import any_of  # noqa: PLC0415
    except ImportError as error:
        sys.exit(str(error))
    try:
        Settings(account_id=account, api_token=token)
    except ConfigurationError as error:
        sys.exit(f"{error} Choose another --account or --token.")
    if host not in _LOOPBACK:
        typer.echo(f"Warning: other machines can reach {host}, over plain HTTP.", err=True)
    try:
        faults = any_of(fault) if fault else None
    except ValueError as error:
        sys.exit(f"--fault: {error}")
    try:
        server = LocalServer(
            host=host,
            port=port,
            model_path=model,
            api_token=token,
            account_id=account,
            faults=faults,
            batch_delay=batch_delay,
            strict=strict,
            dialect=dialect,
            allowed_hosts=allowed_host or (),
        )
    except ValueError as error:
        sys.exit(f"--allowed-host: {error}")
    _start(server, f"{host}:{port}")
    typer.echo(f"Serving {server.engine.name}; Ctrl-C stops it. To use it, in another terminal:\n")
    if fault:
        typer.echo(f"Replies fail, as --fault says: {', '.join(fault)}.", err=True)
    for name, value in server.environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("\nStopped.")
    finally:
        server.close()


def _start(server: "LocalServer", address: str) -> None:
    from workersai.local.engine import EngineError  # noqa: PLC0415 - a server and a model

    try:
        server.start()
    except (EngineError, ImportError) as error:
        sys.exit(str(error))
    except OSError as error:
        # The socket module adds the address to the reason, in brackets.
        reason = str(error.strerror or error).partition(" (")[0]
        sys.exit(f"Can't listen on {address}: {reason}. Choose another --host or --port.")
