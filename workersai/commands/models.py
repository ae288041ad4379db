"""``workersai models``: what the catalog knows."""

# No postponed annotations here: Typer reads them at run time.
import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from workersai.catalog import CATALOG
from workersai.commands.app import app

_WIDE = 200  # characters, where there is no terminal that says how wide it is


@app.command()
def models(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """List the models whose window, prices and abilities are known.

    Any other model of the service can be named as well; what is not known of it is not claimed, and not checked.
    """
    if as_json:
        typer.echo(json.dumps([asdict(card) for card in CATALOG.values()]))
        return
    table = Table("model", box=None, pad_edge=False)
    for name in ("window", "$/M in", "$/M out"):
        table.add_column(name, justify="right")
    for name in ("tools", "JSON Mode", "batch", "LoRA"):
        table.add_column(name)
    for card in CATALOG.values():
        able = (card.function_calling, card.json_mode, card.async_batch, card.lora)
        prices = (f"{card.context_window:,}", f"{card.input_price:.2f}", f"{card.output_price:.2f}")
        table.add_row(card.name, *prices, *("yes" if can else "no" for can in able))
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_WIDE)
    console.print(table)
