"""Which proxy the environment names for an origin, and what is wrong with a variable that names none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workersai._transport.proxies import Origin, _is_exempt, proxy_for
from workersai.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("proxyless")

SERVICE = Origin("api.service.test", 443, tls=True)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"}, "http://q:2"),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ({"all_proxy": "socks5://p:1"}, "socks5://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://q:2"),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "  "}, None),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": " http://p:1 "}, "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "p"}, "http://p:80"),
        ({"HTTPS_PROXY": "https://p"}, "https://p:443"),
        ({"HTTPS_PROXY": "HTTP://P:1/"}, "http://p:1"),
        ({"HTTPS_PROXY": "socks5://p"}, "socks5://p:1080"),
        ({"HTTPS_PROXY": "socks5h://p"}, "socks5h://p:1080"),
        ({"HTTPS_PROXY": "http://[::1]:1"}, "http://::1:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "service.test"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "service.test"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "service.test", "no_proxy": "other.test"}, "http://p:1"),
        ({"HTTPS_PROXY": "nonsense://", "NO_PROXY": "service.test"}, None),
    ],
)
def test_the_environment_names_the_proxy(
    variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    found = proxy_for(SERVICE)
    assert (None if found is None else f"{found.scheme}://{found.host}:{found.port}") == proxy


EXEMPT = [
    ("api.service.test", "api.service.test", True),
    ("API.Service.Test", "api.service.test", True),
    ("api.service.test", "API.SERVICE.TEST", True),
    ("service.test", "api.service.test", True),
    (".service.test", "api.service.test", True),
    (".service.test", "service.test", True),
    ("*.service.test", "api.service.test", True),
    ("service.test", "otherservice.test", False),
    (".service.test", "otherservice.test", False),
    ("api.service.test", "service.test", False),
    ("service", "api.service.test", False),
    ("https://service.test", "api.service.test", True),
    ("service.test:443", "api.service.test", True),
    ("service.test:0443", "api.service.test", True),
    ("service.test:8443", "api.service.test", False),
    ("a.test, service.test ,b.test", "api.service.test", True),
    (",,service.test,", "api.service.test", True),
    ("a.test,*", "api.service.test", True),
    ("", "api.service.test", False),
    (" , ", "api.service.test", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "10.1.2.4", False),
    ("10.1.2.3:443", "10.1.2.3", True),
    ("10.1.2.3:80", "10.1.2.3", False),
    ("10.0.0.0/8", "10.1.2.3", True),
    ("10.1.2.3/8", "10.200.0.1", True),
    ("10.0.0.0/8", "11.1.2.3", False),
    ("10.0.0.0/8", "10.service.test", False),
    ("0.0.0.0/0", "api.service.test", False),
    ("2001:db8::1", "2001:db8::1", True),
    ("[2001:db8::1]", "2001:db8::1", True),
    ("2001:DB8:0::1", "2001:db8::1", True),
    ("[2001:db8::1]:443", "2001:db8::1", True),
    ("[2001:db8::1]:80", "2001:db8::1", False),
    ("2001:db8::/32", "2001:db8::5", True),
    ("2001:db8::/32", "2001:db9::5", False),
    ("2001:db8::/32", "10.1.2.3", False),
    # What can't be parsed is passed over, and what stands beside it still counts.
    ("10.0.0.0/99", "10.1.2.3", False),
    ("service.test/path", "api.service.test", False),
    ("[", "api.service.test", False),
    ("[::1", "api.service.test", False),
    (":443", "api.service.test", False),
    (".", "api.service.test", False),
    ("*.", "api.service.test", False),
    ("se rvice.test", "api.service.test", False),
    ("service.test:" + "9" * 5_000, "api.service.test", False),
    ("10.0.0.0/99,[,://,%,service.test", "api.service.test", True),
]


@pytest.mark.parametrize(("no_proxy", "host", "is_exempt"), EXEMPT)
def test_no_proxy_exempts_hosts_domains_and_ranges(
    no_proxy: str, host: str, monkeypatch: pytest.MonkeyPatch, *, is_exempt: bool
) -> None:
    set_all(monkeypatch, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy})
    assert (proxy_for(Origin(host, 443, tls=True)) is None) is is_exempt


@given(st.text(max_size=30), st.sampled_from(["api.service.test", "10.1.2.3", "2001:db8::1"]))
def test_no_entry_of_no_proxy_is_an_error(entry: str, host: str) -> None:
    origin = Origin(host, 443, tls=True)
    _is_exempt(origin, entry)
    assert _is_exempt(origin, f"{entry},{host}"), "the entry beside it still counts"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8787", "http://localhost:8787", "https://127.0.0.1:8787", "https://localhost", "https://[::1]"],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"])
def test_this_machine_is_reached_directly(url: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://p:1")
    assert proxy_for(Origin.from_url(url)) is None


def test_a_token_in_the_clear_is_not_sent_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    assert proxy_for(Origin("service.test", 80, tls=False)) is None


def test_the_password_of_a_url_is_decoded_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://us%40er:p%3Aassw0rd@p:1")
    proxy = proxy_for(SERVICE)
    assert proxy is not None
    assert proxy.username == "us@er"
    assert proxy.password.get_secret_value() == "p:assw0rd"
    assert "assw0rd" not in repr(proxy)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "url",
    [
        "socks4://user:passw0rd@p:1",
        "ftp://user:passw0rd@p:1",
        "http://user:passw0rd@",
        "http://user:passw0rd@:1",
        "http://user:passw0rd@p:port",
        "http://user:passw0rd@p:99999",
        "http://user:passw0rd@[::1",
        "http://user:passw0rd/1@p:1",
        "user:passw0rd/1@p:1",
        "://user:passw0rd@p:1",
        "user:passw0rd://@p:1",
    ],
)
def test_an_error_names_the_variable_and_no_password(variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, url)
    with pytest.raises(ConfigurationError, match=f"{variable.upper()} is not the URL of a proxy: expected") as caught:
        proxy_for(SERVICE)
    assert "passw0rd" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
