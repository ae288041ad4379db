"""What a ``/run`` body may hold: every range and type of the published schema, and what the schema does not say."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from tests.workersai.local.asking import MESSAGES, PROMPT, error_of, run
from workersai.local import LocalServer

BASES: dict[str, dict[str, Any]] = {"Prompt": PROMPT, "Messages": MESSAGES}
WRONG_VALUES: dict[str, list[Any]] = {
    "string": [7, None, ["x"]],
    "number": ["0.5", None, True],
    "integer": ["5", 1.5, None, True],
    "boolean": ["true", 1, None],
    "array": ["x", {}, None],
    "object": ["x", [], None],
}
GOOD_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}}}
GOOD_FUNCTION = {"name": "weather", "description": "Tells it.", "parameters": GOOD_PARAMETERS}


def published_fields() -> Iterator[tuple[str, str, dict[str, Any]]]:
    text = resources.files("workersai.local").joinpath("llama-3.3-70b-instruct-fp8-fast.schema.json").read_text()
    for form in json.loads(text)["input"]["oneOf"]:
        if form["title"] in BASES:
            yield from ((form["title"], name, rules) for name, rules in form["properties"].items())


RANGED = [(form, name, rules) for form, name, rules in published_fields() if "minimum" in rules]
TYPED = [
    (form, name, rules["type"], value)
    for form, name, rules in published_fields()
    for value in WRONG_VALUES[rules["type"]]
]


def refusal(server: LocalServer, body: Any) -> str:
    """Why the body is refused: what follows the words that every refusal of input begins with."""
    status, code, message = error_of(run(server, body))
    assert (status, code) == (400, 5006), message
    start = "AiError: Bad input: Error: "
    assert message.startswith(start)
    return message.removeprefix(start)


def accepted(server: LocalServer, body: Any) -> bool:
    response = run(server, body)
    assert response.status_code == 200, response.text
    return True


def with_tool(tool: Any) -> dict[str, Any]:
    return {**MESSAGES, "tools": [tool]}


def with_parameters(parameters: Any) -> dict[str, Any]:
    return with_tool({"type": "function", "function": {**GOOD_FUNCTION, "parameters": parameters}})


def test_the_schema_has_ranges_in_both_forms() -> None:
    assert {form for form, _, _ in RANGED} == set(BASES)
    assert len(RANGED) == 14


@pytest.mark.parametrize(("form", "name", "rules"), RANGED)
def test_a_value_at_either_end_of_its_range_is_accepted(
    echo: LocalServer, form: str, name: str, rules: dict[str, Any]
) -> None:
    for end in ("minimum", "maximum"):
        assert accepted(echo, {**BASES[form], name: rules[end]})


@pytest.mark.parametrize(("form", "name", "rules"), RANGED)
def test_a_value_beyond_its_range_is_refused_with_the_place_and_the_end(
    echo: LocalServer, form: str, name: str, rules: dict[str, Any]
) -> None:
    step = 1 if rules["type"] == "integer" else 0.0001
    low, high = rules["minimum"], rules["maximum"]
    assert refusal(echo, {**BASES[form], name: low - step}) == f"'/{name}' must be >= {low}"
    assert refusal(echo, {**BASES[form], name: high + step}) == f"'/{name}' must be <= {high}"


@pytest.mark.parametrize(("form", "name", "kind", "value"), TYPED)
def test_a_value_of_another_type_is_refused_with_the_place_and_the_type(
    echo: LocalServer, form: str, name: str, kind: str, value: Any
) -> None:
    assert refusal(echo, {**BASES[form], name: value}) == f"'/{name}' must be {kind}"


def test_messages_are_accepted_though_they_fit_the_batch_form_too(echo: LocalServer) -> None:
    """The schema's ``oneOf``, taken at its word, would refuse every body: Async Batch requires nothing."""
    assert accepted(echo, {**MESSAGES, "temperature": 0.5})


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_an_answer_has_at_least_one_token(echo: LocalServer, max_tokens: int) -> None:
    assert refusal(echo, {**PROMPT, "max_tokens": max_tokens}) == "'/max_tokens' must be >= 1"


@pytest.mark.parametrize("field", ["stop", "n", "model", "temprature", "tool_choices", "cf"])
@pytest.mark.parametrize("form", BASES)
def test_a_field_that_the_schema_lacks_is_refused(echo: LocalServer, form: str, field: str) -> None:
    assert f"'/{field}' is not a field of the {form.lower()} form" == refusal(echo, {**BASES[form], field: ["x"]})


@pytest.mark.parametrize("field", ["tools", "functions", "tool_choice"])
def test_a_prompt_takes_no_tools(echo: LocalServer, field: str) -> None:
    assert refusal(echo, {**PROMPT, field: []}) == f"'/{field}' is not a field of the prompt form"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "must have required property 'prompt' or 'messages'"),
        ({"temperature": 1}, "must have required property 'prompt' or 'messages'"),
        ({**PROMPT, **MESSAGES}, "either 'prompt' or 'messages', not both"),
        ({"prompt": ""}, "'/prompt' must NOT have fewer than 1 characters"),
        ({"messages": []}, "'/messages' must NOT have fewer than 1 items"),
        ({"messages": ["hi"]}, "'/messages/0' must be object"),
        ({"messages": [{"role": "user"}]}, "'/messages/0' must have required property 'content'"),
        ({"messages": [{"content": "hi"}]}, "'/messages/0' must have required property 'role'"),
        ({"messages": [{"role": "user", "content": None}]}, "'/messages/0/content' must be string"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "'/messages/0/content' must be string"),
        ({"messages": [{"role": "user", "content": "a", "id": 1}]}, "'/messages/0/id' is not a field of a message"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": 1}]}, "'/messages/0/tool_call_id' must be str"),
        ({"messages": [{"role": "tool", "content": "a", "name": None}]}, "'/messages/0/name' must be string"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": {}}]},
            "'/messages/0/tool_calls' must be arr",
        ),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "'/messages/0/tool_calls' must be "),
    ],
)
def test_a_prompt_or_message_that_breaks_the_contract_is_refused(
    echo: LocalServer, body: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(echo, body)


@pytest.mark.parametrize("role", ["developer", "function", "User", ""])
def test_a_role_that_the_service_lacks_is_refused(echo: LocalServer, role: str) -> None:
    body = {"messages": [{"role": "user", "content": "a"}, {"role": role, "content": "b"}]}
    assert refusal(echo, body) == "'/messages/1/role' must be one of system, user, assistant, tool"


def test_a_conversation_with_a_tool_call_and_its_answer_is_accepted(echo: LocalServer) -> None:
    native = {"name": "weather", "arguments": {"city": "Paris"}}
    openai = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": '{"name":"weather","parameters":{}}', "tool_calls": [native, openai]},
        {"role": "tool", "name": "weather", "tool_call_id": "1", "content": "Sunny."},
    ]
    assert accepted(echo, {"messages": messages, "tools": [GOOD_FUNCTION], "tool_choice": "auto"})


@pytest.mark.parametrize("tool", [GOOD_FUNCTION, {"type": "function", "function": GOOD_FUNCTION}])
def test_a_tool_may_be_written_in_either_form(echo: LocalServer, tool: dict[str, Any]) -> None:
    assert accepted(echo, with_tool(tool))
    assert accepted(echo, {**MESSAGES, "functions": [{"name": "f", "code": "return 1"}]})


def test_a_tool_in_both_forms_at_once_is_refused(echo: LocalServer) -> None:
    both = {**GOOD_FUNCTION, "type": "function", "function": GOOD_FUNCTION}
    assert refusal(echo, with_tool(both)) == "'/tools/0' must match exactly one schema in oneOf"


@pytest.mark.parametrize("missing", ["name", "description", "parameters"])
def test_a_tool_without_one_of_its_parts_is_refused(echo: LocalServer, missing: str) -> None:
    function = {name: part for name, part in GOOD_FUNCTION.items() if name != missing}
    assert f"required property '{missing}'" in refusal(echo, with_tool(function))
    reason = refusal(echo, with_tool({"type": "function", "function": function}))
    assert reason == f"'/tools/0/function' must have required property '{missing}'"


@pytest.mark.parametrize(
    ("city", "reason"),
    [
        ({"type": "string"}, "must have required property 'description'"),
        ({"description": "Where."}, "must have required property 'type'"),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "Where."},
            "must have required property 'type'",
        ),
        ({"$ref": "#/$defs/City"}, "must have required property"),
        ({"type": ["string", "null"], "description": "Where."}, "/type' must be string"),
        ("string", "must be object"),
    ],
    ids=["no description", "no type", "Optional as Pydantic prints it", "a $ref", "several types", "no object"],
)
def test_a_tools_property_needs_a_type_and_a_description(echo: LocalServer, city: Any, reason: str) -> None:
    told = refusal(echo, with_parameters({"type": "object", "properties": {"city": city}}))
    assert told.startswith("'/tools/0/function/parameters/properties/city")
    assert reason in told


@pytest.mark.parametrize("missing", ["type", "properties"])
def test_a_tools_parameters_need_type_and_properties(echo: LocalServer, missing: str) -> None:
    parameters = {name: part for name, part in GOOD_PARAMETERS.items() if name != missing}
    told = refusal(echo, with_parameters(parameters))
    assert told == f"'/tools/0/function/parameters' must have required property '{missing}'"


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "function": {"name": "weather"}}])
def test_each_tool_choice_of_the_service_is_accepted(echo: LocalServer, choice: Any) -> None:
    assert accepted(echo, {**with_tool(GOOD_FUNCTION), "tool_choice": choice})


@pytest.mark.parametrize(
    "choice", ["any", None, {}, {"name": "f"}, {"function": {}}, {"function": {"name": 1}}, ["auto"]]
)
def test_another_tool_choice_is_refused(echo: LocalServer, choice: Any) -> None:
    assert refusal(echo, {**with_tool(GOOD_FUNCTION), "tool_choice": choice}).startswith(
        "'/tool_choice' must be one of"
    )


def test_a_demanded_call_needs_its_tool(echo: LocalServer) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    reason = "'/tool_choice/function/name' must be equal to the name of one of the tools"
    assert accepted(echo, {**with_tool({"type": "function", "function": GOOD_FUNCTION}), "tool_choice": named})
    assert refusal(echo, {**MESSAGES, "tool_choice": named}) == reason
    assert refusal(echo, {**with_tool({**GOOD_FUNCTION, "name": "f"}), "tool_choice": named}) == reason
    without: list[dict[str, Any]] = [{}, {"tools": []}]
    for fields in without:
        told = refusal(echo, {**MESSAGES, **fields, "tool_choice": "required"})
        assert told == "'/tools' must NOT have fewer than 1 items where '/tool_choice' is required"
        assert accepted(echo, {**MESSAGES, **fields, "tool_choice": "auto"})
        assert accepted(echo, {**MESSAGES, **fields, "tool_choice": "none"})


@pytest.mark.parametrize(
    ("response_format", "reason"),
    [
        ({}, "'/response_format' must have required property 'type'"),
        ({"type": "text"}, "'/response_format/type' must be equal to one of the allowed values"),
        ({"type": "json_schema"}, "'/response_format/json_schema' must be a JSON Schema"),
        ({"type": "json_schema", "json_schema": "x"}, "'/response_format/json_schema' must be a JSON Schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}},
            "must be the bare JSON Schema, without the envelope",
        ),
    ],
)
@pytest.mark.parametrize("form", BASES)
def test_a_response_format_that_the_service_lacks_is_refused(
    echo: LocalServer, form: str, response_format: Any, reason: str
) -> None:
    assert reason in refusal(echo, {**BASES[form], "response_format": response_format})


def test_a_schema_with_a_property_named_schema_is_no_envelope(echo: LocalServer) -> None:
    schema = {"type": "object", "properties": {"schema": {"type": "string"}}, "schema": 1}
    response_format = {"type": "json_schema", "json_schema": schema}
    assert accepted(echo, {"prompt": '{"schema": "a"}', "response_format": response_format})


@pytest.mark.parametrize("form", BASES)
def test_json_mode_does_not_stream(echo: LocalServer, form: str) -> None:
    body = {**BASES[form], "response_format": {"type": "json_object"}, "stream": True}
    assert "JSON Mode does not stream" in refusal(echo, body)


@pytest.mark.parametrize(
    "options", [None, [], "x", {"rejectIfBusy": 1}, {"rejectIfBusy": None}, {"queueRequest": True}]
)
def test_options_hold_reject_if_busy_and_nothing_else(echo: LocalServer, options: Any) -> None:
    assert accepted(echo, {**PROMPT, "options": {"rejectIfBusy": False}})
    assert refusal(echo, {**PROMPT, "options": options}).startswith("'/options")


@pytest.mark.parametrize("lora", [1, None])
def test_a_lora_is_named_by_a_string(echo: LocalServer, lora: Any) -> None:
    assert refusal(echo, {**PROMPT, "lora": lora}) == "'/lora' must be string"
    assert refusal(echo, {**MESSAGES, "lora": lora}) == "'/lora' must be string"
