"""Tools and structured predictions through LlamaIndex, over real sockets, against scripted answers."""

import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, field_validator

from llamaindex_workersai import WorkersAI
from llamaindex_workersai.structured import StructuredOutputError
from tests.llamaindex_workersai.face import Face
from tests.support import EVERY_DIALECT, Node, Serve, calling, connection, openai_stream
from workersai import errors
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, RawReply
from workersai.local.scripted import Answer, Refusal

CALLS = (CalledTool("get_weather", {"city": "Paris"}), CalledTool("get_weather", {"city": "Nice"}))


def get_weather(city: str, days: int | None = None) -> str:
    """The weather of a city."""
    return f"{city} {days}"


def get_time() -> str:
    """The time."""
    return "noon"


WEATHER = FunctionTool.from_defaults(get_weather)
TIME = FunctionTool.from_defaults(get_time)


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int | None

    @field_validator("name")
    @classmethod
    def _is_no_number(cls, name: str) -> str:
        if name.isdigit():
            raise ValueError("a name is no number")
        return name


def model(server: LocalServer, **fields: Any) -> WorkersAI:
    return WorkersAI(**connection(server), **fields)


def selected(llm: WorkersAI, response: Any) -> list[tuple[str, Any]]:
    return [(call.tool_name, call.tool_kwargs) for call in llm.get_tool_calls_from_response(response)]


def test_the_model_is_told_to_call_functions(serve: Serve) -> None:
    assert model(serve("hi")).metadata.is_function_calling_model
    assert not model(serve("hi"), model="@cf/none/unlisted").metadata.is_function_calling_model


def test_tools_are_sent_in_the_services_terms(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(tool_calls=CALLS[:1]))
    llm = model(server)
    response = face.whole(llm, "chat_with_tools", [WEATHER, TIME], user_msg="hi", chat_history=[ChatMessage("Hello.")])
    assert selected(llm, response) == [("get_weather", {"city": "Paris"})]
    body = server.requests[0].body
    assert [message["content"] for message in body["messages"]] == ["Hello.", "hi"]
    weather, time = (tool["function"] for tool in body["tools"])
    assert weather["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "City"},
            "days": {"type": "integer", "description": "Days"},
        },
        "required": ["city"],
    }
    assert "The weather of a city." in weather["description"]
    assert time["parameters"]["properties"] == {}
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, None),
        ({"tool_required": True}, "required"),
        ({"tool_choice": "get_time"}, {"type": "function", "function": {"name": "get_time"}}),
        ({"tool_choice": "none"}, "none"),
        ({"tool_required": True, "tool_choice": "auto"}, "auto"),
    ],
)
def test_a_call_can_be_required(face: Face, serve: Serve, options: dict[str, Any], sent: Any) -> None:
    server = serve("hi")
    face.whole(model(server), "chat_with_tools", [WEATHER, TIME], user_msg=ChatMessage("hi"), **options)
    assert server.requests[0].body.get("tool_choice") == sent


@EVERY_DIALECT
def test_streamed_calls_grow_and_the_last_response_has_them_whole(face: Face, serve: Serve) -> None:
    start = {"id": "c1", "type": "function", "index": 0, "function": {"name": "get_weather"}}
    pieces = ['{"city": "Pa', 'ris"}']
    reply = openai_stream([start], *([{"index": 0, "function": {"arguments": piece}}] for piece in pieces))
    llm = model(serve([reply]))
    responses = face.pieces(llm, "chat_with_tools", [WEATHER], user_msg="hi")
    assert [selected(llm, response)[0][1] for response in responses] == [
        {},
        {"city": "Pa"},
        {"city": "Paris"},
        {"city": "Paris"},
    ]
    assert responses[-1].raw["finish_reason"] == "tool_calls"


@EVERY_DIALECT
def test_calls_are_one_at_a_time_unless_told_otherwise(face: Face, serve: Serve) -> None:
    llm = model(serve(lambda _: Answer(tool_calls=CALLS)))
    whole = face.whole(llm, "chat_with_tools", [WEATHER], user_msg="hi")
    last = face.pieces(llm, "chat_with_tools", [WEATHER], user_msg="hi")[-1]
    for response in (whole, last):
        assert selected(llm, response) == [("get_weather", {"city": "Paris"})]
        assert response.raw["dropped_tool_calls"][0]["arguments"] == {"city": "Nice"}
    both = face.whole(llm, "chat_with_tools", [WEATHER], user_msg="hi", allow_parallel_tool_calls=True)
    assert [kwargs for _, kwargs in selected(llm, both)] == [{"city": "Paris"}, {"city": "Nice"}]


@EVERY_DIALECT
def test_a_call_written_as_text_is_a_call(face: Face, serve: Serve) -> None:
    leaked = '{"type": "function", "name": "get_time", "parameters": {}}'
    llm = model(serve(lambda _: leaked))
    assert selected(llm, face.whole(llm, "chat_with_tools", [TIME], user_msg="hi")) == [("get_time", {})]
    assert selected(llm, face.pieces(llm, "chat_with_tools", [TIME], user_msg="hi")[-1]) == [("get_time", {})]


def test_an_answer_without_a_call_is_an_error_unless_told_otherwise(serve: Serve) -> None:
    llm = model(serve("It is noon."))
    response = llm.chat_with_tools([TIME], user_msg="hi")
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match=r"called no tool, but answered: 'It is noon\.'"):
        llm.get_tool_calls_from_response(response)


def wipe(path: str = "/") -> str:
    """Deletes all that is there."""
    raise AssertionError(path)


def test_broken_arguments_are_told_and_not_carried_out(face: Face, serve: Serve) -> None:
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "wipe", "arguments": '{"path": "/tmp/x'}}
    llm = model(serve(calling(call)))
    tool = FunctionTool.from_defaults(wipe)
    last = face.pieces(llm, "chat_with_tools", [tool], user_msg="hi")[-1]
    (block,) = (block for block in last.message.blocks if isinstance(block, ToolCallBlock))
    assert (block.tool_call_id, block.tool_kwargs) == ("c1", '{"path": "/tmp/x'), "nothing is lost"
    (output,) = face.whole(llm, "predict_and_call", [tool], user_msg="hi").sources
    assert output.is_error
    assert "unexpected keyword argument 'broken arguments'" in output.content


@EVERY_DIALECT
def test_a_completion_tells_of_calls_too(face: Face, serve: Serve) -> None:
    llm = model(serve(lambda _: Answer(tool_calls=CALLS[:1])))
    response = face.whole(llm, "complete", "hi", tools=[WEATHER])
    assert response.additional_kwargs["tool_calls"][0]["arguments"] == {"city": "Paris"}


@EVERY_DIALECT
def test_predict_and_call_carries_the_call_out(face: Face, serve: Serve) -> None:
    llm = model(serve(lambda _: Answer(tool_calls=CALLS)))
    assert face.whole(llm, "predict_and_call", [WEATHER], user_msg="hi").response == "Paris None"
    both = face.whole(llm, "predict_and_call", [WEATHER], user_msg="hi", allow_parallel_tool_calls=True)
    assert both.response == "Paris None\n\nNice None"


def test_a_history_of_calls_goes_back(face: Face, serve: Serve) -> None:
    server = serve(["x", "x"])
    llm = model(server)
    call = ToolCallBlock(tool_call_id="c1", tool_name="get_time", tool_kwargs={})
    history = [
        ChatMessage("What time is it?"),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]),
        ChatMessage(role=MessageRole.TOOL, content="noon", additional_kwargs={"tool_call_id": "c1"}),
    ]
    face.whole(llm, "chat_with_tools", [TIME], chat_history=history)
    _, assistant, tool = server.requests[0].body["messages"]
    assert assistant["content"] == '{"name":"get_time","parameters":{}}'
    assert tool == {"role": "tool", "name": "get_time", "tool_call_id": "c1", "content": "noon"}


def nameless() -> FunctionTool:
    tool = FunctionTool.from_defaults(get_time)
    tool._metadata = ToolMetadata(description="x", name=None)
    return tool


@pytest.mark.parametrize(
    ("tools", "options", "says"),
    [
        ([nameless()], {}, r"tools\[0\] has no name"),
        ([TIME, TIME], {}, "two tools of the name 'get_time'"),
        ([TIME], {"tool_choice": "x"}, "there is no tool 'x'"),
        ([], {"tool_required": True}, "there are no tools"),
        ([FunctionTool.from_defaults(get_time, fn_schema=Node)], {}, r"refers to itself \(Node -> Node\)"),
        ([5], {}, r"tools\[0\] must be"),
        (TIME, {}, "tools must be a list, not FunctionTool"),
    ],
)
def test_bad_tools_are_refused_before_a_request(serve: Serve, tools: Any, options: Any, says: str) -> None:
    server = serve("never")
    with pytest.raises(errors.BadRequestError, match=says):
        model(server).chat_with_tools(tools, user_msg="hi", **options)
    assert server.requests == []


PROMPT = PromptTemplate("Describe {who}.")


@EVERY_DIALECT
def test_structured_predictions_are_in_json_mode(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(object={"name": "Ann"}))
    llm = model(server, system_prompt="Be brief.")
    ann = Person(name="Ann", age=None)
    assert face.whole(llm, "structured_predict", Person, prompt=PROMPT, who="Ann") == ann
    assert face.pieces(llm, "structured_predict", Person, prompt=PROMPT, who="Ann") == [ann]
    for record in server.requests:
        assert record.body["response_format"]["json_schema"]["title"] == "Person"
        assert [message["content"] for message in record.body["messages"]] == ["Be brief.", "Describe Ann."]
        assert not record.body.get("stream")


def test_options_of_the_call_go_along_and_those_of_programs_do_not(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(object={"name": "Ann"}))
    options = {"temperature": 0.1, "tool_required": True, "tool_choice": None, "allow_parallel_tool_calls": False}
    face.whole(model(server), "structured_predict", Person, prompt=PROMPT, llm_kwargs=options, who="Ann")
    assert server.requests[0].body["temperature"] == 0.1


@EVERY_DIALECT
@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")  # LlamaIndex calls it
def test_a_structured_llm_answers_with_objects(face: Face, serve: Serve) -> None:
    llm: Any = model(serve(lambda _: Answer(object={"name": "Ann", "age": 5}))).as_structured_llm(Person)
    ann = Person(name="Ann", age=5)
    assert face.whole(llm, "chat", [ChatMessage("Describe Ann.")]).raw == ann
    assert face.whole(llm, "complete", "Describe Ann.").raw == ann
    assert [piece.raw for piece in face.pieces(llm, "chat", [ChatMessage("Describe Ann.")])] == [ann]


def test_other_program_modes_stay_with_llamaindex(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Answer(tool_calls=(CalledTool("Person", {"name": "Ann", "age": 5}),)))
    llm = model(server, pydantic_program_mode=PydanticProgramMode.FUNCTION)
    assert face.whole(llm, "structured_predict", Person, prompt=PROMPT, who="Ann") == Person(name="Ann", age=5)
    assert face.pieces(llm, "structured_predict", Person, prompt=PROMPT, who="Ann")[-1].name == "Ann"
    assert "response_format" not in server.requests[0].body


def test_an_answer_that_is_not_valid_raises_with_its_text(face: Face, serve: Serve) -> None:
    llm = model(serve(lambda _: Answer(object={"name": "5", "age": 1})))
    for call in (face.whole, face.pieces):
        with pytest.raises(StructuredOutputError, match=r"(?s)no valid Person: .*a name is no number") as caught:
            call(llm, "structured_predict", Person, prompt=PROMPT, who="Ann")
        assert json.loads(caught.value.text) == {"name": "5", "age": 1}


def test_an_answer_that_was_cut_off_says_so(face: Face, serve: Serve) -> None:
    result = {
        "response": '{"name": "An',
        "usage": {"prompt_tokens": 1, "completion_tokens": 4096, "total_tokens": 4097},
    }
    reply = RawReply(json.dumps({"result": result, "success": True}).encode(), content_type="application/json")
    with pytest.raises(StructuredOutputError, match="cut off at max_tokens, before the Person was whole: give"):
        face.whole(model(serve(lambda _: reply)), "structured_predict", Person, prompt=PROMPT, who="Ann")


def test_a_refusal_and_a_class_that_cannot_be_taken_are_errors(face: Face, serve: Serve) -> None:
    server = serve(lambda _: Refusal(5024, "AiError: JSON Mode couldn't be met"))
    with pytest.raises(errors.JSONModeError):
        face.whole(model(server), "structured_predict", Person, prompt=PROMPT, who="Ann")
    with pytest.raises(errors.BadRequestError, match="refers to itself"):
        face.whole(model(server), "structured_predict", Node, prompt=PROMPT, who="Ann")
    assert len(server.requests) == 1
