"""What the chat model and the text model are alike in: how they are stored, traced and told what a call asks for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLanguageModel, LangSmithParams
from typing_extensions import Self, override

from langchain_workersai.retries import on_retry
from langchain_workersai.threads import in_thread
from workersai.connected import ConnectedModel
from workersai.gateway import Gateway


class ServedModel(BaseLanguageModel[Any], ConnectedModel):
    """A model of LangChain's that is connected to an account. It stands before LangChain's own class."""

    _said_to_this_class: ClassVar[frozenset[str]] = frozenset({"streaming"})
    """Keywords of a call that are no options of the service's."""

    streaming: bool = False
    """True: ``invoke`` streams as well, so that callbacks see each piece of text."""

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
    def lc_attributes(self) -> dict[str, Any]:
        limit = {} if self.rate_limit is None else {"rate_limit": asdict(self.rate_limit)}
        return limit | ({"gateway": self.gateway.as_dict()} if isinstance(self.gateway, Gateway) else {})

    @property
    @abstractmethod
    def _llm_type(self) -> str:
        """LangChain's word for the kind of model."""

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        return self._options({}) | self.lc_attributes

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or list(self.stop or ()), **kwargs)
        params["ls_provider"] = "cloudflare"
        return params

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._forget_serialized()

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copy = super().model_copy(update=update, deep=deep)
        copy._forget_serialized()  # noqa: SLF001 - of this class
        return copy

    def _forget_serialized(self) -> None:
        # LangChain keeps it from the first call on, and its cache knows a model by it: an answer would be found that
        # was given to other settings.
        self.__dict__.pop("_serialized", None)

    def _as_said(self, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The keywords of a call in the form that the client takes them."""
        return kwargs

    def _call(
        self,
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
    ) -> dict[str, Any]:
        """The options of one call, without what is said to this class rather than to the service."""
        said = self._as_said(kwargs)
        overrides = {name: value for name, value in said.items() if name not in self._said_to_this_class}
        if stop is not None:
            overrides["stop"] = stop
        return {"on_retry": on_retry(run_manager), **in_thread(self._options(overrides))}
