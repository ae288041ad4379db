"""Workers on workerd, Cloudflare's own runtime, with the local server behind their ``AI`` binding; no account is used.

npm installs what the example pins into ``.node/`` of the checkout, where it stays: some 170 MB.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import Serve
from tests.workersai.local.asking import MODEL, VERIFY, address_of, event_of, events_of
from workersai.local import Answer, Gate, LocalServer

pytestmark = pytest.mark.workerd

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "worker"
INSTALLED = ROOT / ".node"
# Seconds.
DOWNLOAD = 600
PATIENCE = 300
UNREACHABLE = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|ENETUNREACH|EHOSTUNREACH)\b"
)

# Hands over what it is sent to the binding, and tells what came of it.
PROBE = """
const told = (ai) => ({
  status: ai.lastRequestHttpStatusCode,
  code: ai.lastRequestInternalStatusCode,
  request: ai.lastRequestId,
  log: ai.aiGatewayLogId,
});
export default {
  async fetch(request, env) {
    const { method, args } = await request.json();
    try {
      const answer = await env.AI[method](...args);
      if (answer instanceof Response) return answer;
      if (answer instanceof ReadableStream) return new Response(answer);
      return Response.json({ answer, ...told(env.AI) });
    } catch (error) {
      return Response.json({ error: `${error}`, ...told(env.AI) });
    }
  },
};
"""


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder ``node_modules`` of the example, installed where it isn't yet."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"Node is not installed: there is no {program}.")
    INSTALLED.mkdir(exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes run tests, too
        _install()
    return INSTALLED / "node_modules"


def _install() -> None:
    pinned, stamp = (EXAMPLE / "package.json").read_text(), INSTALLED / "installed.json"
    if stamp.exists() and stamp.read_text() == pinned:
        return
    for name in ("package.json", ".npmrc"):
        shutil.copy(EXAMPLE / name, INSTALLED)
    # Both packages work without their scripts.
    quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    try:
        done = subprocess.run(  # noqa: S603
            ["npm", "install", *quietly],  # noqa: S607
            cwd=INSTALLED,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install workerd within {DOWNLOAD} seconds.")
    if done.returncode != 0 and (reason := UNREACHABLE.search(done.stderr)):
        pytest.skip(f"The npm registry can't be reached: {reason[0]}.")
    assert done.returncode == 0, done.stderr
    stamp.write_text(pinned)


@contextmanager
def workerd(modules: Path, config: Path, server: LocalServer) -> Iterator[httpx.Client]:
    """A client of the Worker that ``config`` describes, with ``server`` in place of the local server that it names."""
    # Not the script of the package, which would start a process of its own.
    binary = next(modules.glob("@cloudflare/workerd-*/bin/workerd"), None)
    if binary is None:
        pytest.skip("There is no workerd for this system.")
    host, port = address_of(server)
    reading, writing = os.pipe()
    addresses = ["--socket-addr=http=127.0.0.1:0", f"--external-addr=workers-ai={host}:{port}"]
    with (
        os.fdopen(reading, "rb", buffering=0) as control,
        subprocess.Popen(  # noqa: S603
            [binary, "serve", config, *addresses, f"--control-fd={writing}"], pass_fds=[writing]
        ) as process,
    ):
        os.close(writing)
        try:
            assert select.select([control], [], [], PATIENCE)[0], "workerd does not start."
            listening = json.loads(control.readline())
            origin = f"http://127.0.0.1:{listening['port']}"
            with httpx.Client(base_url=origin, verify=VERIFY, timeout=PATIENCE) as client:
                yield client
        finally:
            process.kill()


@pytest.fixture(scope="module")
def built(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as its user has it after ``npm install`` and ``npm run build``."""
    folder = tmp_path_factory.mktemp("example") / "worker"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (folder / "node_modules").symlink_to(modules)
    subprocess.run(["npm", "run", "--silent", "build"], cwd=folder, check=True, timeout=PATIENCE)  # noqa: S607
    return folder


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the probe, with the configuration of the example."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "dist").mkdir()
    (folder / "dist" / "index.js").write_text(PROBE)
    shutil.copy(EXAMPLE / "workerd.capnp", folder)
    return folder


Call = Callable[..., httpx.Response]


@pytest.fixture
def bind(modules: Path, probing: Path) -> Iterator[Callable[[LocalServer], Call]]:
    """For a server, what calls a method of the binding in front of it, in a Worker."""
    with ExitStack() as stack:

        def bound(server: LocalServer) -> Call:
            client = stack.enter_context(workerd(modules, probing / "workerd.capnp", server))
            return lambda method, *args: client.post("/", json={"method": method, "args": args})

        yield bound


Bind = Callable[[LocalServer], Call]


def test_the_example_streams_an_answer_while_the_model_writes(modules: Path, built: Path, serve: Serve) -> None:
    gate = Gate()
    server = serve([Answer(pieces=["It ", "is ", "sunny."], hold={1: gate})])
    with (
        workerd(modules, built / "workerd.capnp", server) as client,
        client.stream("GET", "/", params={"q": "How is it?"}) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        lines = (line for line in response.iter_lines() if line)
        first = event_of(next(lines))
        assert server.requests[0].outcome == "open"
        gate.open()
        *rest, end = [event_of(line) for line in lines]
    assert "".join(event["response"] for event in [first, *rest]) == "It is sunny."
    assert end == "[DONE]"
    (record,) = server.requests
    assert record.wait() == "complete"
    assert record.path == "/run"
    assert record.body["inputs"]["messages"][-1] == {"role": "user", "content": "How is it?"}


def test_the_example_tells_of_a_refusal(modules: Path, built: Path) -> None:
    with LocalServer("ok", faults="3040") as server, workerd(modules, built / "workerd.capnp", server) as client:
        response = client.get("/")
    assert response.status_code == 502
    assert response.text == "AiError: 3040: Capacity temporarily exceeded, please try again.\n"


def test_a_reader_who_leaves_the_worker_leaves_the_model(modules: Path, built: Path, serve: Serve) -> None:
    server = serve([Answer(pieces=repeat("and "))])
    with workerd(modules, built / "workerd.capnp", server) as client:
        with client.stream("GET", "/") as response:
            next(response.iter_lines())
        # workerd learns of it as it sends on what comes next.
        assert server.requests[0].wait() == "disconnected"


def test_a_run_gives_a_worker_the_result(bind: Bind, serve: Serve) -> None:
    told = bind(serve("Paris."))("run", MODEL, {"prompt": "The capital of France?"}).json()
    assert told["answer"]["response"] == "Paris."
    assert told["status"] == 200
    assert told["request"]


@pytest.mark.parametrize(
    ("model", "inputs", "error", "code"),
    [
        ("@cf/none", {"prompt": "hi"}, "InferenceUpstreamError: 5007: No such model @cf/none or task", None),
        (
            MODEL,
            {"prompt": "hi", "temperature": 6},
            "AiError: 5006: Bad input: Error: '/temperature' must be <= 5",
            5006,
        ),
    ],
)
def test_a_refusal_is_an_error_that_a_worker_can_read(
    bind: Bind, echo: LocalServer, model: str, inputs: dict[str, Any], error: str, code: int | None
) -> None:
    told = bind(echo)("run", model, inputs).json()
    assert told["error"] == error
    assert (told["status"], told.get("code")) == (400, code)


def test_what_the_edge_answers_is_an_error_with_its_page(bind: Bind) -> None:
    with LocalServer("ok", faults="html:502") as server:
        told = bind(server)("run", MODEL, {"prompt": "hi"}).json()
    assert told["error"].startswith("InferenceUpstreamError: <!DOCTYPE html>")
    assert told["status"] == 502


def test_the_options_of_a_run_are_heeded(bind: Bind, serve: Serve) -> None:
    server = serve(["one", "two", "three", "four"])
    call = bind(server)
    gateway = {"gateway": {"id": "g", "cacheTtl": 60, "metadata": {"team": "docs"}, "collectLog": True}}
    first, again = (call("run", MODEL, {"prompt": "hi"}, gateway).json() for _ in range(2))
    assert (first["answer"]["response"], again["answer"]["response"]) == ("one", "one")
    assert first["log"]
    assert first["log"] != again["log"]
    raw = call("run", MODEL, {"prompt": "hi"}, {**gateway, "returnRawResponse": True})
    assert raw.headers["cf-aig-cache-status"] == "MISS"  # the body is another one
    assert raw.json()["response"] == "two"
    affine = {"extraHeaders": {"x-session-affinity": "s"}}
    assert "prompt_tokens_details" in call("run", MODEL, {"prompt": "hi"}, affine).json()["answer"]["usage"]
    assert [record.path for record in server.requests] == [*["/ai-gateway/run"] * 3, "/run"]


def test_a_worker_streams_without_an_event_lost(bind: Bind, serve: Serve) -> None:
    events = events_of(bind(serve("é " * 2_000))("run", MODEL, {"prompt": "hi", "stream": True}).text)
    assert "".join(event["response"] for event in events[:-1]) == "é " * 2_000
    assert events[-1] == "[DONE]"


def test_a_worker_queues_a_batch(bind: Bind, serve: Serve) -> None:
    call = bind(serve("ok"))
    queued = call("run", MODEL, {"requests": [{"prompt": "a"}]}, {"queueRequest": True}).json()["answer"]
    poll = {"request_id": queued["request_id"]}
    while (polled := call("run", MODEL, poll).json()["answer"]).get("status"):
        pass
    assert polled["responses"] == [{"id": 0, "result": {"response": "ok"}, "success": True}]


def test_a_worker_lists_the_models(bind: Bind, echo: LocalServer) -> None:
    (model,) = bind(echo)("models", {"search": "llama-3.3"}).json()["answer"]
    assert model["name"] == MODEL


def test_a_worker_that_asks_for_what_is_not_here_is_told(bind: Bind, echo: LocalServer) -> None:
    told = bind(echo)("run", MODEL, {"prompt": "hi"}, {"prefix": "x"}).json()
    assert told["error"] == f"InferenceUpstreamError: 5007: No such model x:{MODEL} or task"
    assert bind(echo)("run", MODEL, {"prompt": "hi"}, {"websocket": True}).status_code == 404
