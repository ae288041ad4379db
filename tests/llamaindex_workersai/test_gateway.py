"""AI Gateway and session affinity through LlamaIndex."""

import json
from typing import Any

import pytest
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer

from llamaindex_workersai import WorkersAI
from tests.llamaindex_workersai.face import Face
from tests.support import Serve, connection
from workersai import Gateway
from workersai.local import Answer, LocalServer
from workersai.local.engine import Usage

GATEWAY = Gateway("g", cache_ttl=60, metadata={"team": "AI"})


@pytest.fixture
def server(serve: Serve) -> LocalServer:
    return serve(lambda _: Answer(pieces=["It ", "is sunny."], usage=Usage(1_000, 200)))


def ids(server: LocalServer) -> list[str]:
    return [record.headers["x-session-affinity"] for record in server.requests]


@pytest.mark.parametrize(("method", "given"), [("complete", "hi"), ("chat", [ChatMessage("hi")])])
def test_a_cached_answer_is_told_whole_and_streamed(face: Face, server: LocalServer, method: str, given: Any) -> None:
    llm = WorkersAI(**connection(server), gateway=GATEWAY)
    whole = [face.whole(llm, method, given).raw for _ in range(2)]
    last = [face.pieces(llm, method, given)[-1].raw for _ in range(2)]
    for first, again in (whole, last):
        assert (first["cache_status"], again["cache_status"]) == ("MISS", "HIT")
        assert first["gateway_log_id"] != again["gateway_log_id"]
        assert (again["cost_usd"], again["saved_usd"]) == (0, first["cost_usd"])
        assert "saved_usd" not in first


def test_it_is_stored(face: Face, server: LocalServer) -> None:
    llm = WorkersAI(**connection(server), gateway=GATEWAY.as_dict())
    assert llm.gateway == GATEWAY
    again = WorkersAI.from_dict(json.loads(llm.to_json()) | {"api_token": server.api_token})
    assert again.gateway == GATEWAY
    face.whole(again, "complete", "hi", gateway={"id": "call"})
    assert server.requests[-1].headers["cf-aig-gateway-id"] == "call"


def test_each_turn_of_a_chat_engine_has_the_same_id(server: LocalServer) -> None:
    llm = WorkersAI(**connection(server), session_affinity="auto")
    for name in ("Ann", "Bob"):
        memory = ChatMemoryBuffer.from_defaults(token_limit=9_000)
        engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt="You are terse.")
        engine.chat(f"Hi, I am {name}.")
        list(engine.stream_chat("What is a rainbow?").response_gen)
        engine.chat("Thank you.")
    ann, bob = ids(server)[0], ids(server)[-1]
    assert ids(server) == [ann] * 3 + [bob] * 3
    assert ann != bob


def test_a_prompt_and_the_conversation_that_it_begins_have_the_same_id(face: Face, server: LocalServer) -> None:
    llm = WorkersAI(**connection(server), session_affinity="auto")
    face.whole(llm, "complete", "hi")
    face.pieces(llm, "chat", [ChatMessage("hi"), ChatMessage("It is.", role="assistant"), ChatMessage("Is it?")])
    assert len(set(ids(server))) == 1
