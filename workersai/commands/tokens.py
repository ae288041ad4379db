"""``workersai tokens``: how long a text is for a model, and what it costs as a prompt."""

# No postponed annotations here: Typer reads them at run time.
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from workersai.catalog import DEFAULT_MODEL, model_card
from workersai.commands.app import FACTS, Model, app
from workersai.commands.inputs import text_of
from workersai.options import call_options
from workersai.protocol.request import messages_to_wire
from workersai.protocol.values import Message
from workersai.tokens import counts_exactly, prompt_tokens, text_tokens


@dataclass(frozen=True)
class _Length:
    """The length of a text; what the catalogue would have to know is None where it doesn't list the model."""

    tokens: int
    most_tokens: int
    """An upper bound, which holds for every text."""
    exact: bool
    model: str
    prompt_tokens: int
    most_prompt_tokens: int
    context_window: int | None = None
    share_of_window: float | None = None
    input_cost_usd: float | None = None


@app.command(rich_help_panel=FACTS)
def tokens(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A text in UTF-8; - is standard input.")],
    *,
    model: Model = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object, for programs.")] = False,
) -> None:
    """Count a text's Llama tokens; show its share of the context window and its price as a prompt.

    The prompt is the text as the only message, with what the chat template puts around it. Counts are exact with the
    extra "tokens" of this package. Without it, they are estimates, and an upper bound is shown beside them.
    """
    call_options({"model": model})
    length = _length_of(text_of(file), model)
    if as_json:
        typer.echo(json.dumps(asdict(length), indent=2))
    else:
        typer.echo("\n".join(_lines_of(length)))


def _length_of(text: str, model: str) -> _Length:
    alone, prompt = text_tokens(text), prompt_tokens(messages_to_wire([Message("user", text)]), ())
    counts = (alone.estimate, alone.most, counts_exactly(), model, prompt.estimate, prompt.most)
    card = model_card(model)
    if card is None:
        return _Length(*counts)
    share = prompt.estimate / card.context_window
    return _Length(*counts, card.context_window, share, card.cost_usd(prompt.estimate, 0))


def _lines_of(length: _Length) -> list[str]:
    # The log says on stderr how to get exact counts.
    how, at_most = "exact", ""
    if not length.exact:
        how, at_most = f"estimated, at most {length.most_tokens:,}", f" (at most {length.most_prompt_tokens:,})"
    as_prompt = f"{length.prompt_tokens:,}{at_most} as a prompt to {length.model}"
    if length.context_window is None:
        return [f"{length.tokens:,} Llama tokens ({how})", f"{as_prompt}, whose window and price are not known"]
    return [
        f"{length.tokens:,} Llama tokens ({how})",
        f"{as_prompt}: {length.share_of_window:.1%} of its window of {length.context_window:,}",
        f"${length.input_cost_usd:,.6f} as input",
    ]
