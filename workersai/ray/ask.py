"""AskModel: what ``Dataset.map_batches`` runs in each of its actors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import SecretStr
from ray.data.block import BlockAccessor
from typing_extensions import Unpack

from workersai.batch.fatal import is_fatal
from workersai.checks import shown
from workersai.errors import BadRequestError, WorkersAIError
from workersai.options import Options, call_options
from workersai.pacing import RateLimit
from workersai.protocol.json_mode import ResponseFormat, json_mode_of
from workersai.protocol.request import Input
from workersai.ray.columns import Columns, Outcome
from workersai.ray.prompts import Prompts
from workersai.ray.sharing import SharingClient
from workersai.settings import Settings

T = TypeVar("T")
_CONNECTION = ("settings", "account_id", "api_token", "base_url")


class AskOptions(Options, total=False):
    """The keyword arguments of :class:`AskModel` that are those of every call, and of a client."""

    response_format: ResponseFormat | None
    settings: Settings | None
    account_id: str | None
    api_token: str | SecretStr | None
    base_url: str | None


class AskModel:
    """Asks the model about each row; a class for ``ray.data.Dataset.map_batches``.

    Each actor has one client, and makes ``concurrency`` calls at once. The answers come as new columns, beside all
    that the Dataset has::

        import ray
        from workersai.ray import AskModel

        reviews = ray.data.read_parquet("reviews")
        answers = reviews.map_batches(
            AskModel,
            fn_constructor_kwargs=AskModel.checked(prompt="The mood of this review, in one word: {text}", max_tokens=8),
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_format="pyarrow",  # keeps the types of all columns
            batch_size=256,  # several times the concurrency; the slowest call of a batch holds the next one up
            num_cpus=0.1,  # an actor waits most of its time
        )
        answers.write_parquet("answers")

    A row whose call failed has no answer, and the error's name and text as its ``error``. Errors that no other row
    would escape stop the Dataset: a wrong token, a missing permission, the quota, an unknown model, a service that
    can't be reached. Ray starts a killed actor again, and the blocks that it had are done anew: no row is lost, but
    their calls are made, and paid for, once more. Small blocks (``reviews.repartition(n)``) make that little, and give
    all actors some.

    Args:
        prompt: The prompt, in which ``{column}`` stands for the row's value; a brace that stands for itself is written
            twice. Default: ``column`` holds the prompt.
        column: The column that holds the prompt, a text or a list of messages. Default: ``"prompt"``.
        system: The text of a system message that comes first.
        answer_column: Where the text of the answer goes; in JSON Mode it is the object as JSON text.
        error_column: Where the error goes; null where there is an answer.
        finish_reason_column: Where the finish reason goes, ``"length"`` for a cut answer; None leaves it out.
        usage_columns: Where the tokens of the prompt and of the answer go; None leaves them out.
        concurrency: Calls at once in each actor.
        **options: Every option of :class:`workersai.CallOptions`, for all calls; ``response_format``; and
            ``settings``, or ``account_id``, ``api_token`` and ``base_url``, by default from the environment of the
            worker. A token that is given as a string lies in Ray's object store, which the whole cluster can read:
            better have it in the environment of the workers. Settings travel without the token.
            ``rate_limit`` holds for all actors of the Ray cluster, each attempt takes its turn. Its default is the
            account's, 300 calls in a minute; None for none.

    Raises:
        BadRequestError: an argument can't be right, which it names; or the Dataset lacks a column.
        ConfigurationError: the account or the token is missing; the rate limit has other numbers in this cluster; the
            Dataset has a column of the name of a new one.
    """

    def __init__(
        self,
        *,
        prompt: str | None = None,
        column: str | None = None,
        system: str | None = None,
        answer_column: str = "answer",
        error_column: str = "error",
        finish_reason_column: str | None = "finish_reason",
        usage_columns: tuple[str, str] | None = ("prompt_tokens", "completion_tokens"),
        concurrency: int = 16,
        **options: Unpack[AskOptions],
    ) -> None:
        if prompt is not None and column is not None:
            raise BadRequestError("Give either prompt or column; not both.")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise BadRequestError(f"concurrency must be a whole number above 0, not {shown(concurrency)}.")
        self._prompts = Prompts(prompt, "prompt" if column is None else column, system)
        self._columns = Columns(answer_column, error_column, finish_reason_column, usage_columns)
        self._concurrency = concurrency
        given: dict[str, Any] = {"rate_limit": RateLimit(), **options}
        self._response_format = given.pop("response_format", None)
        json_mode_of(self._response_format)
        self._client = SharingClient(**given)
        # A thread of its own for the loop: Ray may call from several threads, or from inside of a loop of its own.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="workersai.ray", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()

    @classmethod
    def checked(cls, **arguments: Any) -> dict[str, Any]:
        """The same arguments, once they were checked: for ``fn_constructor_kwargs``, so that a mistake shows at once.

        The account, the token and the base URL are looked at in the actors only, whose environment may have them.

        Raises:
            BadRequestError: an argument can't be right, which it names.
        """
        call_options({"rate_limit": arguments.get("rate_limit")})
        others = {name: value for name, value in arguments.items() if name not in (*_CONNECTION, "rate_limit")}
        anyone = Settings(account_id="none", api_token="none")  # noqa: S106 - nothing is sent
        cls(**others, settings=anyone, rate_limit=None).close()
        return arguments

    def __call__(self, batch: Any) -> pa.Table:
        """The batch with the new columns, in the order of its rows.

        Args:
            batch: In any of Ray's batch formats. ``"pyarrow"`` keeps the types of the columns; of NumPy, which knows
                no nulls, Ray guesses them anew for each batch.

        Raises:
            ConfigurationError, BadRequestError: see the class.
            WorkersAIError: an error that no other row would escape.
        """
        table = batch if isinstance(batch, pa.Table) else _table_of(batch)
        self._columns.check(table)
        return self._columns.added(table, self._run(self._outcomes(self._prompts.inputs(table))))

    def close(self) -> None:
        """Closes the connections. In Ray they end with the actor's process."""
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:  # one batch at a time, so that there are no more calls at once than was said
            done = asyncio.run_coroutine_threadsafe(work, self._loop)
            try:
                return done.result()
            finally:
                done.cancel()  # where Ctrl-C, or Ray, ended the wait

    async def _outcomes(self, inputs: Sequence[Input | BadRequestError]) -> list[Outcome]:
        rows = iter(list(enumerate(inputs)))
        outcomes: dict[int, Outcome] = {}

        async def work() -> None:
            for row, asked in rows:
                outcomes[row] = asked if isinstance(asked, BadRequestError) else await self._outcome(asked)

        tasks = [asyncio.ensure_future(work()) for _ in range(min(self._concurrency, len(inputs)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [outcomes[row] for row in range(len(inputs))]

    async def _outcome(self, asked: Input) -> Outcome:
        try:
            return await self._client.run(asked, response_format=self._response_format)
        except WorkersAIError as error:
            if is_fatal(error):
                raise
            return error


def _table_of(batch: Any) -> pa.Table:
    return BlockAccessor.for_block(BlockAccessor.batch_to_block(batch)).to_arrow()
