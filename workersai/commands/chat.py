"""``workersai chat``: a conversation at the terminal, streamed."""

# No postponed annotations here: Typer reads them at run time.
import contextlib
import json
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from workersai import Client, Completion, CostTracker, Message
from workersai.catalog import DEFAULT_MODEL
from workersai.commands.app import ModelOption, SystemOption, app, schema_of
from workersai.errors import WorkersAIError

_HELP = "/reset forgets the conversation, /help shows this, Ctrl-C breaks an answer off, Ctrl-D ends."


@app.command()
def chat(
    *,
    model: ModelOption = None,
    system: SystemOption = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="A JSON Schema of an object: each answer is one, and comes whole.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness, 0 to 5.")] = None,
) -> None:
    """Talk with a model.

    Answers are shown as they are written. What no longer fits the context window of the model is forgotten, oldest
    first, and told. Without a terminal, each line of the input is a question.
    """
    own = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    options: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if json_schema is not None:
        options["response_format"] = {"type": "json_schema", "json_schema": schema_of(json_schema, "--json-schema")}
    at_terminal = sys.stdin.isatty()
    with Client(on_overflow="trim") as client, CostTracker() as cost:
        given: Any = options
        client.prepare("?", given)  # a wrong option is told now
        talk = _Chat(client, options, system)
        if at_terminal:
            typer.echo(f"{options.get('model', DEFAULT_MODEL)}. {_HELP}", err=True)
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401, PLC0415 - edits the line, and remembers those before it
        for line in _lines(at_terminal=at_terminal):
            _answer(talk, line, goes_on=at_terminal)
        if at_terminal:
            typer.echo(f"{cost.calls:,} calls, {cost.total_tokens:,} tokens, ${cost.cost_usd:.4f}", err=True)


@dataclass
class _Chat:
    """A conversation, and how it is held."""

    client: Client
    options: dict[str, Any]
    system: str | None
    turns: list[Message] = field(default_factory=list)

    def ask(self, question: str) -> Iterator[str]:
        """The answer in pieces; what came of it stays in the conversation, and so does the question."""
        first = [] if self.system is None else [Message("system", self.system)]
        asked = Message("user", question)
        said: list[str] = []
        try:
            with closing(self.client.stream([*first, *self.turns, asked], **self.options)) as deltas:
                for delta in deltas:
                    said.append(delta.text)
                    yield delta.text
                    if delta.completion is not None:
                        _tell_of(delta.completion)
        finally:
            if any(said):
                self.turns += [asked, Message("assistant", "".join(said))]


def _answer(talk: _Chat, line: str, *, goes_on: bool) -> None:
    """Does what a line says.

    Raises:
        WorkersAIError: the call failed, and nobody is there to ask again.
    """
    if line.strip() == "/reset":
        talk.turns.clear()
        return
    if line.strip() == "/help":
        typer.echo(_HELP, err=True)
        return
    structured = "response_format" in talk.options
    try:
        for piece in talk.ask(line):
            sys.stdout.write(_shown(_indented(piece) if structured else piece))
            sys.stdout.flush()
    except WorkersAIError as error:
        if not goes_on:
            raise
        typer.echo(f"\n{error}", err=True)
    except KeyboardInterrupt:
        if not goes_on:
            raise
        typer.echo("\n(broken off)", err=True)
    else:
        sys.stdout.write("\n")
        sys.stdout.flush()


def _lines(*, at_terminal: bool) -> Iterator[str]:
    """The questions: the lines that hold anything, to the end of the input."""
    if not at_terminal:
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    while True:
        try:
            line = input("> ")
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:  # as shells do: another line
            typer.echo()
            continue
        if line.strip():
            yield line


def _tell_of(completion: Completion) -> None:
    """Says what the text alone doesn't."""
    if completion.trimmed is not None:
        typer.echo(f"({len(completion.trimmed.messages):,} older messages no longer fit the window)", err=True)
    if completion.finish_reason == "length":
        typer.echo("\n(cut off: the answer took all the tokens that it may)", err=True)


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2) if text else ""
    except ValueError:  # it was cut off
        return text


def _shown(text: str) -> str:
    """The text without what a terminal would obey; as it is where it goes elsewhere."""
    if not sys.stdout.isatty():
        return text
    return "".join(one for one in text if one in "\n\t" or unicodedata.category(one) != "Cc")
