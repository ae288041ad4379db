"""LangChain's own suite for chat models, whole, against the local server with the real SmolLM2 behind it.

Where the suite expects more than the tiny model can give, the answer is scripted, and the test's name says so.
"""

import importlib
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_workersai import ChatWorkersAI
from tests.conftest import LIVE
from tests.support import Serve, connection
from workersai import DEFAULT_MODEL
from workersai.local import LocalServer
from workersai.local.engine import CalledTool, GenerationRequest
from workersai.local.scripted import Answer, Script

# The module, not the function of the same name that hides it.
load = importlib.import_module("langchain_core.load.load")

ACCOUNT = {"account_id": "acc", "api_token": "tok", "base_url": "https://api.example.com/client/v4"}


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatWorkersAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"account_id": ACCOUNT["account_id"], "api_key": ACCOUNT["api_token"]}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        variables = {
            "CLOUDFLARE_ACCOUNT_ID": "acc",
            "CLOUDFLARE_API_TOKEN": "tok",
            "CLOUDFLARE_BASE_URL": "https://api.example.com/client/v4",
        }
        return variables, {}, ACCOUNT

    @pytest.fixture(autouse=True)
    def _on_langchains_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # test_serdes loads with allowed_objects="all", which to LangChain means the partners on its own list. A user
        # names the class instead: test_it_serialises_without_its_token_and_reads_it_from_the_environment_again.
        path = tuple(ChatWorkersAI.lc_id())
        monkeypatch.setitem(load.ALL_SERIALIZABLE_MAPPINGS, path, path)

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True


JOKE = {"setup": "Why do cats sit on keyboards?", "punchline": "To be next to the mouse."}


def weather_then_answer(request: GenerationRequest) -> str | Answer:
    if request.messages[-1].role == "tool":
        return "It is sunny."
    return Answer(tool_calls=(CalledTool("get_weather", {"location": "San Francisco, CA"}),))


def unicode_customer(request: GenerationRequest) -> Answer:
    name = request.messages[-1].content.split("'")[1]
    return Answer(tool_calls=(CalledTool("unicode_customer", {"customer_name": name, "description": "A company."}),))


# JSON Mode without a schema asks the tiny model to find out the two keys by itself; a tool that it may call, or not, it
# calls by chance; and it does not copy Japanese.
SCRIPTED: dict[str, Script] = (
    {}
    if LIVE
    else {
        "test_json_mode": lambda _: Answer(object=JOKE),
        "test_agent_loop": weather_then_answer,
        "test_unicode_tool_call_integration": unicode_customer,
    }
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives the scripted tests a name that says so."""
    test = metafunc.definition
    if metafunc.cls is not TestIntegration or test.name not in SCRIPTED:
        return
    given = [mark for mark in test.own_markers if mark.name == "parametrize" and mark.args[0] == "model"]
    # pytest takes no second parametrization: the suite's own goes into this one.
    test.own_markers[:] = [mark for mark in test.own_markers if mark not in given]
    fields: list[dict[str, Any]] = given[0].args[1] if given else [{}]
    ids = ["-".join(["scripted", *map(str, each.values())]) for each in fields]
    metafunc.parametrize("model", fields, ids=ids, indirect=True)


@pytest.mark.model
class TestIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _on_the_local_server(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if LIVE:
            return
        smollm: LocalServer = request.getfixturevalue("smollm")
        for name, value in smollm.environment.items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, serve: Serve) -> BaseChatModel:
        test = request.function.__name__
        params = {**self.standard_chat_model_params, **getattr(request, "param", {})}
        if test in SCRIPTED:
            return ChatWorkersAI(**params, **connection(serve(SCRIPTED[test])))
        if "structured" in test:
            params["max_tokens"] = 400  # the tiny model makes long jokes: which ones depends on what is in its cache
        elif not LIVE and not any(word in test for word in ("tool", "json")):
            params["max_tokens"] = 8  # a text may be cut
        # The local server has one model: for an override to be one, the model itself is of another name.
        name = "@cf/none/other" if "override" in test else DEFAULT_MODEL
        return ChatWorkersAI(**params, model=name)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatWorkersAI

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 40, "timeout": 300, "stop": [], "max_retries": 2}

    @property
    def model_override_value(self) -> str:
        return DEFAULT_MODEL

    @property
    def supported_usage_metadata_details(self) -> dict[Any, list[Any]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = ChatWorkersAI(**{**self.standard_chat_model_params, "max_tokens": 3}, session_affinity="standard-suite")
        question = "Name a colour. " * 20
        model.invoke(question)
        if not stream:
            return model.invoke(question)
        first, *rest = model.stream(question)
        whole = first
        for chunk in rest:
            whole += chunk
        return whole

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_json_mode = True
