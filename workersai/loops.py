"""The connection pools of event loops: each loop has its own, since a connection works on one loop only."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Literal

from workersai import pools
from workersai._transport.async_pool import AsyncPool
from workersai._transport.httpx_clients import AsyncHttpxTransport
from workersai.pools import Pool, PoolKey, Pools, route_to

Word = Literal["httpx"] | None
AsyncTransport = AsyncPool | AsyncHttpxTransport
_Key = tuple[asyncio.AbstractEventLoop, Word, PoolKey]

_pools: Pools[_Key, AsyncTransport] = Pools()


async def pool_here(user: object, key: PoolKey, word: Word) -> Pool[AsyncTransport]:
    """The running loop's pool for an origin and an environment: ours, or one of httpx's if the word says so."""
    loop = asyncio.get_running_loop()
    pool = _pools.get((loop, word, key), user, lambda: _new_pool(key, word))
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


def _new_pool(key: PoolKey, word: Word) -> Pool[AsyncTransport]:
    origin, _ = key
    if word == "httpx":
        from workersai._transport.httpx_pool import new_transport  # noqa: PLC0415 - rarely used

        return Pool(new_transport(origin), is_guarded=True)
    transport = AsyncPool(origin, *route_to(origin), pools.LIMITS)
    return Pool(transport, forget=transport.forget)


async def _keep_open(pool: Pool[AsyncTransport]) -> AsyncGenerator[None, None]:
    """Closes the pool when its loop ends: a loop closes the generators that are still open on it, just before."""
    try:
        yield
    finally:
        _pools.remove(pool)
        if not pool.is_forgotten:
            await pool.transport.aclose()


def _forget(*, over: bool) -> None:
    """Lets go of the pools whose loops were closed without closing them, or of all at the end of the process."""
    for pool in _pools.drop(lambda key: key[0].is_closed() or not over):
        pool.is_forgotten = True
        pool.forget()
        if pool.keeper is not None:
            # Ended here, where it awaits nothing: its loop, which can't run any more, would complain of it otherwise.
            with suppress(StopIteration):
                pool.keeper.aclose().send(None)


atexit.register(_forget, over=False)
