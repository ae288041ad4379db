"""LangChain's own part of the work: a chat model that answers with a text of its own, whatever is below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from typing_extensions import override

from benchmarks.server import PIECE, TEXT
from benchmarks.wire import pieces_in


class IdleChatModel(BaseChatModel):
    """Does what LangChain asks of a model, and no more."""

    below: Any

    @property
    @override
    def _llm_type(self) -> str:
        return "idle"

    @override
    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.below.call(messages[0].content)
        return _whole()

    @override
    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        await self.below.acall(messages[0].content)
        return _whole()

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for data in self.below.stream(messages[0].content):
            for _number in pieces_in(data):
                chunk = _chunk()
                if run_manager is not None:
                    run_manager.on_llm_new_token(PIECE, chunk=chunk)
                yield chunk

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for data in self.below.astream(messages[0].content):
            for _number in pieces_in(data):
                chunk = _chunk()
                if run_manager is not None:
                    await run_manager.on_llm_new_token(PIECE, chunk=chunk)
                yield chunk


def _whole() -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(content=TEXT))])


def _chunk() -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=PIECE))
