"""LangChain models that count tokens as Llama 3 does; LangChain's own counts are those of another model, GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import ChatPromptValue
from typing_extensions import override

from langchain_workersai.errors import langchain_errors
from langchain_workersai.messages import messages_from_langchain
from langchain_workersai.tools import ToolSource, tools_from_langchain
from workersai.connected import ConnectedModel
from workersai.errors import BadRequestError
from workersai.protocol.values import Message
from workersai.tokens import count_tokens, raw_token_ids, raw_tokens, token_ids


class CountingModel(BaseLanguageModel[Any]):
    """It counts the tokens of a text, unless a tokenizer of one's own is given (``custom_get_token_ids``)."""

    @override
    def get_num_tokens(self, text: str) -> int:
        """The tokens of a text: exact with the extra ``tokens``, otherwise an estimate."""
        return count_tokens(text) if self.custom_get_token_ids is None else len(self.custom_get_token_ids(text))

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, as the model knows them.

        Raises:
            ImportError: the extra ``tokens`` is not installed.
        """
        return token_ids(text) if self.custom_get_token_ids is None else self.custom_get_token_ids(text)


class CountingChatModel(CountingModel):
    """It counts those of a conversation."""

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[ToolSource] | None = None
    ) -> int:
        """The tokens of the prompt that a conversation becomes; see :func:`workersai.count_tokens`.

        ``trim_messages(token_counter=llm)`` counts with it.
        """
        with langchain_errors():
            specs = None if tools is None else tools_from_langchain(tools)
            return count_tokens(messages_from_langchain(messages), tools=specs)


class CountingLLM(CountingModel, ConnectedModel):
    """It counts those of a prompt that is one text."""

    @override
    def get_num_tokens(self, text: str) -> int:
        """The tokens of a text: exact with the extra ``tokens``, otherwise an estimate.

        With ``raw`` or ``prompt_form="completion"``, the text is the whole prompt. Its markup is counted as the
        model's own tokens, and the token that the service may put first is included.
        """
        return raw_tokens(text).estimate if self._counts_prompts else super().get_num_tokens(text)

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, as the model knows them; in a prompt, markup is the model's own tokens.

        Raises:
            ImportError: the extra ``tokens`` is not installed.
        """
        return raw_token_ids(text) if self._counts_prompts else super().get_token_ids(text)

    @override
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """The tokens of the prompt that messages become: one text, sent as ``prompt_form`` says."""
        with langchain_errors():
            if tools:
                raise BadRequestError("tools can't be given to a text model: use ChatWorkersAI.")
        text = ChatPromptValue(messages=messages).to_string()
        if self._sends_prompts or self.custom_get_token_ids is not None:
            return self.get_num_tokens(text)
        return count_tokens([Message("user", text)])

    @property
    def _sends_prompts(self) -> bool:
        return bool(self.raw) or self.prompt_form == "completion"

    @property
    def _counts_prompts(self) -> bool:
        return self._sends_prompts and self.custom_get_token_ids is None
