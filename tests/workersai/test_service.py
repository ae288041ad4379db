import pytest

from workersai import Client, ensure_service
from workersai.errors import ConfigurationError
from workersai.local import LocalServer

VARIABLES = ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_BASE_URL", "CF_ACCOUNT_ID", "CF_AI_API_TOKEN")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that are set here are taken back after the test, also those that it did not set itself."""
    for name in VARIABLES:
        monkeypatch.setenv(name, " ")


def test_with_credentials_it_starts_nothing_and_says_who_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCOUNT_ID", "acc")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "tok")
    service = ensure_service()
    assert service.server is None
    assert repr(service) == (
        "Credentials are set: this runs on https://api.cloudflare.com/client/v4, and is billed to that account."
    )


def test_with_the_variables_of_a_running_local_server_it_uses_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServer("Paris.") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        service = ensure_service()
        assert (service.server, service.base_url) == (None, server.base_url)
        assert repr(service) == f"Credentials are set: this runs on {server.base_url}."


@pytest.mark.parametrize(
    ("name", "missing"),
    [("CLOUDFLARE_ACCOUNT_ID", "There is no API token"), ("CF_AI_API_TOKEN", "There is no account id")],
)
def test_credentials_in_part_are_an_error_and_not_a_local_server(
    monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigurationError, match=missing):
        ensure_service()


@pytest.mark.model
def test_without_credentials_it_starts_the_small_model_once() -> None:
    first, second = ensure_service(), ensure_service()
    assert first.server is not None
    assert second.server is first.server
    assert "SmolLM2-135M-Instruct" in repr(second)
    with first.server, Client() as client:
        assert client.run("Hello", max_tokens=2).text
