"""Callbacks that fail: the stream under them is closed, and the model goes on working."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import HumanMessage

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


class Heard(BaseCallbackHandler):
    """Keeps what it is told of the beginning and of the end."""

    def __init__(self) -> None:
        self.metadata: list[Any] = []
        self.ends: list[Any] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.metadata.append(kwargs["metadata"])

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ends.append(response.llm_output)


def test_langsmith_and_handlers_are_told_of_model_settings_and_tokens(serve: Serve) -> None:
    llm = ChatWorkersAI(temperature=0.3, max_tokens=9, stop=["x"], **connection(serve(lambda _: "one two")))
    heard = Heard()
    llm.invoke("a b c", {"callbacks": [heard]})
    asyncio.run(llm.ainvoke("a b c", {"callbacks": [heard]}))
    model = llm.model
    expected = {
        "ls_provider": "cloudflare",
        "ls_model_type": "chat",
        "ls_model_name": model,
        "ls_temperature": 0.3,
        "ls_max_tokens": 9,
        "ls_stop": ["x"],
    }
    assert [{name: told[name] for name in expected} for told in heard.metadata] == [expected] * 2
    tokens = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "cached_tokens": 0}
    assert heard.ends == [{"token_usage": tokens, "model_name": model}] * 2
    both = llm.generate([[HumanMessage("a b c")], [HumanMessage("d e f")]])
    assert both.llm_output == {"token_usage": {name: 2 * count for name, count in tokens.items()}, "model_name": model}
