"""Who may use the route of a Worker's ``AI`` binding, which knows no token."""

from __future__ import annotations

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import (
    BINDING_HOST,
    MODEL,
    PATIENCE,
    PROMPT,
    VERIFY,
    bearer,
    bound,
    origin_of,
    refusal_of,
)
from workersai.local import LocalServer, ScriptedEngine
from workersai.local.app import LocalApp
from workersai.local.faults import FaultPlan
from workersai.local.records import RequestLog

CACHED = {"gateway": {"id": "g", "cacheTtl": 60}}
GATEWAY = "/ai-gateway/run?version=3"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:8787"},
        {"origin": "null"},
        {"host": "localhost:8787"},
        {"host": f"{BINDING_HOST}.example"},
    ],
)
@pytest.mark.parametrize("path", ["/run?version=3", GATEWAY])
def test_a_page_in_a_browser_is_not_let_in(serve: Serve, headers: dict[str, str], path: str) -> None:
    server = serve("secret")
    bound(server, PROMPT, CACHED, path=GATEWAY)
    refused = bound(server, PROMPT, CACHED, path=path, cf_aig_gateway_id="g", cf_aig_cache_ttl="60", **headers)
    told = "InferenceUpstreamError: 10000: Authentication error: only workerd on this machine is let in here, calling "
    assert refusal_of(refused) == (403, told + BINDING_HOST)


def test_a_page_may_not_even_ask_whether_it_may(echo: LocalServer) -> None:
    """What a browser asks first, as the header with the model is none of its simple ones."""
    headers = {"origin": "http://evil.example", "access-control-request-headers": "cf-consn-model-id"}
    response = httpx.options(f"{origin_of(echo)}/run?version=3", headers=headers, verify=VERIFY, timeout=PATIENCE)
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_another_machine_is_not_let_in() -> None:
    app = LocalApp(ScriptedEngine("secret"), api_token="t", account_id="a", log=RequestLog(), faults=FaultPlan(None))
    for address, status in (("192.0.2.1", 403), ("2001:db8::1", 403), ("127.0.0.2", 200), ("::1", 200)):
        asking = httpx.ASGITransport(app, client=(address, 50_000))
        async with httpx.AsyncClient(transport=asking, base_url=f"http://{BINDING_HOST}") as client:
            reply = await client.post(
                "/run?version=3", json={"inputs": PROMPT, "options": {}}, headers={"cf-consn-model-id": MODEL}
            )
        assert reply.status_code == status, address


def test_the_catalogue_is_for_the_binding_alone(echo: LocalServer) -> None:
    response = httpx.get(
        f"{origin_of(echo)}/ai-api/models/search", headers=bearer(echo), verify=VERIFY, timeout=PATIENCE
    )
    assert response.status_code == 403
