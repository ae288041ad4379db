"""One way to drive the sync and the async face of a LangChain model."""

import asyncio
from typing import Any


class Face:
    """The sync methods of a model, under the names of the two things that tests ask for."""

    def whole(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return model.invoke(*args, **kwargs)

    def pieces(self, model: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        return list(model.stream(*args, **kwargs))

    def many(self, model: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        return list(model.batch(*args, **kwargs))

    def generated(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return model.generate(*args, **kwargs)

    def in_bulk(self, model: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        return list(model.batch_api(*args, **kwargs))

    def in_bulk_as_completed(self, model: Any, /, *args: Any, **kwargs: Any) -> dict[int, Any]:
        return dict(model.batch_api_as_completed(*args, **kwargs))


class AsyncFace(Face):
    def whole(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(model.ainvoke(*args, **kwargs))

    def pieces(self, model: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [chunk async for chunk in model.astream(*args, **kwargs)]

        return asyncio.run(collect())

    def many(self, model: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        return list(asyncio.run(model.abatch(*args, **kwargs)))

    def generated(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(model.agenerate(*args, **kwargs))

    def in_bulk(self, model: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        return list(asyncio.run(model.abatch_api(*args, **kwargs)))

    def in_bulk_as_completed(self, model: Any, /, *args: Any, **kwargs: Any) -> dict[int, Any]:
        async def collect() -> dict[int, Any]:
            return {index: outcome async for index, outcome in model.abatch_api_as_completed(*args, **kwargs)}

        return asyncio.run(collect())
