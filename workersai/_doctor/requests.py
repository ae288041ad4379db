"""The bodies that the checks send: short, the same each time, and free of anything of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER, priced_card

QUESTION = "Answer with one word: what is the capital of France?"
ANSWER = "Paris"

_TEMPLATE = (
    "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
"""Meta's published prompt format of Llama 3, for one user message."""

MAX_TOKENS = 24
TOOL_MAX_TOKENS = 96
STREAM_QUESTION = "List the numbers from one to eight as digits, separated by commas."

TOOL_NAME = "get_weather"
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The name of the city."}},
            "required": ["city"],
        },
    },
}
TOOL_QUESTION = "What is the weather in Tokyo?"
Choice = Literal["auto", "required", "named"]

JSON_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
    "required": ["city", "country"],
}
_JSON_QUESTION = "Which city is the capital of France? Answer as JSON."

# A prefix cache works in blocks of tokens: the conversation begins with a system message of some hundred.
_LONG_SYSTEM = " ".join(f"Rule {number}: answer briefly, and never with more than one word." for number in range(1, 41))

TEXTS = ["A rainbow has seven colours.", "The capital of France is Paris."]
DOCUMENTS = [{"text": "Bread is made of flour."}, {"text": "The capital of France is Paris."}]

BatchForm = Literal["prompt", "template", "messages"]
BATCH_FORMS: tuple[BatchForm, ...] = ("prompt", "template", "messages")


def messages_body(text: str = QUESTION, **options: Any) -> dict[str, Any]:
    """One user message."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": MAX_TOKENS, **options}


def prompt_body(**options: Any) -> dict[str, Any]:
    """The same question in the Prompt form."""
    return {"prompt": QUESTION, "max_tokens": MAX_TOKENS, **options}


def tools_body(choice: Choice) -> dict[str, Any]:
    """A question that a tool answers."""
    named = {"type": "function", "function": {"name": TOOL_NAME}}
    wire = named if choice == "named" else choice
    return messages_body(TOOL_QUESTION, max_tokens=TOOL_MAX_TOKENS) | {"tools": [_TOOL], "tool_choice": wire}


def json_body() -> dict[str, Any]:
    """A question in JSON Mode."""
    form = {"type": "json_schema", "json_schema": JSON_SCHEMA}
    return messages_body(_JSON_QUESTION, max_tokens=TOOL_MAX_TOKENS, response_format=form)


def session_body() -> dict[str, Any]:
    """A conversation whose beginning is long enough for a prefix cache."""
    body = messages_body()
    return {**body, "messages": [{"role": "system", "content": _LONG_SYSTEM}, *body["messages"]]}


def batch_body(form: BatchForm) -> dict[str, Any]:
    """A batch of one item, whose question is asked in one of three forms."""
    item: Mapping[str, Any]
    if form == "messages":
        item = messages_body()
    elif form == "template":
        item = {"prompt": _TEMPLATE.format(text=QUESTION), "max_tokens": MAX_TOKENS}
    else:
        item = prompt_body()
    return {"requests": [{**item, "external_reference": f"doctor-{form}"}]}


def has_template(model: str) -> bool:
    """Whether the template of this module is the model's own."""
    return "/llama-3" in model


def text_bodies(model: str) -> list[dict[str, Any]]:
    """All bodies that a run sends to the model that generates text."""
    templated: list[BatchForm] = [form for form in BATCH_FORMS if form != "template" or has_template(model)]
    return [
        messages_body(),
        prompt_body(),
        messages_body(STREAM_QUESTION, stream=True),
        *(tools_body(choice) for choice in ("auto", "required", "named")),
        json_body(),
        messages_body(options={"rejectIfBusy": True}),
        session_body(),
        session_body(),
        *(batch_body(form)["requests"][0] for form in templated),
    ]


def embedding_body() -> dict[str, Any]:
    """Two short texts."""
    return {"text": TEXTS}


def rerank_body() -> dict[str, Any]:
    """A query and two documents, of which the second is the answer."""
    return {"query": "What is the capital of France?", "contexts": DOCUMENTS}


def most_cost_usd(model: str) -> float | None:
    """What a run can cost at most, in US dollars; None for a model without a known price.

    A token has at least one byte, so the bytes of a body bound its tokens; the chat template adds some of its own.
    """
    card = priced_card(model)
    if card is None:
        return None
    template = 300  # tokens; with tools, the service writes instructions into the prompt
    bodies = text_bodies(model)
    prompts = sum(len(repr(body)) + template for body in bodies)
    text = card.cost_usd(prompts, sum(body["max_tokens"] for body in bodies))
    vectors = priced_card(DEFAULT_EMBEDDING_MODEL), priced_card(DEFAULT_RERANKER)
    sizes = len(repr(embedding_body())), len(repr(rerank_body()))
    return text + sum(each.cost_usd(size, 0) for each, size in zip(vectors, sizes, strict=True) if each)


def count_of_requests(model: str) -> int:
    """How many requests a run sends at least: without polls, and without those that find out what is wrong."""
    return len(text_bodies(model)) + 3
