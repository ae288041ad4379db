"""One session affinity a conversation: a model that knows the thread of each call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from langchain_workersai.served import ServedModel
from langchain_workersai.threads import in_thread
from workersai.options import AUTO


class SessionModel(ServedModel):
    """A model that knows the thread of a call.

    LangChain keeps a call's configuration from where the call is made: here is where it can be seen.
    """

    if not TYPE_CHECKING:  # to a type checker the signatures are those of LangChain's own class

        def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002, D102
            return super().invoke(input, config, **self._in_thread(config, kwargs))

        async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002, D102
            return await super().ainvoke(input, config, **self._in_thread(config, kwargs))

        def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002, D102
            return super().stream(input, config, **self._in_thread(config, kwargs))

        def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002, D102
            return super().astream(input, config, **self._in_thread(config, kwargs))

    def _in_thread(self, config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        given = kwargs.get("session_affinity", self.session_affinity)
        return {**kwargs, **in_thread({"session_affinity": given}, config)} if given == AUTO else kwargs
