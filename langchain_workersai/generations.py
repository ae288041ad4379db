"""Answers -> LangChain's generations of text, with what else is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from langchain_workersai.messages import metadata_of
from workersai.protocol.values import Completion, Delta, Usage


def generation_of(completion: Completion) -> Generation:
    """A whole answer."""
    return Generation(text=completion.text, generation_info=_info(completion))


def chunk_of(delta: Delta) -> GenerationChunk:
    """A piece of a streamed answer; the last one, without text, has what is known of the whole."""
    if delta.completion is None:
        return GenerationChunk(text=delta.text)
    return GenerationChunk(text="", generation_info=_info(delta.completion))


def whole_of(chunks: Sequence[GenerationChunk]) -> Generation:
    """The pieces of one answer as one."""
    whole = reduce(add, chunks)
    return Generation(text=whole.text, generation_info=whole.generation_info)


def result_of(generations: Iterable[Generation]) -> LLMResult:
    """The answers to several prompts, one each. ``llm_output`` is as that of LangChain's OpenAI text model."""
    answers = list(generations)
    infos = [answer.generation_info or {} for answer in answers]
    total: dict[str, int] = {}
    for usage in (info.get("token_usage", {}) for info in infos):
        for name, tokens in usage.items():
            total[name] = total.get(name, 0) + tokens
    told = {"token_usage": total, "model_name": next((info.get("model_name") for info in infos), None)}
    return LLMResult(generations=[[answer] for answer in answers], llm_output=told)


def _info(completion: Completion) -> dict[str, Any]:
    usage = {} if completion.usage is None else {"token_usage": _usage_to_langchain(completion.usage)}
    return {**metadata_of(completion), **usage}


def _usage_to_langchain(usage: Usage) -> dict[str, int]:
    """In the words that LangChain's handlers look for in the output of a text model."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }
