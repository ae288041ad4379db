"""The window as frameworks run into it: retrieval over a text that is too long, and chats that go on."""

import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage, trim_messages
from langgraph.checkpoint.memory import InMemorySaver
from llama_index.core import Document, Settings, SummaryIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer

from langchain_workersai import ChatWorkersAI
from langchain_workersai.errors import ContextWindowExceededError as InLangChain
from llamaindex_workersai import WorkersAI
from tests.support import Serve, connection
from workersai import Message, count_tokens, errors
from workersai.local import Answer, LocalServer
from workersai.local.engine import CalledTool, GenerationRequest

WINDOW = 24_000
ROOT = Path(__file__).parents[1]
ANY_MODEL = WorkersAI(account_id="a", api_token="t")


@pytest.fixture
def _loop() -> Iterator[None]:
    """LlamaIndex's sync methods make an event loop where there is none, and leave it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@cache
def own_text(tokens: int) -> str:
    """So many tokens of this project's documentation, and more.

    Prose, with some code in it: LlamaIndex counts word by word, which finds more tokens in code than there are.
    """
    files = sorted(ROOT.glob("docs/**/*.md"))
    texts: list[str] = []
    for path in files * 10:
        texts.append(f"# {path.relative_to(ROOT)}\n\n{path.read_text()}\n")
        tokens -= count_tokens(texts[-1])
        if tokens < 0:
            return "".join(texts)
    raise AssertionError("too little text")


@cache
def tokens_in(text: str) -> list[int]:
    """What ``WorkersAI.tokenize`` says, remembered: LlamaIndex asks it of the same words again and again."""
    return ANY_MODEL.tokenize(text)


@cache
def index_of_three_windows(*, own_tokenizer: bool) -> SummaryIndex:
    """Cut up by the tokenizer that is set: ours, or LlamaIndex's own."""
    return SummaryIndex.from_documents([Document(text=own_text(3 * WINDOW))])


def most_sent(server: LocalServer) -> int:
    """The tokens of the longest request, prompt and room for the answer together."""
    return max(tokens_of(record.body) for record in server.requests)


def tokens_of(body: dict[str, Any]) -> int:
    messages = body.get("messages") or [Message("user", body["prompt"])]
    plain = [{key: value for key, value in dict(message).items() if key != "tool_calls"} for message in messages]
    room: int = body["max_tokens"]
    return count_tokens(plain, tools=body.get("tools")) + room


@pytest.mark.usefixtures("_loop")
@pytest.mark.parametrize(
    ("mode", "max_tokens", "own_tokenizer"),
    [
        ("compact", None, True),
        ("compact", 900, True),
        ("compact", 900, False),
        ("refine", None, True),
        ("tree_summarize", 900, True),
        ("tree_summarize", None, False),
    ],
)
def test_a_query_over_three_windows_of_text_fits_each_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, mode: Any, max_tokens: int | None, own_tokenizer: bool
) -> None:
    server = serve(lambda _: "It is a client for Workers AI.")
    llm = WorkersAI(**connection(server), max_tokens=max_tokens)
    if own_tokenizer:
        monkeypatch.setattr(Settings, "tokenizer", tokens_in)
    index = index_of_three_windows(own_tokenizer=own_tokenizer)
    engine = index.as_query_engine(llm=llm, response_mode=mode)
    assert str(engine.query("What is this?")) == "It is a client for Workers AI."
    if mode == "tree_summarize":
        assert str(asyncio.run(engine.aquery("What is this?"))) == "It is a client for Workers AI."
    assert len(server.requests) > 3
    assert most_sent(server) <= WINDOW
    if mode != "refine":
        assert most_sent(server) > 0.8 * WINDOW, "the window is used"


@pytest.mark.usefixtures("_loop")
def test_llamaindex_chat_memory_fits(serve: Serve) -> None:
    server = serve(lambda request: f"Answer: {last_of(request)}")
    llm = WorkersAI(**connection(server))
    memory = ChatMemoryBuffer.from_defaults(llm=llm, tokenizer_fn=llm.tokenize)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt="Be brief.")
    for turn in range(15):
        engine.chat(f"{turn}: {'All work and no play makes Jack a dull boy. ' * 200}")
    assert most_sent(server) <= WINDOW
    assert all(record.body["messages"][0]["content"] == "Be brief." for record in server.requests)


def last_of(request: GenerationRequest) -> str:
    return request.messages[-1].content


def with_tools(request: GenerationRequest) -> Answer | str:
    """A tool in every other turn, and an answer as long as the question."""
    if request.messages[-1].role == "user" and len(request.messages) % 4 == 0:
        return Answer(tool_calls=(CalledTool("look_up", {"what": "play"}),))
    return Answer(text=f"Answer: {last_of(request)[:9_000]}")


@pytest.mark.parametrize("max_tokens", [None, 2_000])
def test_a_langgraph_chat_of_twenty_turns_is_trimmed_and_keeps_its_system_message(
    serve: Serve, max_tokens: int | None
) -> None:
    def look_up(what: str) -> str:
        """Looks something up."""
        return f"{what}: {'all work and no ' * 900}"

    server = serve(with_tools)
    llm = ChatWorkersAI(**connection(server), on_overflow="trim", max_tokens=max_tokens)
    agent: Any = create_agent(llm, [look_up], system_prompt="You are Jack.", checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for turn in range(20):
        question = f"{turn}: {'All work and no play makes Jack a dull boy. ' * 180}"
        state = agent.invoke({"messages": [("user", question)]}, config)
    assert any(isinstance(message, ToolMessage) for message in state["messages"])
    assert len(state["messages"]) >= 40, "the state keeps all of it"
    trimmed = state["messages"][-1].response_metadata["trimmed"]
    assert trimmed["messages"][0] == 1, "what follows the system message"
    assert trimmed["tokens"] > WINDOW
    for record in server.requests:
        first, *rest = record.body["messages"]
        assert (first["role"], first["content"]) == ("system", "You are Jack.")
        assert rest[0]["role"] == "user"
        assert tokens_of(record.body) <= WINDOW
    assert "19: All work" in str([message["content"] for message in server.requests[-1].body["messages"]])


def test_langchain_trims_with_the_models_own_count(serve: Serve) -> None:
    server = serve("ok")
    llm = ChatWorkersAI(**connection(server))
    chat = [SystemMessage("Be brief."), *[HumanMessage("All work and no play. " * 100)] * 70]
    with pytest.raises(ContextOverflowError) as caught:
        llm.invoke(chat)
    assert isinstance(caught.value, InLangChain)
    assert isinstance(caught.value, errors.ContextWindowExceededError)
    assert caught.value.prompt_tokens == llm.get_num_tokens_from_messages(chat)
    kept = trim_messages(chat, max_tokens=20_000, token_counter=llm, include_system=True)
    assert llm.get_num_tokens_from_messages(kept) <= 20_000
    assert llm.invoke(kept).text == "ok"
    assert server.requests[0].body["max_tokens"] >= 4_000
