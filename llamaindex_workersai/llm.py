"""WorkersAI: Workers AI as a LlamaIndex LLM. Convert, call, convert back; the rest is ``workersai``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from pydantic import ConfigDict
from typing_extensions import override

from llamaindex_workersai.batch import BatchingLLM
from llamaindex_workersai.messages import (
    GrowingResponse,
    chat_response,
    completion_response,
    messages_from_llamaindex,
    tool_selections,
)
from llamaindex_workersai.structured import JSONModePredictions, is_only_reasoning, was_cut
from llamaindex_workersai.tools import tools_from_llamaindex
from workersai.catalog import DEFAULT_MAX_TOKENS, SERVICE_MAX_TOKENS, model_card
from workersai.options import CallOptions
from workersai.protocol.reasoning import OUT_OF_TOKENS
from workersai.protocol.tools import ToolChoice, offer_of, tool_to_openai, tools_of
from workersai.protocol.values import Delta
from workersai.tokens import count_tokens, counts_exactly, token_ids

T = TypeVar("T")

_TEMPLATE = 64  # more than the template's own tokens of a prompt in two or three messages


class WorkersAI(JSONModePredictions, BatchingLLM):
    """A model on Cloudflare Workers AI.

    Setup:
        ``pip install 'workersai[llamaindex]'``, and set ``CLOUDFLARE_ACCOUNT_ID`` and ``CLOUDFLARE_API_TOKEN``.

    Example:
        .. code-block:: python

            from llamaindex_workersai import WorkersAI

            llm = WorkersAI(temperature=0.2, max_tokens=512)
            print(llm.complete("Why is the sky blue?"))
            for piece in llm.stream_complete("Why is the sky blue?"):
                print(piece.delta, end="")

    Every setting of a call (:class:`workersai.CallOptions`) is a field here, and a keyword of each method, ``model``
    too. ``complete`` and ``stream_complete`` send the text as the message of a user. With
    ``prompt_form="completion"``, they send it as a prompt, and the model continues it.

    A response's ``raw`` has the model, the finish reason, the request id, the usage, the cost, the tool calls that
    were dropped, what was left out to fit the window, and what an AI Gateway told (``cache_status``,
    ``gateway_log_id``); ``additional_kwargs`` has the usage as LlamaIndex's counters read it. The reasoning of a model
    is a ``ThinkingBlock`` before the text; ``raw["reasoning_only"]`` is True if the tokens ran out before any text.

    Raises:
        pydantic.ValidationError: a field is out of its range, or there is no such field.
        workersai.errors.ConfigurationError: the account or the token is missing.
        workersai.errors.WorkersAIError: from a call.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    @classmethod
    @override
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "WorkersAI"

    @property
    @override
    def metadata(self) -> LLMMetadata:
        """Window and abilities from the catalog; LlamaIndex's own defaults for a model that it doesn't list.

        With ``max_tokens``, the window is told without the tokens of the chat template: LlamaIndex fills it to the last
        one, and knows nothing of them. (Without, the room for the answer gives way.)
        """
        card = model_card(self.model)
        if card is None:
            return LLMMetadata(
                context_window=DEFAULT_CONTEXT_WINDOW,
                num_output=self.max_tokens or SERVICE_MAX_TOKENS,
                is_chat_model=True,
                model_name=self.model,
            )
        return LLMMetadata(
            context_window=card.context_window - (_TEMPLATE if self.max_tokens else 0),
            num_output=self.max_tokens or self.default_max_tokens or DEFAULT_MAX_TOKENS,
            is_chat_model=True,
            is_function_calling_model=card.function_calling,
            model_name=self.model,
        )

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, for LlamaIndex's own counting: ``Settings.tokenizer = llm.tokenize``.

        Without the extra ``tokens``, it is a list as long as the estimate of their number.
        """
        return token_ids(text) if counts_exactly() else [0] * count_tokens(text)

    @override
    def to_payload(self) -> dict[str, Any]:
        """What callbacks and instrumentation are told of it: its abilities and its settings, without its account."""
        settings = self.model_dump(include=set(CallOptions.model_fields), exclude_none=True)
        return {**super().to_payload(), **settings}

    @override
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The whole answer to a conversation."""
        return chat_response(self._client.run(messages_from_llamaindex(messages), **self._options(kwargs)))

    @override
    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The whole answer to a conversation."""
        return chat_response(await self._async_client.run(messages_from_llamaindex(messages), **self._options(kwargs)))

    @override
    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer in pieces; the last response is the whole answer, with its usage."""
        deltas = self._client.stream(messages_from_llamaindex(messages), **self._options(kwargs))
        return _grow(deltas, GrowingResponse().chat)

    @override
    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The answer in pieces; the last response is the whole answer, with its usage."""
        deltas = self._async_client.stream(messages_from_llamaindex(messages), **self._options(kwargs))
        return _agrow(deltas, GrowingResponse().chat)

    @override
    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole answer to a text, which is sent as ``prompt_form`` says."""
        return completion_response(self._client.run(self._prompt(prompt, formatted=formatted), **self._options(kwargs)))

    @override
    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole answer to a text, which is sent as ``prompt_form`` says."""
        return completion_response(
            await self._async_client.run(self._prompt(prompt, formatted=formatted), **self._options(kwargs))
        )

    @override
    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to a text in pieces; the last response is the whole answer, with its usage."""
        deltas = self._client.stream(self._prompt(prompt, formatted=formatted), **self._options(kwargs))
        return _grow(deltas, GrowingResponse().completion)

    @override
    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The answer to a text in pieces; the last response is the whole answer, with its usage."""
        deltas = self._async_client.stream(self._prompt(prompt, formatted=formatted), **self._options(kwargs))
        return _agrow(deltas, GrowingResponse().completion)

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls in an answer.

        Raises:
            ValueError: there are none, unless ``error_on_no_tool_call`` is False.
        """
        selections = tool_selections(response.message)
        if not selections and error_on_no_tool_call:
            if is_only_reasoning(response):
                raise ValueError(f"{OUT_OF_TOKENS} It called no tool.")
            cut = " It was cut off at max_tokens: give a larger one." if was_cut(response) else ""
            raise ValueError(f"The model called no tool, but answered: {response.message.content!r}.{cut}")
        return selections

    @override
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            said = ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
            messages.append(said)
        specs = tools_of(tools_from_llamaindex(tools))
        choice = offer_of(specs, tool_choice or tool_required).choice
        return {
            "messages": messages,
            "tools": [tool_to_openai(spec) for spec in specs],
            "tool_choice": choice,
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    @override
    def _predicts_in_json_mode(self) -> bool:
        card = model_card(self.model)
        return card is not None and card.json_mode

    @override
    def _options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        options = super()._options(overrides)
        if options.get("tools"):
            options["tools"] = tools_from_llamaindex(options["tools"])
        return options

    def _prompt(self, prompt: str, *, formatted: bool) -> str:
        to_prompt = self.completion_to_prompt
        return prompt if formatted or to_prompt is None else to_prompt(prompt)


def _grow(deltas: Generator[Delta, None, None], grown: Callable[[Delta], T]) -> Generator[T, None, None]:
    with closing(deltas):
        for delta in deltas:
            yield grown(delta)


async def _agrow(deltas: AsyncGenerator[Delta, None], grown: Callable[[Delta], T]) -> AsyncGenerator[T, None]:
    async with aclosing(deltas):
        async for delta in deltas:
            yield grown(delta)
