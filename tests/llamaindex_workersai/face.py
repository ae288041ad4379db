"""One way to drive the sync and the async face of a LlamaIndex LLM."""

import asyncio
from typing import Any

from llamaindex_workersai import WorkersAI


class Face:
    """The methods of an LLM by their sync names; ``complete`` and ``chat`` whole, the others as a list of pieces."""

    def whole(self, llm: WorkersAI, method: str, given: Any, /, **kwargs: Any) -> Any:
        return getattr(llm, method)(given, **kwargs)

    def pieces(self, llm: WorkersAI, method: str, given: Any, /, **kwargs: Any) -> list[Any]:
        return list(getattr(llm, f"stream_{method}")(given, **kwargs))


class AsyncFace(Face):
    def whole(self, llm: WorkersAI, method: str, given: Any, /, **kwargs: Any) -> Any:
        return asyncio.run(getattr(llm, f"a{method}")(given, **kwargs))

    def pieces(self, llm: WorkersAI, method: str, given: Any, /, **kwargs: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [piece async for piece in await getattr(llm, f"astream_{method}")(given, **kwargs)]

        return asyncio.run(collect())
