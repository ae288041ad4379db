"""Agents of both frameworks with the same two tools: exact with a script, real with SmolLM2 under grammar."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult
from llama_index.core.memory import ChatMemoryBuffer
from pydantic import BaseModel

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.support import Serve, connection
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, GenerationRequest
from workersai.local.scripted import Answer

# LlamaIndex's workflows look at every attribute of an agent, Pydantic's deprecated ones too.
llamaindex_agent = pytest.mark.filterwarnings(
    "ignore::pydantic.PydanticDeprecatedSince20", "ignore::pydantic.PydanticDeprecatedSince211"
)

TURNS = ["What is the weather in Paris?", "And in Nice, and what time is it there?", "Thank you."]
ANSWERS = ["It is sunny in Paris.", "In Nice it is sunny, and noon.", "You are welcome."]
PARIS = CalledTool("get_weather", {"city": "Paris"})
NICE = (CalledTool("get_weather", {"city": "Nice"}), CalledTool("get_time", {"city": "Nice"}))


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


def get_time(city: str) -> str:
    """The time in a city."""
    return f"{city}: noon"


TOOLS: list[Any] = [get_weather, get_time]


def script() -> list[Answer]:
    """A call and an answer; two calls at once and an answer; an answer."""
    first, second, third = (Answer(pieces=[f"{word} " for word in answer.split()]) for answer in ANSWERS)
    return [Answer(tool_calls=(PARIS,)), first, Answer(tool_calls=NICE), second, third]


def told(server: LocalServer) -> list[tuple[str, str]]:
    """The roles and texts of the last request's messages."""
    return [(message["role"], message["content"]) for message in server.requests[-1].body["messages"]]


HISTORY = [
    ("user", TURNS[0]),
    ("assistant", '{"name":"get_weather","parameters":{"city":"Paris"}}'),
    ("tool", "Paris: sunny"),
    ("assistant", f"{ANSWERS[0]} "),
    ("user", TURNS[1]),
    (
        "assistant",
        '{"name":"get_weather","parameters":{"city":"Nice"}}\n{"name":"get_time","parameters":{"city":"Nice"}}',
    ),
    ("tool", "Nice: sunny"),
    ("tool", "Nice: noon"),
    ("assistant", f"{ANSWERS[1]} "),
    ("user", TURNS[2]),
]


def test_a_langgraph_agent_with_two_tools_over_three_turns_streamed(serve: Serve) -> None:
    server = serve(script())
    agent: Any = create_agent(ChatWorkersAI(**connection(server)), TOOLS, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for turn, answer in zip(TURNS, ANSWERS, strict=True):
        pieces = [
            message.text
            for message, _ in agent.stream({"messages": [("user", turn)]}, config, stream_mode="messages")
            if isinstance(message, AIMessageChunk) and message.text
        ]
        assert [piece.strip() for piece in pieces] == answer.split(), "each word came as a piece of its own"
    assert told(server) == HISTORY
    calls = [
        call["name"]
        for message in agent.get_state(config).values["messages"]
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]
    assert calls == ["get_weather", "get_weather", "get_time"]


def test_a_langgraph_agent_with_two_tools_over_three_turns_async(serve: Serve) -> None:
    server = serve(script())
    agent: Any = create_agent(ChatWorkersAI(**connection(server)), TOOLS, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}

    async def talk() -> list[str]:
        turns = [await agent.ainvoke({"messages": [("user", turn)]}, config) for turn in TURNS]
        return [state["messages"][-1].text.strip() for state in turns]

    assert asyncio.run(talk()) == ANSWERS
    assert told(server) == HISTORY


@llamaindex_agent
@pytest.mark.parametrize("streaming", [True, False])
def test_a_llamaindex_agent_with_the_same_tools_over_three_turns(serve: Serve, streaming: bool) -> None:
    server = serve(script())
    agent = FunctionAgent(tools=TOOLS, llm=WorkersAI(**connection(server)), streaming=streaming)

    async def talk() -> None:
        memory = ChatMemoryBuffer.from_defaults(token_limit=20_000)
        for turn, answer in zip(TURNS, ANSWERS, strict=True):
            handler = agent.run(turn, memory=memory)
            pieces = [event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
            assert str(await handler).strip() == answer
            if streaming:
                assert [piece.strip() for piece in pieces if piece.strip()] == answer.split()

    asyncio.run(talk())
    assert told(server) == HISTORY


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    sky: str | None


REPORT = {"city": "Paris", "sky": "clear"}


@pytest.mark.parametrize("strategy", [Weather, ProviderStrategy(Weather)], ids=["auto", "provider"])
def test_an_agent_calls_tools_first_and_then_answers_in_json_mode(serve: Serve, strategy: Any) -> None:
    server = serve([Answer(tool_calls=(PARIS,)), "It is sunny in Paris.", Answer(object=REPORT)])
    agent: Any = create_agent(ChatWorkersAI(**connection(server)), TOOLS, response_format=strategy)
    state = agent.invoke({"messages": [("user", TURNS[0])]})
    assert state["structured_response"] == Weather(city="Paris", sky="clear")
    assert [sorted({"tools", "response_format"} & set(record.body)) for record in server.requests] == [
        ["tools"],
        ["tools"],
        ["response_format"],
    ]


def test_an_agent_may_answer_by_a_tool_of_its_own(serve: Serve) -> None:
    server = serve([Answer(tool_calls=(PARIS,)), Answer(tool_calls=(CalledTool("Weather", {"city": "Paris"}),))])
    agent: Any = create_agent(ChatWorkersAI(**connection(server)), TOOLS, response_format=ToolStrategy(Weather))
    state = agent.invoke({"messages": [("user", TURNS[0])]})
    assert state["structured_response"] == Weather(city="Paris", sky=None)


def test_an_agent_without_tools_answers_in_json_mode_streamed(serve: Serve) -> None:
    server = serve([Answer(object=REPORT)])
    agent: Any = create_agent(ChatWorkersAI(**connection(server)), response_format=ProviderStrategy(Weather))
    (*_, last) = agent.stream({"messages": [("user", TURNS[0])]}, stream_mode="values")
    assert last["structured_response"] == Weather(city="Paris", sky="clear")


def test_a_failing_tool_is_told_to_the_model(serve: Serve) -> None:
    def fail(request: GenerationRequest) -> Any:
        return (
            "I am sorry."
            if request.messages[-1].role == "tool"
            else Answer(tool_calls=(CalledTool("get_weather", {}),))
        )

    server = serve(fail)
    agent: Any = create_agent(ChatWorkersAI(**connection(server)), TOOLS)
    assert agent.invoke({"messages": [("user", TURNS[0])]})["messages"][-1].text == "I am sorry."
    role, text = told(server)[-1]
    assert (role, text.startswith("Error")) == ("tool", True)


class FirstCallThenAnswer(AgentMiddleware):
    """Forces a call before a tool has answered, and none after: a small model can't be relied on to choose."""

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        answered = isinstance(request.messages[-1], ToolMessage)
        return handler(request.override(tool_choice="none" if answered else "any"))


@pytest.mark.model
def test_a_langgraph_agent_calls_a_tool_and_answers_with_the_real_model(smollm: LocalServer) -> None:
    llm = ChatWorkersAI(**connection(smollm), temperature=0, max_tokens=64)
    agent: Any = create_agent(llm, TOOLS, middleware=[FirstCallThenAnswer()], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for turn in TURNS:
        events = list(agent.stream({"messages": [("user", turn)]}, config, stream_mode="messages"))
        (tool_message,) = (message for message, _ in events if isinstance(message, ToolMessage))
        assert tool_message.status == "success"
        answer = agent.get_state(config).values["messages"][-1]
        assert answer.text
        assert not answer.tool_calls


@llamaindex_agent
@pytest.mark.model
def test_a_llamaindex_agent_calls_a_tool_and_answers_with_the_real_model(smollm: LocalServer) -> None:
    llm = WorkersAI(**connection(smollm), temperature=0, max_tokens=64)
    agent = FunctionAgent(tools=TOOLS, llm=llm, initial_tool_choice="get_weather")

    async def talk() -> tuple[list[ToolCallResult], str]:
        handler = agent.run(TURNS[0])
        results = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
        return results, str(await handler)

    results, answer = asyncio.run(talk())
    assert results[0].tool_name == "get_weather"
    assert isinstance(results[0].tool_kwargs["city"], str)
    assert not results[0].tool_output.is_error
    assert answer
