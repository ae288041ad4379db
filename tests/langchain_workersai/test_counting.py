"""Token counts through LangChain."""

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages

from langchain_workersai import ChatWorkersAI
from workersai import Message, count_tokens, errors


@pytest.fixture
def llm() -> ChatWorkersAI:
    return ChatWorkersAI(account_id="acc", api_token="tok")


def get_time(city: str) -> str:
    """The time in a city."""
    return city


def test_texts_and_messages_are_counted_as_the_transport_counts_them(llm: ChatWorkersAI) -> None:
    assert llm.get_num_tokens("Hello, world!") == 4
    assert llm.get_token_ids("Hello, world!") == [9906, 11, 1917, 0]
    chat = [SystemMessage("Be brief."), HumanMessage("Hello?")]
    counted = count_tokens([Message("system", "Be brief."), Message("user", "Hello?")])
    assert llm.get_num_tokens_from_messages(chat) == counted
    assert llm.get_num_tokens_from_messages(chat, tools=[get_time]) > counted + 50
    with pytest.raises(errors.BadRequestError, match="has no name"):
        llm.get_num_tokens_from_messages(chat, tools=[{"name": ""}])


def test_langchains_own_trimming_counts_with_the_model(llm: ChatWorkersAI) -> None:
    call = {"id": "c1", "name": "get_time", "args": {"city": "Nice"}, "type": "tool_call"}
    turns: list[BaseMessage] = [SystemMessage("Be brief.")]
    for number in range(20):
        turns += [HumanMessage(f"Question {number}?"), AIMessage("", tool_calls=[call])]
        turns += [ToolMessage("noon", tool_call_id="c1"), AIMessage("It is noon.")]
    kept = trim_messages(
        turns, token_counter=llm, max_tokens=200, strategy="last", include_system=True, start_on="human"
    )
    assert llm.get_num_tokens_from_messages(kept) <= 200
    assert kept[0] == turns[0]
    assert kept[-1] == turns[-1]
    assert kept[1].type == "human"
