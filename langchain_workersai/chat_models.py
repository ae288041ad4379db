"""ChatWorkersAI: Workers AI as a LangChain chat model. Convert, call, convert back; the rest is ``workersai``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict
from typing_extensions import override

from langchain_workersai.errors import langchain_errors
from langchain_workersai.messages import chunk_to_langchain, message_to_langchain, messages_from_langchain
from langchain_workersai.profile import profile_of
from workersai.connected import ConnectedModel
from workersai.protocol.values import Completion, Delta

_SAID_TO_THIS_CLASS = frozenset({"stream", "streaming", "stream_usage"})


class ChatWorkersAI(BaseChatModel, ConnectedModel):
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

    streaming: bool = False
    """True: ``invoke`` streams as well, so that callbacks see each piece of text."""

    stream_usage: bool = True
    """Whether the last chunk of a stream carries ``usage_metadata``."""

    @classmethod
    @override
    def is_lc_serializable(cls) -> bool:
        """It is; the token is left out, and read from the environment again."""
        return True

    @property
    @override
    def lc_secrets(self) -> dict[str, str]:
        return {"api_token": "CLOUDFLARE_API_TOKEN"}

    @property
    @override
    def _llm_type(self) -> str:
        return "workersai-chat"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        return self._options({})

    @override
    def _resolve_model_profile(self) -> ModelProfile | None:
        return profile_of(self.model)

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or list(self.stop or ()), **kwargs)
        params["ls_provider"] = "cloudflare"
        return params

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with langchain_errors():
            completion = self._client.run(messages_from_langchain(messages), **self._call(stop, kwargs))
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
            completion = await self._async_client.run(messages_from_langchain(messages), **self._call(stop, kwargs))
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
        with (
            langchain_errors(),
            closing(self._client.stream(messages_from_langchain(messages), **self._call(stop, kwargs))) as deltas,
        ):
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
            call = self._async_client.stream(messages_from_langchain(messages), **self._call(stop, kwargs))
            async with aclosing(call) as deltas:
                async for delta in deltas:
                    chunk = to_chunk(delta)
                    if run_manager is not None and delta.text:
                        await run_manager.on_llm_new_token(delta.text, chunk=chunk)
                    yield chunk

    def _call(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one call, without what is said to this class rather than to the service."""
        overrides = {name: value for name, value in kwargs.items() if name not in _SAID_TO_THIS_CLASS}
        if stop is not None:
            overrides["stop"] = stop
        return self._options(overrides)

    def _to_chunk(self, kwargs: Mapping[str, Any]) -> Callable[[Delta], ChatGenerationChunk]:
        with_usage: bool = kwargs.get("stream_usage", self.stream_usage)

        def to_chunk(delta: Delta) -> ChatGenerationChunk:
            return ChatGenerationChunk(message=chunk_to_langchain(delta, with_usage=with_usage))

        return to_chunk


def _result(completion: Completion) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message_to_langchain(completion))])
