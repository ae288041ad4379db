"""The bytes of a request: one request, with its secrets in it, which no ``repr`` shows."""

import re
import traceback
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from workersai._transport.http1 import request_bytes
from workersai.protocol.request import Request

TOKEN = "s3cret-t0ken"
NAMES = st.lists(st.from_regex(r"x-[a-z0-9-]{1,10}", fullmatch=True), max_size=6, unique=True)
VALUES = st.text("".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100)))), min_size=1, max_size=20)


def new_request(
    headers: Mapping[str, str], url: str = "https://service.test/v4/run", content: bytes = b"{}"
) -> Request:
    """A request with a secret; the headers follow the one with the token."""
    return Request(url, {"authorization": SecretStr(f"Bearer {TOKEN}"), **headers}, content, timeout=None)


def split(data: memoryview) -> tuple[list[str], bytes]:
    """The lines of the head, and the body."""
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), body


@given(NAMES, st.data(), st.binary(max_size=100))
def test_a_request_is_one_request_with_its_headers_in_order(names: list[str], data: st.DataObject, body: bytes) -> None:
    values = [data.draw(VALUES) for _ in names]
    lines, content = split(request_bytes(new_request(dict(zip(names, values, strict=True)), content=body)))
    assert lines == [
        "POST /v4/run HTTP/1.1",
        "host: service.test",
        "accept-encoding: gzip, deflate",
        f"authorization: Bearer {TOKEN}",
        *(f"{name}: {value}" for name, value in zip(names, values, strict=True)),
        f"content-length: {len(body)}",
    ]
    assert content == body


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("https://service.test", "/", "service.test"),
        ("https://service.test/", "/", "service.test"),
        ("https://service.test:8443/a/@cf/b", "/a/@cf/b", "service.test:8443"),
        ("https://service.test/run?queueRequest=true&a=%20b", "/run?queueRequest=true&a=%20b", "service.test"),
        ("https://service.test?a=b", "/?a=b", "service.test"),
        ("http://[::1]:8000/v4", "/v4", "[::1]:8000"),
    ],
)
def test_the_target_and_the_host_are_those_of_the_url(url: str, target: str, host: str) -> None:
    lines, _ = split(request_bytes(new_request({}, url)))
    assert lines[:2] == [f"POST {target} HTTP/1.1", f"host: {host}"]


def test_a_value_outside_latin_1_is_never_sent_as_something_else() -> None:
    with pytest.raises(UnicodeEncodeError):
        request_bytes(new_request({"x-name": "\N{GREEK SMALL LETTER OMEGA}"}))


def test_a_secret_is_in_the_bytes_and_in_no_repr() -> None:
    request = new_request({})
    data = request_bytes(request)
    assert TOKEN.encode() in data.tobytes()
    for shown in (request, data, data[:10], [data], (data,)):
        assert TOKEN not in repr(shown)


def test_a_traceback_with_local_variables_shows_no_secret() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        request_bytes(new_request({"x-name": "\N{GREEK SMALL LETTER OMEGA}"}))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert re.search(r"request = ", shown), "variables are shown at all"
    assert TOKEN not in shown
