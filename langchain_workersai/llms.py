"""WorkersAILLM: Workers AI as a LangChain text model, a text in and a text out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from functools import partial
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseLLM, LanguageModelInput
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from pydantic import ConfigDict
from typing_extensions import Self, override

from langchain_workersai.batch import BatchingModel, BoundModel
from langchain_workersai.counting import CountingLLM
from langchain_workersai.errors import langchain_errors
from langchain_workersai.generations import chunk_of, generation_of, result_of, whole_of
from langchain_workersai.sessions import SessionModel
from workersai.errors import BadRequestError
from workersai.options import CallOptions
from workersai.protocol.values import Completion

_AT_ONCE = 32
_KEYWORDS = frozenset({*CallOptions.model_fields, "streaming"})
_FOR_CHAT = ("tools", "tool_choice", "parallel_tool_calls", "response_format")


class WorkersAILLM(SessionModel, CountingLLM, BatchingModel, BaseLLM):
    """A text that a model on Cloudflare Workers AI answers with a text.

    Setup:
        ``pip install 'workersai[langchain]'``, and set ``CLOUDFLARE_ACCOUNT_ID`` and ``CLOUDFLARE_API_TOKEN``.

    Example:
        .. code-block:: python

            from langchain_workersai import WorkersAILLM

            llm = WorkersAILLM(temperature=0.2, max_tokens=512)
            print(llm.invoke("Why is the sky blue?"))
            for text in llm.stream("Why is the sky blue?"):
                print(text, end="")

    The text is sent as the message of a user, which the model answers. With ``prompt_form="completion"`` it is sent as
    a prompt, and the model continues it. With ``raw=True`` it is also a prompt, which holds the model's own markup, as
    a finetune may need it. ``lora`` works with each of these. For roles, tools and structured output, use
    :class:`ChatWorkersAI`.

    Every setting of a call (:class:`workersai.CallOptions`) is a field here, and a keyword of ``invoke``, ``stream``,
    ``bind`` and their kind, ``model`` too. ``batch`` makes concurrent calls, each with its own outcome; several
    prompts given to ``generate`` are asked concurrently, 32 at once, and fail together, as LangChain has it.

    A generation's ``generation_info`` has the ``finish_reason``, the ``token_usage``, ``cost_usd``, ``model_name`` and
    the ``request_id``; the result's ``llm_output`` has the ``token_usage`` of all.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.WorkersAIError: from a call; each is LangChain's own error as well
            (``langchain_core.exceptions``).
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    @property
    @override
    def _llm_type(self) -> str:
        return "workersai"

    @override
    def asdict(self) -> dict[str, Any]:
        """What LangChain's cache knows this model by: its settings, and where it is served."""
        told = {**super().asdict(), "base_url": self.base_url}
        told.pop("session_affinity", None)  # where an answer was made is no part of what was asked
        return told

    @override
    def bind(self, **kwargs: Any) -> RunnableBinding[LanguageModelInput, str]:
        return BoundModel(bound=self, kwargs=kwargs, config={})

    # LangChain's own batch gives all prompts to one generate, where they fail together.

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        return Runnable.batch(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    @override
    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        return await Runnable.abatch(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    # LangChain's cache and its tracers know a call by the fields, and not by its keywords.

    @override
    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return BaseLLM.generate(self._as_called(kwargs), prompts, self._stop(stop), callbacks, **kwargs)

    @override
    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return await BaseLLM.agenerate(self._as_called(kwargs), prompts, self._stop(stop), callbacks, **kwargs)

    def _as_called(self, kwargs: Mapping[str, Any]) -> Self:
        """This model with the keywords of one call in its fields."""
        told = {name: value for name, value in kwargs.items() if name in _KEYWORDS}
        return self.model_copy(update=told) if told else self

    def _stop(self, stop: list[str] | None) -> list[str] | None:
        said = self.stop if stop is None else stop
        return [said] if isinstance(said, str) else None if said is None else list(said)

    @override
    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            return result_of([whole_of(list(self._stream(prompts[0], stop, run_manager, **kwargs)))])
        with langchain_errors():
            options = self._checked(prompts, stop, run_manager, kwargs)
            if len(prompts) == 1:
                completions = [self._client.run(prompts[0], **options)]
            else:
                with get_executor_for_config({"max_concurrency": _AT_ONCE}) as executor:
                    completions = list(executor.map(lambda prompt: self._client.run(prompt, **options), prompts))
        return result_of(map(generation_of, completions))

    @override
    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            return result_of(
                [whole_of([chunk async for chunk in self._astream(prompts[0], stop, run_manager, **kwargs)])]
            )
        gate = asyncio.Semaphore(_AT_ONCE)
        with langchain_errors():
            options = self._checked(prompts, stop, run_manager, kwargs)

            async def ask(prompt: str) -> Completion:
                async with gate:
                    return await self._async_client.run(prompt, **options)

            asked = [asyncio.ensure_future(ask(prompt)) for prompt in prompts]
            try:
                completions = await asyncio.gather(*asked)
            finally:
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
        return result_of(map(generation_of, completions))

    @override
    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with (
            langchain_errors(),
            closing(self._client.stream(prompt, **self._call(stop, kwargs, run_manager))) as deltas,
        ):
            for delta in deltas:
                chunk = chunk_of(delta)
                if run_manager is not None and delta.text:
                    run_manager.on_llm_new_token(delta.text, chunk=chunk)
                yield chunk

    @override
    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        with langchain_errors():
            options = self._call(stop, kwargs, run_manager)
            async with aclosing(self._async_client.stream(prompt, **options)) as deltas:
                async for delta in deltas:
                    chunk = chunk_of(delta)
                    if run_manager is not None and delta.text:
                        await run_manager.on_llm_new_token(delta.text, chunk=chunk)
                    yield chunk

    def _checked(
        self,
        prompts: list[str],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The options of the calls; where there are several, each of them could be sent."""
        if len(prompts) == 1:
            return self._call(stop, kwargs, run_manager)
        options = self._call(stop, kwargs, None)  # LangChain hands over the run of the first one alone
        for prompt in prompts:
            self._client.prepare(prompt, options)  # type: ignore[arg-type]
        return options

    @override
    def _as_said(self, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in _FOR_CHAT:
            if kwargs.get(name) is not None:
                raise BadRequestError(f"{name} is no option of a text model: use ChatWorkersAI.")
        return kwargs

    @override
    def _prompt_of(self, given: LanguageModelInput) -> str:
        return self._convert_input(given).to_string()

    @override
    def _input_of(self, prompt: str) -> str:
        return prompt

    @override
    def _starting(self, manager: CallbackManager | AsyncCallbackManager) -> Callable[..., Any]:
        return partial(manager.on_llm_start, self._serialized)

    @override
    def _ended(self, completion: Completion) -> tuple[str, LLMResult]:
        return completion.text, result_of([generation_of(completion)])
