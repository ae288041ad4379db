"""Structured prediction on the service's JSON Mode."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.output_parsers.base import OutputParserException
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from typing_extensions import override

from workersai.errors import ReasoningOnlyError
from workersai.protocol.reasoning import cut_off_message

dispatcher = get_dispatcher(__name__)

Model = TypeVar("Model", bound=BaseModel)

# Said to LlamaIndex's own programs, which call tools for a structured answer; JSON Mode calls none.
_SAID_TO_PROGRAMS = ("tool_required", "tool_choice", "allow_parallel_tool_calls")


class StructuredOutputError(OutputParserException, ValueError):
    """The answer is not valid. ``text`` is what the model wrote."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class JSONModePredictions(FunctionCallingLLM):
    """A LlamaIndex LLM whose structured predictions, and ``as_structured_llm``, ask for JSON Mode."""

    @abstractmethod
    def _predicts_in_json_mode(self) -> bool:
        """Whether the model has JSON Mode."""

    @override
    @dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of a Pydantic class, by the service's JSON Mode.

        With a ``pydantic_program_mode`` other than the default, LlamaIndex's program of that mode is used.

        Raises:
            BadRequestError: the class is none that the service could take: it refers to itself.
            JSONModeError: the model could not answer in JSON.
            StructuredOutputError: the answer is not valid; ``text`` is what the model wrote.
        """
        if not self._wants_json_mode():
            by_program: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return by_program
        dispatcher.event(_start(output_cls, prompt, prompt_args))
        with _structured_errors(output_cls):
            response = self.chat(self._filled(prompt, prompt_args), **json_mode_options(output_cls, llm_kwargs))
        result = object_from_response(output_cls, response)
        dispatcher.event(LLMStructuredPredictEndEvent(output=result))
        return result

    @override
    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """As :meth:`structured_predict`."""
        if not self._wants_json_mode():
            by_program: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return by_program
        dispatcher.event(_start(output_cls, prompt, prompt_args))
        with _structured_errors(output_cls):
            response = await self.achat(self._filled(prompt, prompt_args), **json_mode_options(output_cls, llm_kwargs))
        result = object_from_response(output_cls, response)
        dispatcher.event(LLMStructuredPredictEndEvent(output=result))
        return result

    # LlamaIndex's stream_structured_predict and its async twin call these. JSON Mode does not stream on the service:
    # they give the one result.
    @override
    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if not self._wants_json_mode():
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages, options = self._filled(prompt, prompt_args), json_mode_options(output_cls, llm_kwargs)

        def one() -> Generator[Any, None, None]:
            with _structured_errors(output_cls):
                response = self.chat(messages, **options)
            yield object_from_response(output_cls, response)

        return one()

    @override
    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if not self._wants_json_mode():
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        messages, options = self._filled(prompt, prompt_args), json_mode_options(output_cls, llm_kwargs)

        async def one() -> AsyncGenerator[Any, None]:
            with _structured_errors(output_cls):
                response = await self.achat(messages, **options)
            yield object_from_response(output_cls, response)

        return one()

    def _wants_json_mode(self) -> bool:
        return self._predicts_in_json_mode() and self.pydantic_program_mode is PydanticProgramMode.DEFAULT

    def _filled(self, prompt: PromptTemplate, prompt_args: dict[str, Any]) -> list[ChatMessage]:
        return self._extend_messages(prompt.format_messages(llm=self, **prompt_args))


def _start(output_cls: Any, prompt: Any, prompt_args: dict[str, Any]) -> LLMStructuredPredictStartEvent:
    return LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)


def json_mode_options(output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a call that is answered with an object of the class."""
    rest = {name: value for name, value in (llm_kwargs or {}).items() if name not in _SAID_TO_PROGRAMS}
    return {**rest, "response_format": output_cls}


@contextmanager
def _structured_errors(output_cls: type[BaseModel]) -> Iterator[None]:
    """Within it, a reply that is only reasoning is the error of any other answer without an object."""
    try:
        yield
    except ReasoningOnlyError as error:
        raise StructuredOutputError(cut_off_message(output_cls.__name__, "", reasoning_only=True), "") from error


def object_from_response(output_cls: type[Model], response: ChatResponse) -> Model:
    """The object that an answer holds.

    Raises:
        StructuredOutputError: it holds none, or not a valid one.
    """
    text = response.message.content or ""
    try:
        return output_cls.model_validate_json(text)
    except ValidationError as error:
        name = output_cls.__name__
        if was_cut(response) and not _is_json(text):
            message = cut_off_message(name, text, reasoning_only=is_only_reasoning(response))
        else:
            message = f"The answer is no valid {name}: {error}\n{text}"
        raise StructuredOutputError(message, text) from error


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def was_cut(response: ChatResponse) -> bool:
    """Whether the answer ended because it had reached ``max_tokens``."""
    return isinstance(response.raw, dict) and response.raw.get("finish_reason") == "length"


def is_only_reasoning(response: ChatResponse) -> bool:
    """Whether the model ran out of tokens while it was still thinking."""
    return isinstance(response.raw, dict) and bool(response.raw.get("reasoning_only"))
