"""AI Gateway through LangChain: as a field, stored and copied, and what a reply tells of it."""

import pickle
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd, load
from langchain_core.runnables import ConfigurableField
from pydantic import ValidationError

from langchain_workersai import ChatWorkersAI
from tests.langchain_workersai.face import Face
from tests.support import Serve, connection
from workersai import Gateway
from workersai.local import Answer, LocalServer
from workersai.local.engine import Usage

GATEWAY = Gateway("g", cache_ttl=60, metadata={"team": "AI"})
ACCOUNT: dict[str, Any] = {"account_id": "a", "api_token": "t"}


@pytest.fixture
def server(serve: Serve) -> LocalServer:
    return serve(lambda _: Answer(pieces=["It ", "is sunny."], usage=Usage(1_000, 200)))


def gateways(server: LocalServer) -> list[str | None]:
    return [record.headers.get("cf-aig-gateway-id") for record in server.requests]


def test_a_cached_answer_is_told_whole_and_streamed(face: Face, server: LocalServer) -> None:
    model = ChatWorkersAI(**connection(server), gateway=GATEWAY)
    whole = [face.whole(model, "hi") for _ in range(2)]
    last = [face.pieces(model, "hi")[-1] for _ in range(2)]
    for first, again in (message.response_metadata for message in whole), (chunk.response_metadata for chunk in last):
        assert (first["cache_status"], again["cache_status"]) == ("MISS", "HIT")
        assert first["gateway_log_id"] != again["gateway_log_id"]
        assert (again["cost_usd"], again["saved_usd"]) == (0, first["cost_usd"])
        assert "saved_usd" not in first


def test_it_may_be_given_to_one_call_and_bound(face: Face, server: LocalServer) -> None:
    model = ChatWorkersAI(**connection(server), gateway="model")
    face.whole(model, "hi")
    face.whole(model, "hi", gateway=Gateway("call"))
    face.whole(model.bind(gateway={"id": "bound"}), "hi")
    assert gateways(server) == ["model", "call", "bound"]


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_it_is_stored_copied_and_configured(face: Face, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", server.api_token)
    model = ChatWorkersAI(**connection(server), gateway=GATEWAY)
    copies: list[Any] = [
        load(
            dumpd(model),
            allowed_objects=[ChatWorkersAI],
            valid_namespaces=["langchain_workersai"],
            secrets_from_env=True,
        ),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own
        model.model_copy(),
    ]
    assert [copy.gateway for copy in copies] == [GATEWAY] * 3
    assert model._identifying_params["gateway"] == {"id": "g", "cache_ttl": 60, "metadata": {"team": "AI"}}
    face.whole(model.model_copy(update={"gateway": Gateway("copied")}), "hi")
    configurable = model.configurable_fields(gateway=ConfigurableField(id="way"))
    face.whole(configurable, "hi", {"configurable": {"way": {"id": "configured"}}})
    assert gateways(server) == ["copied", "configured"]


def test_answers_of_different_gateways_are_cached_apart(face: Face, server: LocalServer) -> None:
    cache = InMemoryCache()
    models = [ChatWorkersAI(**connection(server), cache=cache, gateway=gateway) for gateway in ("a", GATEWAY, None)]
    for model in (*models, *models):
        face.whole(model, "hi")
    face.whole(models[2], "hi", gateway=Gateway("b"))
    assert gateways(server) == ["a", "g", None, "b"]


def test_a_setting_that_cannot_be_right_is_named() -> None:
    with pytest.raises(ValidationError, match="cache_ttl must be a whole number of seconds"):
        ChatWorkersAI(**ACCOUNT, gateway={"id": "g", "cache_ttl": 1})
