"""A LangChain chat model that counts tokens as Llama 3 does."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from typing_extensions import override

from langchain_workersai.errors import langchain_errors
from langchain_workersai.messages import messages_from_langchain
from langchain_workersai.tools import ToolSource, tools_from_langchain
from workersai.tokens import count_tokens, token_ids


class CountingChatModel(BaseChatModel):
    """LangChain's own counts are those of another model, GPT-2."""

    @override
    def get_num_tokens(self, text: str) -> int:
        """The tokens of a text: exact with the extra ``tokens``, else an estimate on the safe side."""
        return count_tokens(text)

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

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, as the model knows them.

        Raises:
            ImportError: the extra ``tokens`` is not installed.
        """
        return token_ids(text)
