"""Fixtures of the transport's tests: an authority that the environment names, and no other proxy settings."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from workersai import pools


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Signs the certificates of the servers."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment names the authority, as it would a company's own."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    pools._tls.cache_clear()
    yield
    pools._tls.cache_clear()


@pytest.fixture
def proxyless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no proxy but those of the test."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.fixture(scope="module")
def nothing_leaks() -> Iterator[None]:
    """What was left open warns when it is collected, and warnings are errors."""
    yield
    gc.collect()
