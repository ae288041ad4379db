"""``workersai models``: what the catalogue says of each model."""

# No postponed annotations here: Typer reads them at run time.
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from workersai.catalog import CATALOG, EMBEDDING_CATALOG, RERANKER_CATALOG, EmbeddingCard, ModelCard
from workersai.commands.app import FACTS, app

if TYPE_CHECKING:
    from rich.table import Table

_Row = tuple[str, ...]
_HEADERS: _Row = ("Model", "Window", "$/M in", "$/M out", "Tools", "JSON Mode", "Batch", "LoRA")
_VECTOR_HEADERS: _Row = ("Model", "Reads", "$/M in", "Vector", "Pooling", "Batch")
_TASKS = (("text generation", CATALOG), ("embeddings", EMBEDDING_CATALOG), ("reranking", RERANKER_CATALOG))
_WIDE = 1_000  # columns, of which a table takes no more than it needs


@app.command(rich_help_panel=FACTS)
def models(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, for programs.")] = False
) -> None:
    """List the models of the catalogue: window (in tokens), prices, and what each can do.

    Prices are US dollars for a million tokens of input and of output. Of models for embeddings and of rerankers: the
    tokens of a text that they read, and how many numbers a vector has. Other models of Workers AI work, too, by their
    full name; their window and their price are not known here.
    """
    if as_json:
        found = [{"task": task, **asdict(card)} for task, cards in _TASKS for card in cards.values()]
        typer.echo(json.dumps(found, indent=2))
        return
    _print_table(_HEADERS, [_row(card) for card in CATALOG.values()])
    typer.echo()
    cards = [*EMBEDDING_CATALOG.values(), *RERANKER_CATALOG.values()]
    _print_table(_VECTOR_HEADERS, [_vector_row(card) for card in cards])


def _row(card: ModelCard) -> _Row:
    able = (card.function_calling, card.json_mode, card.async_batch, card.lora)
    prices = (f"{card.input_price:.2f}", f"{card.output_price:.2f}")
    return (card.name, f"{card.context_window:,}", *prices, *map(_yes, able))


def _vector_row(card: EmbeddingCard) -> _Row:
    vector = f"{card.dimensions:,}" if card.dimensions else "a score"
    read = (f"{card.max_tokens:,}", f"{card.input_price:.4f}")
    return (card.name, *read, vector, _yes(card.pooling), _yes(card.async_batch))


def _yes(can: bool) -> str:  # noqa: FBT001 - a cell of a table
    return "yes" if can else "no"


def _print_table(headers: _Row, rows: list[_Row]) -> None:
    from rich.console import Console  # noqa: PLC0415 - takes longer to import than all else here

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = _table(headers, rows, narrow=False)
    if console.measure(table, options=console.options.update(width=_WIDE)).maximum > console.width:
        table = _table(headers, rows, narrow=True)
    console.print(table)


def _table(headers: _Row, rows: list[_Row], *, narrow: bool) -> "Table":
    """The table; a narrow one fits 80 columns, and takes several lines for a name where there are fewer."""
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 1))
    for header in headers:
        table.add_column(
            header.replace(" ", "\n") if narrow else header,
            justify="right" if header in ("Window", "Reads", "Vector") or header.startswith("$") else "left",
            overflow="fold",
            no_wrap=header != "Model",
        )
    for row in rows:
        table.add_row(*row)
    return table
