"""``workersai batch``: a table of prompts in, a table of answers out, by a job that can be stopped and go on."""

# No postponed annotations here: Typer reads them at run time.
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workersai.batch import notes_of, progress_of
from workersai.catalog import DEFAULT_MODEL
from workersai.commands.answers import check_apart, check_output, write_answers
from workersai.commands.app import CALLS, Model, System, Through, app
from workersai.commands.estimate import estimate
from workersai.commands.inputs import json_of
from workersai.commands.prompts import Prompts
from workersai.commands.running import Limits, run_job
from workersai.commands.signals import ending_by_signals
from workersai.commands.tables import Row, Table
from workersai.errors import BadRequestError

batch = typer.Typer(
    help="Ask thousands of prompts: a table in, a table with the answers out.\n\nEach step is kept in a journal, so "
    "that a job that was stopped, or killed, goes on where it was.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(batch, name="batch", rich_help_panel=CALLS)

_PROMPTS, _ANSWERS, _PACE, _MONEY = "What is asked", "How it is answered", "How it is sent", "What it costs"

BudgetOption = Annotated[
    float | None, typer.Option(min=0, help="US dollars that the whole job may cost.", rich_help_panel=_MONEY)
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, max=1000, help="Single calls at once.", rich_help_panel=_PACE)]
RateOption = Annotated[
    int, typer.Option(min=0, help="Requests a minute; 0 for no limit.", show_default=True, rich_help_panel=_PACE)
]
JournalArgument = Annotated[Path, typer.Argument(help="The journal of the job, as `run` has named it.")]


@batch.command()
def run(  # noqa: PLR0913 - a command has the options that it has
    table: Annotated[Path, typer.Argument(metavar="INPUT", help="The prompts: a .jsonl, .csv or .parquet file.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The answers: a .jsonl, .csv or .parquet file.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="The prompt, with {column} for a cell of the row.", rich_help_panel=_PROMPTS),
    ] = None,
    prompt_column: Annotated[
        str | None,
        typer.Option(help="The column of the prompt.  [default: prompt, or messages]", rich_help_panel=_PROMPTS),
    ] = None,
    system: System = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="The column that names a row, sent as its external_reference.", rich_help_panel=_PROMPTS),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.", rich_help_panel=_PROMPTS)] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="The columns that go into the output, as in a,b.  [default: all but prompt, messages]"),
    ] = None,
    answer_column: Annotated[str, typer.Option(help="The column of the answers.", rich_help_panel=_ANSWERS)] = "answer",
    schema: Annotated[
        Path | None,
        typer.Option(help="A JSON Schema of an object: each answer is one.", rich_help_panel=_ANSWERS),
    ] = None,
    model: Model = DEFAULT_MODEL,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an answer.", rich_help_panel=_ANSWERS)
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness, 0 to 5.", rich_help_panel=_ANSWERS)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.", rich_help_panel=_ANSWERS)] = None,
    mode: Annotated[
        Literal["auto", "batch", "calls"],
        typer.Option(
            help="By the service's Batch API, or as single calls; auto takes the Batch API for 300 rows or more that "
            "it can take.",
            rich_help_panel=_PACE,
        ),
    ] = "auto",
    batch_input: Annotated[
        Literal["template", "prompt", "messages"] | None,
        typer.Option(
            help="How texts and messages stand in batches: as a prompt in Llama's chat template, as an unchanged "
            "prompt, or as messages.  [default: template for Llama 3, otherwise messages]",
            rich_help_panel=_PACE,
        ),
    ] = None,
    part_size: Annotated[int, typer.Option(min=1, help="Most rows in one batch.", rich_help_panel=_PACE)] = 1000,
    concurrency: ConcurrencyOption = 32,
    rate: RateOption = 300,
    keep_invalid: Annotated[
        bool,
        typer.Option(
            "--keep-invalid",
            help="Go on although some rows can't be sent: each is an error of its row.",
            rich_help_panel=_PACE,
        ),
    ] = False,
    budget: BudgetOption = None,
    gateway: Through = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and count all rows, and send none.", rich_help_panel=_MONEY)
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Where the job is kept.  [default: the output with .journal behind it]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that no job of this journal has written.")
    ] = False,
) -> None:
    """Answer each row of a table.

    Ctrl-C or SIGTERM stops the job, and the same command, or `workersai batch resume`, goes on with it. The output has
    the columns of the input but `prompt` and `messages`, the answers, and why a row has none; it is written once all
    rows are done.

    Examples:
    `workersai batch run reviews.csv -o answers.csv --prompt 'Is this review positive? Answer yes or no. {text}'`

    `workersai batch run tickets.parquet -o fields.parquet --prompt-column text --schema ticket.json --budget 5`
    """
    asked = Prompts(
        prompt,
        prompt_column,
        system,
        id_column,
        keep.split(",") if keep else None,
        answer_column,
        schema=None if schema is None else _schema_of(schema),
    )
    options = _given(
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        response_format=asked.schema,
        gateway=gateway,
        batch_input=batch_input,
    )
    rows = _some(table)
    if dry_run:
        estimate(asked.requests(rows, limit), options, mode=mode, rate=rate)
        return
    if output is None:
        raise typer.BadParameter("say where the answers are to go.", param_hint="--output")
    target = Table(output)
    target.check_writable()
    asked.nests = target.nests
    kept = journal or output.with_name(f"{output.name}.journal")
    check_apart({"INPUT": table, "--output": output, "--journal": kept})
    if output.exists() and not (kept.exists() or overwrite):
        raise BadRequestError(
            f"{output} is there already, and no journal of a job that has written it: name another --output, or give "
            "--overwrite."
        )
    notes = {
        "input": str(table.resolve()),
        "output": str(output.resolve()),
        "answer": answer_column,
        "structured": schema is not None,
        "fields": [name for name, _ in asked.fields()],
    }

    def requests() -> Iterator[Any]:
        yield from asked.requests(rows, limit)
        for warning in asked.changes.warnings():
            typer.echo(warning, err=True)
        notes["columns"] = asked.columns()  # known only now; the journal takes the notes once all rows are read

    ways = {"mode": mode, "part_size": part_size, "on_invalid": "keep" if keep_invalid else "refuse", "notes": notes}
    with ending_by_signals():
        run_job(kept, requests(), {**options, **ways}, Limits(concurrency, rate, budget))
        write_answers(kept, output)


@batch.command()
def resume(
    journal: JournalArgument,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Another place for the answers.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask the rows again that ended with an error.")
    ] = False,
    concurrency: ConcurrencyOption = 32,
    rate: RateOption = 300,
    budget: BudgetOption = None,
    gateway: Through = None,
) -> None:
    """Go on with a job that was stopped, or killed."""
    notes = notes_of(journal)
    if output is not None:
        check_output(journal, output)
    if output is not None or "output" in notes:
        Table(output or Path(notes["output"])).check_writable()
    ways = {"retry_failed": retry_failed, **_given(gateway=gateway)}
    with ending_by_signals():
        run_job(journal, None, ways, Limits(concurrency, rate, budget))
        write_answers(journal, output)


@batch.command()
def status(
    journal: JournalArgument,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell how far a job is; it may be at work."""
    progress = progress_of(journal)
    told = {**vars(progress), "left": progress.left, "done": progress.done}
    del told["calls"]  # which only the process that makes them knows
    if as_json:
        typer.echo(json.dumps(told))
        return
    for name, value in told.items():
        typer.echo(f"{name.replace('_', ' '):<18}{value:,}" if not isinstance(value, bool) else f"{name:<18}{value}")


@batch.command()
def export(
    journal: JournalArgument,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl, .csv or .parquet file.")],
) -> None:
    """Write the answers that a job has so far; it may be at work."""
    with ending_by_signals():
        write_answers(journal, output)


def _some(path: Path) -> Iterator[Row]:
    """The rows of a table.

    Raises:
        BadRequestError: it has none, or the first can't be read.
    """
    rows = Table(path).rows()
    first = next(rows, None)
    if first is None:
        raise BadRequestError(f"{path} has no rows. Nothing was sent or written.")
    return chain([first], rows)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _schema_of(path: Path) -> dict[str, Any]:
    schema = json_of(path)
    if not isinstance(schema, dict):
        raise BadRequestError(f"--schema: {path} holds {type(schema).__name__}, and no JSON Schema of an object.")
    return schema
