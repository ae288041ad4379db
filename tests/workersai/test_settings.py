import pickle
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from workersai import AsyncClient, Client, Settings
from workersai.errors import BadRequestError, ConfigurationError

VARIABLES = ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_BASE_URL", "CF_ACCOUNT_ID", "CF_AI_API_TOKEN")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_misspelt_argument_of_a_client_is_told_with_the_right_one() -> None:
    with pytest.raises(BadRequestError, match=r"tokn is no option .*, account_id, api_token, .*, on_retry\."):
        Client(account_id="a", api_token="t", tokn="secret")  # type: ignore[call-arg]
    with pytest.raises(BadRequestError, match=r"Did you mean api_token\?"):
        Client(account_id="a", api_tokn="secret")  # type: ignore[call-arg]


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "https://from.example")
    settings = Settings(account_id="acc", api_token="tok", base_url="https://mine.example/v4")
    assert (settings.account_id, settings.base_url) == ("acc", "https://mine.example/v4")
    assert settings.api_token.get_secret_value() == "tok"


def test_cloudflares_own_variables_come_before_the_older_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCOUNT_ID", "old")
    monkeypatch.setenv("CF_AI_API_TOKEN", "old-token")
    assert Settings().account_id == "old"
    assert Settings().api_token.get_secret_value() == "old-token"
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "new")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "new-token")
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", "https://new.example")
    assert (Settings().account_id, Settings().base_url) == ("new", "https://new.example")
    assert Settings().api_token.get_secret_value() == "new-token"


def test_a_missing_account_names_the_variables_and_where_to_look() -> None:
    with pytest.raises(ConfigurationError, match=r"CLOUDFLARE_ACCOUNT_ID or CF_ACCOUNT_ID.*dash\.cloudflare\.com"):
        Settings(api_token="tok")


def test_a_missing_token_names_the_variables_and_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "  ")
    with pytest.raises(ConfigurationError, match=r"CLOUDFLARE_API_TOKEN or CF_AI_API_TOKEN.*profile/api-tokens"):
        Settings(account_id="acc")


def test_white_space_around_a_pasted_value_is_dropped() -> None:
    settings = Settings(account_id=" acc\n", api_token=SecretStr("tok\n"))
    assert (settings.account_id, settings.api_token.get_secret_value()) == ("acc", "tok")


@pytest.mark.parametrize("token", ["a b", "a\r\nb", "tök", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError, match="api_token") as caught:
        Settings(account_id="acc", api_token=token)
    assert token not in str(caught.value)


@pytest.mark.parametrize("account", ["a/b", "a?b", "a\nb", "../x"])
def test_an_account_that_would_change_the_url_is_refused(account: str) -> None:
    with pytest.raises(ConfigurationError, match="account_id"):
        Settings(account_id=account, api_token="tok")


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        ("api.cloudflare.com/client/v4", "needs a scheme"),
        ("localhost:8787", "needs a scheme"),
        ("ftp://example.com", "needs a scheme"),
        ("https://", "no host"),
        ("http://example.com", "must be https"),
        ("http://127.0.0.1.evil.example", "must be https"),
        ("https://user:pass@example.com", "user name"),
        ("https://example.com/?a=1", "query"),
        ("https://example.com:99999", "not a URL"),
        ("https://exa\nmple.com", "control character"),
        ("https://ex\u2603.com", "outside ASCII"),
        ("https://example.com/" + "a" * 2000, "too long"),
        ("https://a..b", "no host"),
        ("https://" + "a" * 64 + ".com", "no host"),
        ("https://xn--", "is not a URL"),
        ("https://xn--80/", "is not a URL"),
        ("https://a[::1]/", "is not a URL|no host"),
        ("http://[::1].evil.com/", "is not a URL|no host"),
    ],
)
def test_a_base_url_that_cannot_be_right_is_refused(base_url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings(account_id="acc", api_token="tok", base_url=base_url)


@pytest.mark.parametrize("url", ["https://u:PASS@host:99999/", "ftp://u:PASS@host/", "https://u:PASS@ho$t/", "PASS"])
def test_a_password_in_a_base_url_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(account_id="acc", api_token="tok", base_url=url)
    assert "PASS" not in str(caught.value)


@pytest.mark.parametrize("value", [5, b"x", True, ["x"], object()])
def test_a_setting_that_is_no_string_is_refused(value: Any) -> None:
    good: dict[str, Any] = {"account_id": "a", "api_token": "t", "base_url": "https://example.com"}
    for name in good:
        with pytest.raises(ConfigurationError, match="must be a string"):
            Settings(**{**good, name: value})


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_settings_or_no_httpx_client_of_its_kind_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        kind(settings=Settings(account_id="a", api_token="t"), account_id="b")
    with pytest.raises(ConfigurationError, match=r"settings must be workersai\.Settings, not str"):
        kind(settings="x")
    other: Any = httpx.AsyncClient if kind is Client else httpx.Client
    with pytest.raises(ConfigurationError, match=r"http_client must be an httpx\."):
        kind(account_id="a", api_token="t", http_client=other())


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:1", "127.8.9.1", "[::1]:1"])
def test_on_loopback_plain_http_will_do(host: str) -> None:
    assert Settings(account_id="a", api_token="t", base_url=f"http://{host}/v4/").base_url == f"http://{host}/v4"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_checks_its_settings_and_defaults_when_it_is_made(kind: type[Client] | type[AsyncClient]) -> None:
    with pytest.raises(ConfigurationError):
        kind()
    with pytest.raises(BadRequestError, match="timeout"):
        kind(account_id="acc", api_token="tok", timeout=-1)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_token_is_not_in_the_repr(kind: type[Client] | type[AsyncClient]) -> None:
    client = kind(account_id="acc", api_token="very-secret")
    assert "very-secret" not in repr(client) + repr(client.settings) + str(client.settings)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_can_be_pickled(kind: type[Client] | type[AsyncClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "tok")
    client = kind(account_id="acc", api_token="tok", temperature=0.5)
    assert pickle.loads(pickle.dumps(client)).settings == client.settings  # noqa: S301 - our own bytes
