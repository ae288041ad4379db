"""One way to drive the sync and the async face of a LangChain model."""

import asyncio
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk


class Face:
    """The sync methods of a model, under the names of the two things that tests ask for."""

    def whole(self, model: Any, /, *args: Any, **kwargs: Any) -> AIMessage:
        answer: AIMessage = model.invoke(*args, **kwargs)
        return answer

    def pieces(self, model: Any, /, *args: Any, **kwargs: Any) -> list[AIMessageChunk]:
        return list(model.stream(*args, **kwargs))


class AsyncFace(Face):
    def whole(self, model: Any, /, *args: Any, **kwargs: Any) -> AIMessage:
        answer: AIMessage = asyncio.run(model.ainvoke(*args, **kwargs))
        return answer

    def pieces(self, model: Any, /, *args: Any, **kwargs: Any) -> list[AIMessageChunk]:
        async def collect() -> list[AIMessageChunk]:
            return [chunk async for chunk in model.astream(*args, **kwargs)]

        return asyncio.run(collect())
