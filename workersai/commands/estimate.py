"""``workersai batch run --dry-run``: what a job would be, without sending any of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import typer

from workersai import Client, Settings
from workersai.batch.opening import SMALL_JOB
from workersai.batch.plan import Asker
from workersai.batch.reading import Mode, Reader
from workersai.batch.results import request_of_row
from workersai.batch.values import BatchRequest
from workersai.catalog import SERVICE_MAX_TOKENS
from workersai.protocol.batch import most_added_tokens
from workersai.tokens import NO_TOKENS, Tokens, prompt_tokens, raw_tokens, tool_tokens

_AT_ONCE = 500


def estimate(requests: Iterable[BatchRequest], options: dict[str, Any], *, mode: Mode, rate: int) -> None:
    """Checks all requests, and prints rows, tokens and price: estimates, with an upper bound beside each.

    Raises:
        BadRequestError: a row can't be sent.
    """
    client = Client(settings=Settings(account_id="dry-run", api_token="dry-run"))  # noqa: S106 - nothing is sent
    asker = Asker(client.settings, client.prepare, options, options, ())
    reader = Reader(asker, mode=mode, keep_invalid=False)
    tokens, most_schemas, most_added, most_answers, batched, some = NO_TOKENS, 0, 0, 0, 0, []

    def count(some: list[BatchRequest]) -> int:
        nonlocal tokens, most_schemas, most_added, most_answers
        rows, _ = reader.read(some)
        for row in rows:
            body = json.loads(asker.call(request_of_row(row)).request.content)
            tokens += prompt_tokens(body["messages"], ()) if "messages" in body else raw_tokens(body["prompt"])
            if row.batched and "messages" in body:
                most_added += most_added_tokens(asker.batch_input)
            if "response_format" in body:  # which the service may write into the prompt, as far as is known
                most_schemas += tool_tokens(body["response_format"]).most
            most_answers += body.get("max_tokens", SERVICE_MAX_TOKENS)
        return sum(row.batched for row in rows)

    for request in requests:
        some.append(request)
        if len(some) == _AT_ONCE:
            batched += count(some)
            some = []
    batched += count(some)
    reader.check()
    if mode == "auto" and batched < SMALL_JOB:
        batched = most_added = 0
    _show(asker, reader.count, tokens, (most_schemas, most_added), most_answers)
    calls = reader.count - batched
    minutes = f", {math.ceil(calls / rate):,} minutes at {rate:,} a minute" if rate and calls else ""
    typer.echo(f"sent        {batched:,} rows in batches, {calls:,} as single calls{minutes}")


def _show(asker: Asker, rows: int, tokens: Tokens, most_more: tuple[int, int], most_answers: int) -> None:
    most_schemas, most_added = most_more  # of the prompts, beyond the single calls' own
    count, about = f"{tokens.most:,} tokens", ""
    if not tokens.exact:
        count = f"about {tokens.estimate:,} tokens (estimated), at most {tokens.most:,}"
        count, about = f"{count}; for an exact count: pip install 'workersai[tokens]'", "about "
    typer.echo(f"rows        {rows:,}")
    typer.echo(f"prompts     {count}")
    if most_schemas:
        typer.echo(f"schemas     {most_schemas:,} tokens at most, if the service adds them to the prompts")
    typer.echo(f"answers     {most_answers:,} tokens at most, if each takes all that it may (--max-tokens)")
    if asker.card is None:
        typer.echo(f"price       not known for {asker.model}")
        return
    prompts = asker.card.cost_usd(tokens.estimate, 0)
    most = asker.card.cost_usd(tokens.most + most_schemas + most_added, most_answers)
    typer.echo(f"price       {about}${prompts:,.4f} for the prompts, ${most:,.4f} at most with the answers")
