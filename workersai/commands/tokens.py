"""``workersai tokens``: how long a text is for the model."""

# No postponed annotations here: Typer reads them at run time.
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workersai import Message, count_tokens, model_card
from workersai.catalog import DEFAULT_MODEL
from workersai.commands.app import ModelOption, app
from workersai.errors import BadRequestError
from workersai.tokens import counts_exactly


@app.command()
def tokens(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8; - for the standard input.")],
    *,
    model: ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Count the tokens of a text, and tell what it takes of the context window and what it costs as a prompt."""
    text = _text_of(file)
    card = model_card(model or DEFAULT_MODEL)
    prompt = count_tokens([Message("user", text)])
    told: dict[str, Any] = {"tokens": count_tokens(text), "exact": counts_exactly(), "prompt_tokens": prompt}
    if card is not None:
        told |= {"context_window": card.context_window, "cost_usd": card.cost_usd(prompt, 0)}
    if as_json:
        typer.echo(json.dumps(told))
        return
    estimated = "" if told["exact"] else " at the most (for an exact count: pip install 'workersai[tokens]')"
    typer.echo(f"{told['tokens']:,} tokens{estimated}")
    if card is None:
        typer.echo(f"as a prompt {prompt:,} tokens; the window and the price of {model} are not known")
        return
    share = prompt / card.context_window
    fits = f"{share:.1%} of the window" if share <= 1 else f"over the window of {card.context_window:,}"
    typer.echo(f"as a prompt {prompt:,} tokens, {fits}, ${told['cost_usd']:.6f}")


def _text_of(file: Path) -> str:
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise BadRequestError(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadRequestError(f"{file} is not UTF-8.") from None
