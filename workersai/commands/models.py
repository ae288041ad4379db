"""``workersai models``: what the catalogue says of each model."""

# No postponed annotations here: Typer reads them at run time.
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from workersai.catalog import CATALOG, ModelCard
from workersai.commands.app import FACTS, app

if TYPE_CHECKING:
    from rich.table import Table

_HEADERS = ("Model", "Window", "$/M in", "$/M out", "Tools", "JSON Mode", "Batch", "LoRA")
_WIDE = 1_000  # columns, of which a table takes no more than it needs


@app.command(rich_help_panel=FACTS)
def models(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, for programs.")] = False
) -> None:
    """List the models of the catalogue: window (in tokens), prices, and what each can do.

    Prices are US dollars for a million tokens of input and of output. Other models of Workers AI work, too, by their
    full name; their window and their price are not known here.
    """
    if as_json:
        typer.echo(json.dumps([asdict(card) for card in CATALOG.values()], indent=2))
    else:
        _print_table(list(CATALOG.values()))


def _print_table(cards: list[ModelCard]) -> None:
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than all else here

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = _table(cards, narrow=False)
    if console.measure(table, options=console.options.update(width=_WIDE)).maximum > console.width:
        table = _table(cards, narrow=True)
    console.print(table)


def _table(cards: list[ModelCard], *, narrow: bool) -> "Table":
    """The table; a narrow one fits 80 columns, and takes several lines for a name where there are fewer."""
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    for header in _HEADERS:
        table.add_column(
            header.replace(" ", "\n") if narrow else header,
            justify="right" if header == "Window" or header.startswith("$") else "left",
            overflow="fold",
            no_wrap=header != "Model",
        )
    for card in cards:
        able = (card.function_calling, card.json_mode, card.async_batch, card.lora)
        prices = (f"{card.input_price:.2f}", f"{card.output_price:.2f}")
        table.add_row(card.name, f"{card.context_window:,}", *prices, *("yes" if can else "no" for can in able))
    return table
