"""LangChain's own suite for embeddings, whole, against the local server with the real MiniLM behind it."""

from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_workersai import WorkersAIEmbeddings
from tests.conftest import LIVE
from tests.support import connection

ACCOUNT = {"account_id": "acc", "api_token": "tok", "base_url": "https://api.example.com/client/v4"}


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return WorkersAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"account_id": ACCOUNT["account_id"], "api_key": ACCOUNT["api_token"]}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        variables = {
            "CLOUDFLARE_ACCOUNT_ID": "acc",
            "CLOUDFLARE_API_TOKEN": "tok",
            "CLOUDFLARE_BASE_URL": "https://api.example.com/client/v4",
        }
        return variables, {}, ACCOUNT


@pytest.mark.model
class TestIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture
    def model(self, request: pytest.FixtureRequest) -> Embeddings:
        return WorkersAIEmbeddings(**({} if LIVE else connection(request.getfixturevalue("minilm"))))

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return WorkersAIEmbeddings
