"""ChatWorkersAI: Workers AI as a LangChain chat model. Convert, call, convert back; the rest is ``workersai``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableBinding
from pydantic import ConfigDict
from typing_extensions import override

from langchain_workersai.batch import BatchingModel, BoundModel
from langchain_workersai.counting import CountingChatModel
from langchain_workersai.errors import langchain_errors
from langchain_workersai.generations import output_of, output_of_completion
from langchain_workersai.messages import ChunkWriter, message_to_langchain, messages_from_langchain
from langchain_workersai.profile import profile_of
from langchain_workersai.reasoning import (
    ALLOW_REASONING_ONLY,
    allowed_adeltas,
    allowed_deltas,
    arun_allowed,
    run_allowed,
)
from langchain_workersai.sessions import SessionModel
from langchain_workersai.structured import StructuredOutputParser, class_of, structured, titled, traced_schema
from langchain_workersai.tools import ToolSource, envelope_of, plain, tool_from_langchain, tools_from_langchain
from workersai.errors import BadRequestError
from workersai.protocol.tools import ToolChoice, offer_of, tool_to_openai
from workersai.protocol.values import Completion, Delta, Message


class ChatWorkersAI(SessionModel, CountingChatModel, BatchingModel, BaseChatModel):
    """Chat with a model on Cloudflare Workers AI.

    Setup:
        ``pip install 'workersai[langchain]'``, and set ``CLOUDFLARE_ACCOUNT_ID`` and ``CLOUDFLARE_API_TOKEN``.

    Example:
        .. code-block:: python

            from langchain_workersai import ChatWorkersAI

            llm = ChatWorkersAI(temperature=0.2, max_tokens=512)
            print(llm.invoke("Why is the sky blue?").text)
            for chunk in llm.stream("Why is the sky blue?"):
                print(chunk.text, end="")

    Every setting of a call (:class:`workersai.CallOptions`) is a field here, and a keyword of ``invoke``, ``stream``,
    ``bind`` and their kind, ``model`` too.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.WorkersAIError: from a call; each is LangChain's own error as well
            (``langchain_core.exceptions``).
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    _said_to_this_class = SessionModel._said_to_this_class | {"stream", "stream_usage", ALLOW_REASONING_ONLY}  # noqa: SLF001 - of its base

    stream_usage: bool = True
    """Whether the last chunk of a stream carries ``usage_metadata``."""

    @property
    @override
    def _llm_type(self) -> str:
        return "workersai-chat"

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return profile_of(self.model)

    @override
    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        params = super()._get_invocation_params(stop, **kwargs)
        return params if params["stop"] is not None else {**params, "stop": self.stop}

    @override
    def bind(self, **kwargs: Any) -> RunnableBinding[LanguageModelInput, AIMessage]:  # type: ignore[override]
        return BoundModel(bound=self, kwargs=kwargs, config={})

    @override
    def bind_tools(
        self,
        tools: Sequence[ToolSource],
        *,
        tool_choice: ToolChoice | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This model with tools that it may call.

        Args:
            tools: Functions, Pydantic classes (of version 1 too), TypedDicts, LangChain tools, or dicts in OpenAI's or
                Anthropic's shape. Schemas are rewritten as the service takes them: without references and unions.
            tool_choice: None or ``"auto"``: the model chooses. ``"any"``, ``"required"`` or True: it has to call one.
                ``"none"``: it may not. A tool's name, or OpenAI's dict that names one: it has to call that one. The
                service enforces a call of a named or of the only tool; ``"any"`` of several is only advice to the
                model (wire.md#tool-choice).
            strict: True tells the model that there are no other arguments than those listed. The service has no
                strict function calling, so nothing is enforced.
            parallel_tool_calls: False keeps the first call alone; others are told in
                ``response_metadata["dropped_tool_calls"]``. The service has no such setting.
            **kwargs: Options of the calls, as for ``bind``; ``response_format`` too.

        Raises:
            BadRequestError: a tool has no name, or one that a different tool has; its parameters are no JSON Schema of
                an object, or refer to themselves; ``tool_choice`` names none of the tools.
        """
        with langchain_errors():
            specs = tools_from_langchain(tools, strict=strict)
            # LangChain's own suite binds a class beside its schema; a call with both is refused.
            choice = offer_of(specs, tool_choice, same_twice=True).choice
        bound: dict[str, Any] = {"tools": [tool_to_openai(spec) for spec in specs]}
        if choice is not None:
            bound["tool_choice"] = choice
        if parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**bound, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: Mapping[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """This model, answering with an object of ``schema``.

        Args:
            schema: A Pydantic class (of version 1 too), whose objects are the answers; or a TypedDict, a JSON Schema
                or a tool's dict, for dicts. ``json_mode`` needs none.
            method: ``"json_schema"``: the service's JSON Mode, held to the schema. ``"function_calling"``: the
                arguments of a call that the model has to make. ``"json_mode"``: any JSON object; the prompt has to
                say which.
            include_raw: True: answers are dicts of ``raw`` (the message), ``parsed`` and ``parsing_error``, and an
                answer that is not valid raises nothing.
            strict: True: objects take no other properties than those listed.
            **kwargs: Options of the calls, as for ``bind``.

        JSON Mode does not stream on the service: ``stream`` then yields the one result. With ``"function_calling"`` it
        yields the object as it grows.

        Raises:
            BadRequestError: the schema is none that the service could take, or the method is unknown.
            JSONModeError: from a call; the model could not answer in JSON.
            langchain_core.exceptions.OutputParserException: from a call; the answer is not valid. ``llm_output`` is
                what the model wrote.
        """
        with langchain_errors():
            if method not in ("json_schema", "function_calling", "json_mode"):
                raise BadRequestError(
                    f"method must be 'json_schema', 'function_calling' or 'json_mode', not {method!r}."
                )
            if schema is None and method != "json_mode":
                raise BadRequestError(f"schema: method={method!r} needs one.")
            schema = titled(schema)
            tool = None if schema is None else tool_from_langchain(schema, "schema", strict=strict)
            if tool is not None:
                offer_of([tool], None)
        options: dict[str, Any] = {ALLOW_REASONING_ONLY: True}  # the parser reports it
        if tool is not None:
            traced = {"kwargs": {"method": method, "strict": strict}, "schema": traced_schema(schema, tool)}
            options["ls_structured_output_format"] = traced
        parser = StructuredOutputParser(of=class_of(schema))
        llm: Runnable[LanguageModelInput, AIMessage]
        if tool is None or method == "json_mode":
            llm = self.bind(**{**options, "response_format": {"type": "json_object"}, **kwargs})
        elif method == "json_schema":
            llm = self.bind(**{**options, "response_format": envelope_of(tool), **kwargs})
        else:
            parser = StructuredOutputParser(of=class_of(schema), tool_name=tool.name)
            forced = {"tool_choice": tool.name, "parallel_tool_calls": False}
            llm = self.bind_tools([tool_to_openai(tool)], **{**options, **forced, **kwargs})
        return structured(llm, parser, include_raw=include_raw)

    @override
    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        return output_of(llm_outputs)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            options = self._call(stop, kwargs, run_manager)
            completion = run_allowed(lambda: self._client.run(messages_from_langchain(messages), **options), kwargs)
        return _result(completion)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            options = self._call(stop, kwargs, run_manager)
            asked = self._async_client.run(messages_from_langchain(messages), **options)
            completion = await arun_allowed(asked, kwargs)
        return _result(completion)

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        to_chunk = self._to_chunk(kwargs)
        with langchain_errors():
            options = self._call(stop, kwargs, run_manager)
            given = self._client.stream(messages_from_langchain(messages), **options)
            with closing(allowed_deltas(given, kwargs)) as deltas:
                for delta in deltas:
                    chunk = to_chunk(delta)
                    if run_manager is not None and delta.text:
                        run_manager.on_llm_new_token(delta.text, chunk=chunk)
                    yield chunk

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        to_chunk = self._to_chunk(kwargs)
        with langchain_errors():
            options = self._call(stop, kwargs, run_manager)
            given = self._async_client.stream(messages_from_langchain(messages), **options)
            async with aclosing(allowed_adeltas(given, kwargs)) as deltas:
                async for delta in deltas:
                    chunk = to_chunk(delta)
                    if run_manager is not None and delta.text:
                        await run_manager.on_llm_new_token(delta.text, chunk=chunk)
                    yield chunk

    @override
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        with langchain_errors():
            told = plain(kwargs)
        told.pop("session_affinity", None)  # where an answer was made is no part of what was asked
        return super()._get_llm_string(stop, **told)

    @override
    def _as_said(self, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        return plain(kwargs)

    @override
    def _prompt_of(self, given: LanguageModelInput) -> list[BaseMessage]:
        return self._convert_input(given).to_messages()

    @override
    def _input_of(self, prompt: list[BaseMessage]) -> list[Message]:
        return messages_from_langchain(prompt)

    @override
    def _starting(self, manager: CallbackManager | AsyncCallbackManager) -> Callable[..., Any]:
        return partial(manager.on_chat_model_start, self._serialized)

    @override
    def _ended(self, completion: Completion) -> tuple[AIMessage, LLMResult]:
        message, told = message_to_langchain(completion), output_of_completion(completion)
        return message, LLMResult(generations=[[ChatGeneration(message=message)]], llm_output=told)

    def _to_chunk(self, kwargs: Mapping[str, Any]) -> Callable[[Delta], ChatGenerationChunk]:
        writer = ChunkWriter(with_usage=kwargs.get("stream_usage", self.stream_usage))
        return lambda delta: ChatGenerationChunk(message=writer.chunk(delta))


def _result(completion: Completion) -> ChatResult:
    return ChatResult(
        generations=[ChatGeneration(message=message_to_langchain(completion))],
        llm_output=output_of_completion(completion),
    )
