"""One rate limit for a whole Ray cluster: a named actor gives the turns, whichever process a call is made in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from typing_extensions import override

from workersai.async_client import AsyncClient
from workersai.options import call_options
from workersai.pacing import Limiter, RateLimit, check_agreed
from workersai.settings import Settings

_NAMESPACE = "workersai"


class _Turns:
    """What the actor is. A turn is awaited there: it gets earlier where one before it leaves, and no clocks differ."""

    def __init__(self, limit: RateLimit) -> None:
        self._limiter = Limiter(limit)

    async def limit(self) -> RateLimit:
        return self._limiter.limit

    async def take(self) -> None:
        await self._limiter.taken()


class SharedLimiter(Limiter):
    """The limiter of all processes of a cluster that name the same limit.

    Its actor outlives the worker and the job that came first (it is "detached", and needs no CPU). Where it is lost
    with its machine, another takes its place and counts from then on. A turn costs about a millisecond, and
    there are about a thousand of them a second at most.

    Raises:
        ConfigurationError: the limit has other numbers already.
    """

    def __init__(self, limit: RateLimit, account_id: str) -> None:
        super().__init__(limit)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        actor: Any = ray.remote(_Turns).options(  # of which Ray's types say less than is known here
            name=_actor_name(limit, account_id),
            namespace=_NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            **options,
        )
        self._turns = actor.remote(limit)
        check_agreed(limit, ray.get(self._turns.limit.remote()), "this Ray cluster")

    @override
    async def taken(self, check: Callable[[float], None] | None = None) -> None:
        """Waits for a turn. How long that takes is not known before, so that nothing is checked."""
        turn = self._turns.take.remote()
        try:
            await turn
        except asyncio.CancelledError:
            ray.cancel(turn)  # so that those behind it move up
            raise


class SharingClient(AsyncClient):
    """An :class:`~workersai.AsyncClient` whose rate limit, the one it is made with, holds for the cluster."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        limit = call_options(self._defaults).rate_limit
        self._shared = limit and SharedLimiter(limit, self.settings.account_id)

    @override
    def limiter_of(self, limit: RateLimit) -> Limiter:
        return self._shared or super().limiter_of(limit)


def forget_rate_limit(limit: RateLimit | None = None, *, account_id: str | None = None) -> bool:
    """Removes the actor of a rate limit from the Ray cluster, which is kept after the job else.

    For when a limit is to have other numbers. Calls that still wait for a turn fail.

    Args:
        limit: The limit whose name counts. Default: the account's own.
        account_id: Whose; default ``CLOUDFLARE_ACCOUNT_ID``, then ``CF_ACCOUNT_ID``. Not used for a limit with a name.

    Returns:
        Whether there was one.

    Raises:
        ConfigurationError: the account is needed and not known.
    """
    limit = limit or RateLimit()
    account = "" if limit.name else Settings(account_id=account_id, api_token="unused").account_id  # noqa: S106
    try:
        turns = ray.get_actor(_actor_name(limit, account), namespace=_NAMESPACE)
    except ValueError:  # as Ray says that there is none
        return False
    ray.kill(turns)
    return True


def _actor_name(limit: RateLimit, account_id: str) -> str:
    return f"rate limit named {limit.name}" if limit.name else f"rate limit of account {account_id}"
