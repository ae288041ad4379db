"""The app that the commands are added to: its version, how a failed command ends, and the options that many have."""

# No postponed annotations here: Typer reads them at run time.
import errno
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from workersai._version import __version__
from workersai.commands.output import complain, drop_output
from workersai.errors import WorkersAIError

CALLS = "Call a model"
FACTS = "Know before a call"
WITHOUT_AN_ACCOUNT = "Without an account"
"""The panels of the help."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

Model = Annotated[
    str, typer.Option("-m", "--model", metavar="NAME", help="The model's full name, which begins with @.")
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="What the model is told before the first question.")
]

Through = Annotated[
    str | None, typer.Option("--gateway", metavar="ID", help="The AI Gateway of the account that calls go through.")
]


class Commands(TyperGroup):
    """The group of all commands, which tells how a command failed: on stderr, without a traceback."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WorkersAIError as error:
            complain(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    @override
    def main(self, *args: Any, **kwargs: Any) -> Any:
        # Typer ends quietly where the reader of a pipe has left; a disk that is full it does not know of.
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in _NO_ROOM or error.filename is not None:
                raise
            drop_output()
            with suppress(OSError):  # it may be where stdout is
                complain(f"The output can't be written: {error.strerror}.")
            sys.exit(1)


app = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def common(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False
) -> None:
    """Cloudflare Workers AI from the command line.

    What calls a model needs CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN in the environment.
    """
    if version:
        typer.echo(f"workersai {__version__}")
        raise typer.Exit
