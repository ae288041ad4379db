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
from workersai.tokens import Tokens, counts_exactly, prompt_tokens

_AT_ONCE = 500


def estimate(requests: Iterable[BatchRequest], options: dict[str, Any], *, mode: Mode, rate: int) -> None:
    """Checks all requests, and tells rows, tokens and price.

    Raises:
        BadRequestError: a row can't be sent.
    """
    client = Client(settings=Settings(account_id="dry-run", api_token="dry-run"))  # noqa: S106 - nothing is sent
    asker = Asker(client.settings, client.prepare, options, options, ())
    reader = Reader(asker.call, model=asker.model, mode=mode, keep_invalid=False)
    tokens, most_answers, batched, some = Tokens(0, 0), 0, 0, []

    def count(some: list[BatchRequest]) -> int:
        nonlocal tokens, most_answers
        rows, _ = reader.read(some)
        for row in rows:
            body = json.loads(asker.call(request_of_row(row)).request.content)
            messages = body.get("messages") or [{"role": "user", "content": body["prompt"]}]
            tokens += prompt_tokens(messages, ())
            most_answers += body.get("max_tokens", SERVICE_MAX_TOKENS)
        return sum(row.batched for row in rows)

    for request in requests:
        some.append(request)
        if len(some) == _AT_ONCE:
            batched += count(some)
            some = []
    batched += count(some)
    reader.check()
    _tell(asker, reader.count, tokens, most_answers)
    if mode == "auto" and batched < SMALL_JOB:
        batched = 0
    calls = reader.count - batched
    minutes = f", {math.ceil(calls / rate):,} minutes at {rate:,} a minute" if rate and calls else ""
    typer.echo(f"sent        {batched:,} rows in batches, {calls:,} as single calls{minutes}")


def _tell(asker: Asker, rows: int, tokens: Tokens, most_answers: int) -> None:
    exactly = "" if counts_exactly() else " at the most (for an exact count: pip install 'workersai[tokens]')"
    typer.echo(f"rows        {rows:,}")
    typer.echo(f"prompts     {tokens.most:,} tokens{exactly}")
    typer.echo(f"answers     {most_answers:,} tokens at the most, if each takes all that it may (--max-tokens)")
    if asker.card is None:
        typer.echo(f"price       not known for {asker.model}")
        return
    prompts, most = asker.card.cost_usd(tokens.most, 0), asker.card.cost_usd(tokens.most, most_answers)
    typer.echo(f"price       ${prompts:,.4f} for the prompts, ${most:,.4f} at the most with the answers")
