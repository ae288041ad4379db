"""``workersai chat``: questions at a prompt, or one a line, and the answers as they are written."""

# No postponed annotations here: Typer reads them at run time.
import json
import re
import sys
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from workersai.catalog import DEFAULT_MODEL, model_card
from workersai.client import Client
from workersai.commands.app import CALLS, Model, System, Through, app
from workersai.commands.inputs import is_typed, json_of, lines_of_standard_input
from workersai.commands.output import complain, note, write
from workersai.costs import CostTracker
from workersai.errors import JSONModeError, WorkersAIError
from workersai.protocol.json_mode import json_mode_of
from workersai.protocol.values import Completion, Message
from workersai.retries import Retry

_PROMPT = "> "
_HELP = """/reset  forgets the conversation, but not --system
/help   lists these
Ctrl-C  breaks off an answer, or leaves the line
Ctrl-D  ends the chat"""


@app.command(rich_help_panel=CALLS)
def chat(
    *,
    model: Model = DEFAULT_MODEL,
    system: System = None,
    json_schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON Schema of an object: each answer is such an object (JSON Mode)."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Randomness, 0 to 5; the service takes 0.6 where none is given.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of an answer; by default what is left of the window, up to 4,096.")
    ] = None,
    gateway: Through = None,
) -> None:
    """Chat with a model: it answers as it writes, and knows what was said before.

    At a terminal, Ctrl-C breaks off an answer, Ctrl-D ends the chat, /reset forgets it, /help lists this. An answer
    that failed is no part of the conversation. Of a chat that outgrows the model's window, the oldest turns are left
    out, which is told.

    Without a terminal, as in a pipe, each line of standard input is a question. Answers go to stdout, all else to
    stderr, and the first failure ends the command with exit code 1.
    """
    response_format = None if json_schema is None else {"type": "json_schema", "json_schema": json_of(json_schema)}
    json_mode_of(response_format)  # a schema that won't do is told of before the first question
    client = Client(
        on_retry=_tell_retry,
        model=model,
        temperature=temperature,
        max_tokens=max_tokens,
        # Where the window is not known, nothing can be trimmed.
        on_overflow="trim" if model_card(model) else None,
        gateway=gateway,
        session_affinity="auto",  # what was said before is in the cache of one instance
    )
    with client, CostTracker() as cost:
        conversation = _Conversation(client, system, response_format)
        if not is_typed():
            _answer_lines(conversation)
            return
        note(f"{model} answers. Ctrl-D ends the chat, /help lists what else there is.")
        _answer_at_prompt(conversation)
        note(_summary(cost))


def _answer_lines(conversation: "_Conversation") -> None:
    for line in lines_of_standard_input():
        conversation.take(line)


def _answer_at_prompt(conversation: "_Conversation") -> None:
    with suppress(ImportError):
        import_module("readline")  # gives input() its line editing and its history; not on every platform
    while True:
        try:
            line = _typed_line()
        except EOFError:
            typer.echo(err=True)
            return
        except KeyboardInterrupt:
            typer.echo(err=True)
            continue
        except UnicodeDecodeError:
            complain("That line is not UTF-8.")
            continue
        try:
            conversation.take(line)
        except WorkersAIError as error:
            complain(str(error))
        except KeyboardInterrupt:
            continue  # with what came of the answer


def _typed_line() -> str:
    if sys.stdout.isatty():
        return input(_PROMPT)
    # What is kept of stdout, in a file or by another program, is the answers alone.
    typer.echo(_PROMPT, nl=False, err=True)
    return input()


class _Conversation:
    """What was said so far: whole answers, those broken off by Ctrl-C, and the questions to both.

    Args:
        client: What asks the model.
        system: What it is told first.
        response_format: That of each call.
    """

    def __init__(self, client: Client, system: str | None, response_format: dict[str, Any] | None) -> None:
        self._client = client
        self._system = [Message("system", system)] if system else []
        self._response_format = response_format
        self._turns: list[Message] = []

    def take(self, line: str) -> None:
        """Answers a line, or does what it says.

        Raises:
            KeyboardInterrupt: the answer was broken off; what had come of it is kept.
            WorkersAIError: the call failed; the question is not kept.
        """
        match line.strip():
            case "":
                return
            case "/reset":
                self._turns.clear()
            case "/help":
                note(_HELP)
            case command if re.fullmatch(r"/\w*", command):
                note(f"There is no {command}; /help lists what there is.")
            case question:
                self._answer(Message("user", question))

    def _answer(self, question: Message) -> None:
        came: list[str] = []
        try:
            completion = self._stream(question, came)
        except KeyboardInterrupt:
            self._keep(question, "".join(came))
            raise
        self._keep(question, completion.text if completion else "".join(came))
        _tell(completion)

    def _stream(self, question: Message, came: list[str]) -> Completion | None:
        """Writes the answer as it comes, and adds its pieces to ``came``."""
        asked = [*self._system, *self._turns, question]
        completion = None
        with closing(self._client.stream(asked, response_format=self._response_format)) as deltas:
            try:
                for delta in deltas:
                    completion = delta.completion
                    if delta.text:
                        shown = _indented(delta.text) if self._response_format else delta.text
                        came.append(delta.text)
                        write(shown)
            except WorkersAIError:
                write("\n" if came else "")
                raise
            except KeyboardInterrupt:
                write("\n")  # also where nothing came: the terminal has shown ^C
                raise
        if completion is None or not completion.reasoning_only:
            write("\n")
        return completion

    def _keep(self, question: Message, answer: str) -> None:
        if answer:  # a question without one would be answered together with the next
            self._turns += [question, Message("assistant", answer)]


def _indented(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        raise JSONModeError(
            f"The answer is no whole object: {text[:200]!r}. Allow more tokens with --max-tokens, or ask again."
        ) from None
    return json.dumps(value, indent=2, ensure_ascii=False)


def _tell(completion: Completion | None) -> None:
    """What is to know of an answer beside its text."""
    if completion is None:
        return
    if completion.trimmed:
        count = len(completion.trimmed.messages)
        note(f"{count:,} of the oldest messages were left out, so that the rest fitted the window.")
    if completion.reasoning_only:
        note("The model used all its tokens for thinking and wrote no answer. Allow it more with --max-tokens.")
    elif completion.finish_reason == "length":
        note("The answer is cut off: it took all the tokens that it may (--max-tokens).")


def _tell_retry(retry: Retry) -> None:
    note(f"Trying again in {retry.wait:.1f} s: {retry.error}")


def _summary(cost: CostTracker) -> str:
    calls = f"{cost.calls:,} call{'' if cost.calls == 1 else 's'}"
    unpriced = f" ({cost.unpriced_calls:,} of unknown cost)" if cost.unpriced_calls else ""
    tokens = f"{cost.prompt_tokens:,} tokens of prompt, {cost.completion_tokens:,} of answers"
    return f"{calls}{unpriced}, {tokens}, ${cost.cost_usd:,.6f}"
