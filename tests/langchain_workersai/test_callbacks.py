"""Callbacks that fail: the stream under them is closed, and the model goes on working."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from langchain_workersai import ChatWorkersAI
from tests.support import Serve, connection
from workersai.local import Answer


class FailedError(Exception):
    pass


class Failing(BaseCallbackHandler):
    raise_error = True

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> Any:
        raise FailedError(token)


class FailingAsync(AsyncCallbackHandler):
    raise_error = True

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        raise FailedError(token)


def test_a_callback_that_raises_ends_the_stream_and_closes_its_connection(serve: Serve) -> None:
    server = serve(lambda request: Answer(pieces=iter(lambda: "word ", None)) if request.stream else "still there")
    llm = ChatWorkersAI(**connection(server))

    async def main() -> str:
        with pytest.raises(FailedError):
            async for _ in llm.astream("hi", {"callbacks": [FailingAsync()]}):
                pass
        return (await llm.ainvoke("hi")).text

    with pytest.raises(FailedError):
        for _ in llm.stream("hi", {"callbacks": [Failing()]}):
            pass
    assert server.requests[0].wait() == "disconnected"
    assert llm.invoke("hi").text == "still there"
    assert asyncio.run(main()) == "still there"
    assert server.requests[2].wait() == "disconnected"
