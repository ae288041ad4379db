"""session_affinity="auto" through LangChain: LangGraph's thread is the conversation, and else its beginning."""

import asyncio
import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from langchain_workersai import ChatWorkersAI
from tests.langchain_workersai.face import AsyncFace, Face
from tests.support import Serve, connection
from workersai.local import Answer, LocalServer
from workersai.local.engine import CalledTool, GenerationRequest

ANN: Any = {"configurable": {"thread_id": "ann@example.com"}}
BOB: Any = {"configurable": {"thread_id": "bob@example.com"}}


@pytest.fixture
def server(serve: Serve) -> LocalServer:
    return serve(lambda _: "ok")


def auto(server: LocalServer, **fields: Any) -> ChatWorkersAI:
    return ChatWorkersAI(**connection(server), session_affinity="auto", **fields)


def ids(server: LocalServer) -> list[str]:
    return [record.headers["x-session-affinity"] for record in server.requests]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


def calling_once_a_turn(request: GenerationRequest) -> Answer:
    if request.messages[-1].role == "user":
        return Answer(tool_calls=(CalledTool("get_weather", {"city": "Nice"}),))
    return Answer("It is sunny.")


@pytest.mark.parametrize("streamed", [False, True])
def test_all_requests_of_a_thread_have_one_id_and_another_thread_another(
    face: Face, serve: Serve, streamed: bool
) -> None:
    if sys.version_info < (3, 11) and isinstance(face, AsyncFace):
        pytest.skip("on Python 3.10 an async node of LangGraph doesn't pass on its configuration")
    server = serve(calling_once_a_turn)
    agent: Any = create_agent(auto(server, streaming=streamed), [get_weather], checkpointer=InMemorySaver())
    for config in (ANN, BOB, ANN):
        face.whole(agent, {"messages": [("user", "How is the weather?")]}, config)
    assert len(ids(server)) == 6
    ann, bob = ids(server)[0], ids(server)[2]
    assert ids(server) == [ann, ann, bob, bob, ann, ann]
    assert ann != bob
    assert "example" not in ann + bob


def test_the_thread_of_a_call_of_its_own_counts(face: Face, server: LocalServer) -> None:
    model = auto(server)
    chain = ChatPromptTemplate.from_messages([("user", "{it}")]) | model.bind(max_tokens=9) | RunnableLambda(str)
    for text, config in (("a", ANN), ("b", ANN), ("c", BOB)):
        face.whole(model, text, config)
        face.pieces(model, text, config)
        face.whole(chain, {"it": text}, config)
    ann, bob = ids(server)[0], ids(server)[-1]
    assert ids(server) == [ann] * 6 + [bob] * 3
    assert ann != bob


def test_an_invoked_model_that_streams_knows_its_thread(face: Face, server: LocalServer) -> None:
    face.whole(auto(server), "a", ANN)
    face.whole(auto(server, streaming=True), "b", ANN)
    assert len(set(ids(server))) == 1


def test_threads_of_a_pool_know_theirs(server: LocalServer) -> None:
    model = auto(server)
    model.batch(["a", "b", "c"], ANN)
    asyncio.run(model.abatch(["a", "b", "c"], [ANN] * 3))
    assert len(set(ids(server))) == 1


def test_a_thread_inside_another_run_counts(face: Face, server: LocalServer) -> None:
    model = auto(server)

    def invoke(_: Any) -> Any:
        return model.invoke("hi")  # the run that it is inside of tells the thread

    def generate(_: Any) -> Any:
        return model.generate([[HumanMessage("hi")]])

    for call in (invoke, generate):
        face.whole(RunnableLambda(call), "x", ANN)
    face.whole(model, "hi", ANN)
    assert len(set(ids(server))) == 1


def test_a_thread_told_in_metadata_alone_counts(face: Face, server: LocalServer) -> None:
    face.whole(auto(server), "hi", {"metadata": {"thread_id": "ann@example.com"}})
    face.whole(auto(server), "hi", ANN)
    assert len(set(ids(server))) == 1


def test_without_a_thread_it_is_by_the_beginning(face: Face, server: LocalServer) -> None:
    said: list[BaseMessage] = [HumanMessage("Hi, I am Ann.")]
    model = auto(server)
    face.whole(model, said)
    face.whole(model, [*said, AIMessage("Hello."), HumanMessage("What is a rainbow?")])
    face.whole(model, "Hi, I am Bob.")
    first, again, other = ids(server)
    assert first == again != other


def test_an_id_of_ones_own_is_sent_as_it_is(face: Face, server: LocalServer) -> None:
    face.whole(ChatWorkersAI(**connection(server), session_affinity="mine"), "hi", ANN)
    face.whole(auto(server), "hi", ANN, session_affinity="mine")
    model = ChatWorkersAI(**connection(server))
    face.whole(model, "hi", ANN, session_affinity="auto")
    face.whole(model.bind(session_affinity="auto"), "hi", ANN)
    assert ids(server)[:2] == ["mine", "mine"]
    assert ids(server)[2] == ids(server)[3]
    face.whole(model, "hi", ANN)
    assert "x-session-affinity" not in server.requests[-1].headers


def test_the_thread_does_not_part_answers_in_langchains_cache(server: LocalServer) -> None:
    model = auto(server, cache=InMemoryCache())
    model.invoke("hi", ANN)
    model.invoke("hi", BOB)
    assert len(server.requests) == 1
