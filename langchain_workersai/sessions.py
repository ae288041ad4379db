"""One session affinity a conversation: the thread that a call belongs to, found in LangChain's configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from langchain_core.callbacks import BaseRunManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, ensure_config
from typing_extensions import override

from workersai.connected import ConnectedModel
from workersai.options import AUTO
from workersai.protocol.affinity import affinity_of_thread

_THREAD = "thread_id"


def in_thread(options: dict[str, Any], run_manager: BaseRunManager | None) -> dict[str, Any]:
    """The options of a call, with the id of its thread in place of ``"auto"``, if it has a thread.

    The thread is LangGraph's: ``thread_id`` in the ``configurable`` of the configuration, the call's own or the one
    that it runs inside of; or in its metadata, where LangSmith looks for it.
    """
    if options.get("session_affinity") != AUTO:
        return options
    told = None if run_manager is None else (run_manager.metadata or {}).get(_THREAD)
    thread = ensure_config().get("configurable", {}).get(_THREAD) if told is None else told
    return options if thread is None else {**options, "session_affinity": affinity_of_thread(thread)}


class SessionChatModel(BaseChatModel, ConnectedModel):
    """A chat model that knows the thread of a call.

    LangChain hands a configuration's metadata on to where the call is made, and not its ``configurable``.
    """

    @override
    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        return super().invoke(input, self._with_thread(config, kwargs), **kwargs)

    @override
    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        return await super().ainvoke(input, self._with_thread(config, kwargs), **kwargs)

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        return super().stream(input, self._with_thread(config, kwargs), **kwargs)

    @override
    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        return super().astream(input, self._with_thread(config, kwargs), **kwargs)

    def _with_thread(self, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> RunnableConfig | None:
        if kwargs.get("session_affinity", self.session_affinity) != AUTO:
            return config
        whole = ensure_config(config)
        thread = whole.get("configurable", {}).get(_THREAD)
        if thread is None:
            return config
        return {**whole, "metadata": {**whole.get("metadata", {}), _THREAD: thread}}
