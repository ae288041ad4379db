"""What the LangChain and the LlamaIndex models share: the fields of a call, the account's, and the two clients."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import httpx
from pydantic import AliasChoices, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import Self, override

from workersai.async_client import AsyncClient
from workersai.client import Client
from workersai.errors import BadRequestError, ConfigurationError
from workersai.options import CallOptions, RequestOptions
from workersai.retrieval.asking import checked_text
from workersai.retrieval.options import EmbeddingOptions, RerankOptions, dimensions_of
from workersai.settings import Settings, hidden

_TOKENS = ("api_token", "api_key")
_OF_THE_ACCOUNT = ("account_id", "api_token", "api_key", "base_url", "http_client", "http_async_client")


def _misspelt(near: str) -> PydanticCustomError:
    words = "Extra inputs are not permitted. Did you mean {near}?"
    return PydanticCustomError("extra_forbidden", words, {"near": near})


class Connected(RequestOptions):
    """A Pydantic model with the settings of a request as fields, connected to an account.

    A framework's model class derives from its own base class and from a class below this one.
    """

    # Without the input, since Pydantic would print the token with it.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    account_id: str | None = Field(default=None, frozen=True)
    """Cloudflare account; default ``CLOUDFLARE_ACCOUNT_ID``, then ``CF_ACCOUNT_ID``."""

    api_token: SecretStr | str | None = Field(
        default=None, frozen=True, exclude=True, validation_alias=AliasChoices("api_token", "api_key")
    )
    """Token that may use Workers AI; default ``CLOUDFLARE_API_TOKEN``, then ``CF_AI_API_TOKEN``.

    It is kept as a ``SecretStr``. Code that makes models of any provider may call it ``api_key``.
    """

    base_url: str | None = Field(default=None, frozen=True)
    """Where the service is; default ``CLOUDFLARE_BASE_URL``, then Cloudflare's API."""

    http_client: SkipJsonSchema[httpx.Client | None] = Field(default=None, frozen=True, exclude=True, repr=False)
    """An httpx client of your own for sync calls; closing it is up to you."""

    http_async_client: SkipJsonSchema[httpx.AsyncClient | Literal["httpx"] | None] = Field(
        default=None, frozen=True, exclude=True, repr=False
    )
    """The same for async calls; or the word ``"httpx"`` for connections of httpx's in place of this package's own."""

    _of_a_call: ClassVar[type[RequestOptions]] = RequestOptions
    _client: Client = PrivateAttr()
    _async_client: AsyncClient = PrivateAttr()

    @model_validator(mode="after")
    def _connected(self) -> Self:
        return self._connect()

    @model_validator(mode="before")
    @classmethod
    def _hidden(cls, data: Any) -> Any:
        # Pydantic keeps what it was given in the errors of a validation, which loggers print; a name that is no field
        # may have been meant for the token.
        if not isinstance(data, dict):
            return data
        for name in _TOKENS:
            hidden(data.get(name))  # what is no string is refused without being shown
        cls._check_names(data)
        return {
            name: SecretStr(value) if isinstance(value, str) and re.search("token|key", str(name)) else value
            for name, value in data.items()
        }

    @classmethod
    def _check_names(cls, data: Mapping[str, Any]) -> None:
        """Fails for names that were meant otherwise; of others that there aren't, Pydantic tells itself."""
        known = [*cls.model_fields, *(field.alias for field in cls.model_fields.values() if field.alias), *_TOKENS]
        wrong: list[InitErrorDetails] = [
            {"type": _misspelt(near[0]), "loc": (name,), "input": "***"}  # it may have been meant for the token
            for name in data
            if name not in known and (near := difflib.get_close_matches(str(name), known, n=1))
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong, hide_input=True)

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_THE_ACCOUNT:
            del value  # Pydantic would show it
            raise ConfigurationError(f"{name} can't be changed: make another, or a model_copy with it in the update.")
        super().__setattr__(name, value)

    @override
    def __getstate__(self) -> dict[Any, Any]:
        """Without the token: a pickle ends up in caches and on other machines."""
        state = super().__getstate__()
        fields = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        return {**state, "__dict__": {**fields, "api_token": None}, "__pydantic_private__": None}

    @override
    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Reads the token from the environment again.

        Raises:
            ConfigurationError: it isn't there.
        """
        super().__setstate__(state)
        self.__pydantic_private__ = {}
        try:
            self._connect()
        except ConfigurationError as error:
            raise ConfigurationError(f"A pickle holds no token. {error.message}") from None

    def _connect(self) -> Self:
        settings = Settings(account_id=self.account_id, api_token=self.api_token, base_url=self.base_url)
        # The fields are frozen: a change would not reach the clients. Here they take what the environment gave.
        self.__dict__ |= {name: getattr(settings, name) for name in ("account_id", "api_token", "base_url")}
        self._client = Client(settings=settings, http_client=self.http_client)
        self._async_client = AsyncClient(settings=settings, http_client=self.http_async_client)
        return self

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; one of another account or address is connected anew."""
        if update and "api_key" in update:
            update = {"api_token": update["api_key"], **{name: update[name] for name in update if name != "api_key"}}
        copy = super().model_copy(update=update, deep=deep)
        return copy._connect() if update and not set(_OF_THE_ACCOUNT).isdisjoint(update) else copy  # noqa: SLF001

    def _options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one call: the fields that are set, with what the call says itself over them."""
        for name in _OF_THE_ACCOUNT:
            if name in overrides:
                raise BadRequestError(f"{name} can't be changed for one call: make another {type(self).__name__}.")
        own = {name: value for name in self._of_a_call.model_fields if (value := getattr(self, name)) is not None}
        return {**own, **overrides}


class ConnectedModel(CallOptions, Connected):
    """The same for a model that generates text."""

    _of_a_call: ClassVar[type[RequestOptions]] = CallOptions


class ConnectedEmbedder(EmbeddingOptions, Connected):
    """The same for an embedding model."""

    query_instruction: str = ""
    """Put before each query, and before no document. The English bge models were trained with
    ``"Represent this sentence for searching relevant passages: "``; version 1.5 needs it less, as its page says."""

    _of_a_call: ClassVar[type[RequestOptions]] = EmbeddingOptions

    @property
    def dimensions(self) -> int | None:
        """Numbers in a vector; None for a model that the catalog doesn't list."""
        return dimensions_of(self.model)

    def _query(self, text: str) -> str:
        checked_text(text, "query")
        return self.query_instruction + text


class ConnectedReranker(RerankOptions, Connected):
    """The same for a reranker."""

    top_n: Annotated[int | None, Field(ge=1)] = 3
    """How many documents to give back, the best ones; 3 by default, None for all."""

    _of_a_call: ClassVar[type[RequestOptions]] = RerankOptions
