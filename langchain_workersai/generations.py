"""Answers -> LangChain's generations of text, with what else is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from langchain_workersai.messages import metadata_of
from workersai.protocol.values import Completion, Delta, Usage


def generation_of(completion: Completion) -> Generation:
    """A whole answer."""
    return Generation(text=completion.text, generation_info={**_reasoning(completion.reasoning), **_info(completion)})


def chunk_of(delta: Delta) -> GenerationChunk:
    """A piece of a streamed answer; the last one, without text, has what is known of the whole."""
    if delta.completion is not None:
        return GenerationChunk(text="", generation_info=_info(delta.completion))
    # LangChain joins the strings of chunks that it adds up: the last chunk doesn't repeat the reasoning.
    return GenerationChunk(text=delta.text, generation_info=_reasoning(delta.reasoning) or None)


def whole_of(chunks: Sequence[GenerationChunk]) -> Generation:
    """The pieces of one answer as one."""
    whole = reduce(add, chunks)
    return Generation(text=whole.text, generation_info=whole.generation_info)


def result_of(generations: Iterable[Generation]) -> LLMResult:
    """The answers to several prompts, one each. ``llm_output`` is as that of LangChain's OpenAI text model."""
    answers = list(generations)
    told = output_of([answer.generation_info for answer in answers])
    return LLMResult(generations=[[answer] for answer in answers], llm_output=told)


def output_of(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The ``llm_output`` of several answers: the tokens of all, and the model."""
    total: dict[str, int] = {}
    for usage in ((part or {}).get("token_usage", {}) for part in parts):
        for name, tokens in usage.items():
            total[name] = total.get(name, 0) + tokens
    return {"token_usage": total, "model_name": next((part["model_name"] for part in parts if part), None)}


def output_of_completion(completion: Completion) -> dict[str, Any]:
    """The ``llm_output`` of one answer."""
    usage = {} if completion.usage is None else _usage_to_langchain(completion.usage)
    return {"token_usage": usage, "model_name": completion.model}


def _info(completion: Completion) -> dict[str, Any]:
    usage = {} if completion.usage is None else {"token_usage": _usage_to_langchain(completion.usage)}
    return {**metadata_of(completion), **usage}


def _reasoning(text: str) -> dict[str, Any]:
    return {"reasoning": text} if text else {}


def _usage_to_langchain(usage: Usage) -> dict[str, int]:
    """In the words that LangChain's handlers look for in the output of a text model."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }
