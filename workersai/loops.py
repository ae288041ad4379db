"""The connection pools of event loops: each loop has its own, since a connection works on one loop only."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncGenerator
from typing import Literal

import httpx

from workersai.pools import Pool, Pools, new_client
from workersai.settings import Settings

Word = Literal["httpx"] | None
_Key = tuple[asyncio.AbstractEventLoop, Word, tuple[str | None, ...]]

_pools: Pools[_Key, httpx.AsyncClient] = Pools()


async def pool_here(
    user: object, settings: Settings, key: tuple[str | None, ...], word: Word
) -> Pool[httpx.AsyncClient]:
    """The running loop's pool for these settings, on aiohttp, or on what the word says."""
    loop = asyncio.get_running_loop()
    pool = _pools.get((loop, word, key), user, lambda: _new_pool(settings, word))
    if pool.keeper is None:
        _forget(over=True)
        pool.keeper = _keep_open(pool)
        await anext(pool.keeper)
    return pool


async def leave(user: object) -> None:
    """Parts a user from its pools; this loop's are closed if nobody else uses them, the others' with their loops."""
    here = asyncio.get_running_loop()
    for pool in _pools.leave(user, may_close=lambda key: key[0] is here):
        if pool.keeper is not None:
            await pool.keeper.aclose()


def _new_pool(settings: Settings, word: Word) -> Pool[httpx.AsyncClient]:
    if word == "httpx":
        return Pool(new_client(httpx.AsyncClient, settings), ours=True)
    from workersai.aio import new_pool  # noqa: PLC0415 - takes its time, and only async calls need it

    return new_pool(settings)


async def _keep_open(pool: Pool[httpx.AsyncClient]) -> AsyncGenerator[None, None]:
    """Closes the pool when its loop ends: a loop closes the generators that are still open on it, just before."""
    try:
        yield
    finally:
        _pools.remove(pool)
        await pool.http.aclose()


def _forget(*, over: bool) -> None:
    """Lets go of the pools whose loops were closed without a word to them, or of all at the end of the process."""
    for pool in _pools.drop(lambda key: key[0].is_closed() or not over):
        pool.let_go()


atexit.register(_forget, over=False)
