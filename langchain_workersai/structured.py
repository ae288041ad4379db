"""Structured output: the answer of the model -> the object that was asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any

import pydantic
import pydantic.v1
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers.transform import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic_core import from_json
from typing_extensions import override

from workersai.protocol.reasoning import cut_off_message
from workersai.protocol.tools import tool_to_openai
from workersai.protocol.values import Tool


class StructuredOutputParser(BaseTransformOutputParser[Any]):
    """Reads the object out of an answer in JSON Mode, or out of the arguments of a call.

    A stream of arguments gives the object as it grows: a dict with each piece, a Pydantic object from where it is
    valid. A stream in JSON Mode gives the one result. At the end the whole answer has to be valid, streamed or not.
    """

    of: Any = None
    """The Pydantic class of the object (of version 1 too); None for a dict."""

    tool_name: str | None = None
    """The tool whose arguments are the object; None for JSON Mode."""

    @property
    @override
    def _type(self) -> str:
        return "workersai-structured-output"

    @override
    def parse(self, text: str) -> Any:
        """The object that a text of JSON holds.

        Raises:
            OutputParserException: it holds none, or not a valid one; ``llm_output`` is the text.
        """
        return self._validated(text)

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The object that a message holds; with ``partial``, None where it holds none yet.

        Raises:
            OutputParserException: it holds none, or not a valid one; ``llm_output`` is what the model wrote.
        """
        generation = result[0]
        message = generation.message if isinstance(generation, ChatGeneration) else AIMessage(generation.text)
        try:
            return self._validated(self._text(message), message)
        except OutputParserException:
            if partial:
                return None
            raise

    def _text(self, message: BaseMessage) -> str:
        if self.tool_name is None or not isinstance(message, AIMessage):
            return str(message.text)
        for call in message.tool_calls:
            if call["name"] == self.tool_name:
                return json.dumps(call["args"], ensure_ascii=False)
        for broken in message.invalid_tool_calls:
            return broken["args"] or ""
        text = str(message.text)
        if _was_cut(message):
            raise OutputParserException(_cut_off(self.tool_name, text, message), llm_output=text)
        raise OutputParserException(
            f"The model did not call {self.tool_name}, which was to hold its answer, but wrote: {text!r}",
            llm_output=text,
        )

    def _validated(self, text: str, message: BaseMessage | None = None) -> Any:
        name = self.of.__name__ if self.of is not None else "object"
        try:
            value = from_json(text)
            if self.of is None:
                if not isinstance(value, dict):
                    raise OutputParserException(f"The answer is no JSON object: {text}", llm_output=text)
                return value
            if issubclass(self.of, pydantic.v1.BaseModel):
                return self.of.parse_obj(value)
            return self.of.model_validate_json(text)
        except (pydantic.ValidationError, pydantic.v1.ValidationError) as error:
            raise OutputParserException(f"The answer is no valid {name}: {error}", llm_output=text) from error
        except ValueError as error:
            if isinstance(error, OutputParserException):
                raise
            why = f"The answer is not JSON ({error}): {text}"
            if message is not None and _was_cut(message):
                why = _cut_off(name, text, message)
            raise OutputParserException(why, llm_output=text) from error

    @override
    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:
        growing = _Growing(self)
        for chunk in input:
            yield from growing.add(chunk)
        yield from growing.end()

    @override
    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:
        growing = _Growing(self)
        async for chunk in input:
            for value in growing.add(chunk):
                yield value
        for value in growing.end():
            yield value


class _Growing:
    """The object of one stream, as far as it has come."""

    def __init__(self, parser: StructuredOutputParser) -> None:
        self._parser = parser
        self._message: Any = None
        self._last: Any = None

    def add(self, chunk: str | BaseMessage) -> list[Any]:
        """The object as it is now, if it has changed."""
        message = AIMessage(chunk) if isinstance(chunk, str) else chunk
        self._message = message if self._message is None else self._message + message
        if self._parser.tool_name is None:
            return []  # the text is JSON only when it is whole
        return self._changed(self._parser.parse_result([_generation(self._message)], partial=True))

    def end(self) -> list[Any]:
        """The whole object, unless the last one was it."""
        if self._message is None:
            return []
        return self._changed(self._parser.parse_result([_generation(self._message)]))

    def _changed(self, value: Any) -> list[Any]:
        if value is None or value == self._last:
            return []
        self._last = value
        return [value]


def structured(
    llm: Runnable[LanguageModelInput, AIMessage], parser: StructuredOutputParser, *, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """The model with the parser behind it; ``include_raw``: a dict of ``raw``, ``parsed`` and ``parsing_error``."""
    if not include_raw:
        return llm | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    not_parsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([not_parsed], exception_key="parsing_error")


def class_of(schema: Any) -> Any:
    """The Pydantic class that answers are to be objects of, or None where they are to be dicts."""
    models = (pydantic.BaseModel, pydantic.v1.BaseModel)
    return schema if isinstance(schema, type) and issubclass(schema, models) else None


def titled(schema: Any) -> Any:
    """A JSON Schema without a title with one, since a tool and an answer need a name."""
    if isinstance(schema, Mapping) and not {"title", "name", "function"} & set(schema):
        return {"title": "Answer", **schema}
    return schema


def _generation(message: Any) -> ChatGeneration:
    return ChatGeneration(message=message)


def _was_cut(message: BaseMessage) -> bool:
    return bool(message.response_metadata.get("finish_reason") == "length")


def _cut_off(name: str, text: str, message: BaseMessage) -> str:
    return cut_off_message(name, text, reasoning_only=bool(message.response_metadata.get("reasoning_only")))


def traced_schema(schema: Any, tool: Tool) -> Any:
    """What LangChain's tracing is given of a schema: the schema itself if LangChain can convert it, else our tool.

    LangChain's conversion raises TypeError for a TypedDict with qualifiers, such as ``NotRequired``, which ours takes;
    and its tracing expects only ValueError.
    """
    try:
        convert_to_json_schema(schema)
    except (TypeError, ValueError):
        return tool_to_openai(tool)
    return schema
