"""One session affinity a conversation: the thread that a call belongs to, found in LangChain's configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, ensure_config
from typing_extensions import override

from workersai.connected import ConnectedModel
from workersai.options import AUTO
from workersai.protocol.affinity import affinity_of_thread

_THREAD = "thread_id"


def in_thread(options: dict[str, Any], config: RunnableConfig | None = None) -> dict[str, Any]:
    """The options of a call, with the id of its thread in place of ``"auto"``, if it has a thread.

    The thread is LangGraph's: ``thread_id`` in the ``configurable`` of the configuration, the call's own or that of the
    run that it is inside of; or in its metadata, where LangSmith looks for it.
    """
    if options.get("session_affinity") != AUTO:
        return options
    whole = ensure_config(config)
    thread = whole.get("configurable", {}).get(_THREAD)
    thread = whole.get("metadata", {}).get(_THREAD) if thread is None else thread
    return options if thread is None else {**options, "session_affinity": affinity_of_thread(thread)}


class SessionChatModel(BaseChatModel, ConnectedModel):
    """A chat model that knows the thread of a call.

    LangChain keeps a call's configuration from where the call is made: here is where it can be seen.
    """

    @override
    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        return super().invoke(input, config, **self._in_thread(config, kwargs))

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        return await super().ainvoke(input, config, **self._in_thread(config, kwargs))

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        return super().stream(input, config, **self._in_thread(config, kwargs))

    @override
    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        return super().astream(input, config, **self._in_thread(config, kwargs))

    def _in_thread(self, config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        given = kwargs.get("session_affinity", self.session_affinity)
        return {**kwargs, **in_thread({"session_affinity": given}, config)} if given == AUTO else kwargs
