"""LlamaIndex's own part of the work: an LLM that answers with a text of its own, whatever is below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from llama_index.core.llms import ChatMessage, ChatResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_chat_callback
from typing_extensions import override

from benchmarks.server import PIECE, TEXT
from benchmarks.wire import pieces_in


class IdleLLM(CustomLLM):
    """Does what LlamaIndex asks of an LLM, and no more."""

    below: Any

    @property
    @override
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    @override
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        self.below.call(messages[0].content)
        return _response(TEXT)

    @override
    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        await self.below.acall(messages[0].content)
        return _response(TEXT)

    @override
    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        def responses() -> Iterator[ChatResponse]:
            text = ""
            for data in self.below.stream(messages[0].content):
                for _number in pieces_in(data):
                    text += PIECE
                    yield _response(text, PIECE)

        return responses()

    @override
    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        async def responses() -> AsyncIterator[ChatResponse]:
            text = ""
            async for data in self.below.astream(messages[0].content):
                for _number in pieces_in(data):
                    text += PIECE
                    yield _response(text, PIECE)

        return responses()

    @override
    def complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    @override
    def stream_complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def _response(text: str, delta: str | None = None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=delta)
