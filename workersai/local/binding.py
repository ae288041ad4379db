"""The door that a Worker's ``AI`` binding comes by: what REST says by path, query and headers, said in workerd's way.

Written from wire.md#worker-binding and from what workerd 1.20261117 sends and reads: its module
``cloudflare-internal:ai-api``. A run through a gateway has a path of its own there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from workersai.local.validation import Json
from workersai.local.wire import Manner, WireError, bad_input, error_envelope, to_json

RUN_PATHS = ("/run", "/ai-gateway/run")
MODELS_PATH = "/ai-api/models/search"

# Where workerd believes to be calling; no page in a browser can claim to be calling there.
_HOST = "workers-binding.ai"
_MODEL = "cf-consn-model-id"
_VERSION = "3"
_AI_ERROR = "AiError"
# Those of the options of a gateway that the local one heeds, with the headers that say the same over REST.
_GATEWAY = {
    "id": "cf-aig-gateway-id",
    "cacheTtl": "cf-aig-cache-ttl",
    "cacheKey": "cf-aig-cache-key",
    "skipCache": "cf-aig-skip-cache",
}


def is_run(path: str) -> bool:
    """Whether it is where ``env.AI.run`` arrives."""
    return path in RUN_PATHS


def is_bound(path: str) -> bool:
    """Whether anything of the binding arrives there."""
    return is_run(path) or path == MODELS_PATH


def admit(request: Request) -> None:
    """Lets workerd pass, if it runs on this machine: it has no token, since the binding is the trust.

    A page in a browser may send requests to this machine, too. It can neither name that host, nor leave out its origin.

    Raises:
        WireError: somebody else asks (10000).
    """
    if not _is_workerd(request):
        raise WireError(
            403, 10000, f"Authentication error: only workerd on this machine is let in here, calling {_HOST}"
        )


def model_of(request: Request) -> str:
    """The model that is asked.

    Raises:
        WireError: none is named (3003), or the words are those of another version of the binding (5019).
    """
    if request.query_params.get("version") != _VERSION:
        raise WireError(405, 5019, f"{_AI_ERROR}: Request trying to use deprecated SDK version")
    model = request.headers.get(_MODEL)
    if not model:
        raise WireError(400, 3003, f"{_AI_ERROR}: Request is missing headers or body: {_MODEL}")
    return model


def run_from_binding(body: Json) -> tuple[Json, bool]:
    """The body that REST would be sent, and whether it is to be queued.

    Options of which nothing is known are left unread: the binding sends on whatever the Worker gives.

    Raises:
        WireError: there are no inputs, or an option can't be what it is (5006).
    """
    inputs, options = body.get("inputs"), body.get("options", {})
    if not isinstance(inputs, dict):
        raise bad_input("'/inputs' must be object")
    if not isinstance(options, dict):
        raise bad_input("'/options' must be object")
    gateway = options.get("gateway")
    if gateway is not None and not (isinstance(gateway, dict) and isinstance(gateway.get("id"), str)):
        raise bad_input("'/options/gateway' must be object with the string 'id'")
    queued = options.get("queueRequest", False)
    if not isinstance(queued, bool):
        raise bad_input("'/options/queueRequest' must be boolean")
    if queued or "rejectIfBusy" not in options:
        return inputs, queued
    return {**inputs, "options": {"rejectIfBusy": options["rejectIfBusy"]}}, False


def with_gateway(scope: Scope, body: Any) -> Scope:
    """``scope`` with the headers that REST would be sent for the gateway of a Worker's call."""
    own = [(name, value) for name, value in scope["headers"] if not name.startswith(b"cf-aig-")]
    options = body.get("options") if isinstance(body, dict) and _is_workerd(Request(scope)) else None
    gateway = options.get("gateway") if isinstance(options, dict) else None
    return {**scope, "headers": [*own, *_gateway_headers(gateway if isinstance(gateway, dict) else {})]}


def unstreamed(body: Json) -> Json:
    """The same request for a whole reply, by whichever door it came."""
    inputs = body.get("inputs")
    return {**body, "inputs": unstreamed(inputs)} if isinstance(inputs, dict) else {**body, "stream": False}


def _is_workerd(request: Request) -> bool:
    local = request.client is not None and ip_address(request.client.host).is_loopback
    return local and request.headers.get("host") == _HOST and "origin" not in request.headers


def _gateway_headers(gateway: Mapping[str, Any]) -> Iterable[tuple[bytes, bytes]]:
    for option, header in _GATEWAY.items():
        value = gateway.get(option)
        if value is not None:
            yield header.encode(), value.encode() if isinstance(value, str) else to_json(value)


def _result(result: Json, notes: Iterable[str]) -> Json:
    del notes  # the header alone tells them
    return result


def _error(error: WireError) -> Json:
    """What becomes the error that a Worker catches.

    workerd makes it ``AiError: 5006: Bad input: ...`` of the first form, and of the API's envelope
    ``InferenceUpstreamError: 5007: No such model ...``; both are seen in Workers' logs.
    """
    name, _, description = error.message.partition(": ")
    if name != _AI_ERROR:
        return error_envelope(error)
    return {"internalCode": error.code, "message": error.message, "name": name, "description": description}


BINDING = Manner(_result, _error, bare=True)
"""The result itself, and errors as workerd reads them."""
