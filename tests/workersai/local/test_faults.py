"""Faults on demand, as any HTTP client sees them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support import outcome_in_time
from tests.workersai.local.asking import MODEL, PATIENCE, VERIFY, bearer, post, run_url, twin_url
from workersai.local import Answer, Fault, LocalServer, RequestRecord
from workersai.local.faults import CODES, Faults, any_of

Faulty = Callable[[Faults], LocalServer]


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    with ExitStack() as stack:
        yield lambda faults: stack.enter_context(
            LocalServer(lambda _: Answer(pieces=["It ", "is ", "sunny."]), faults=faults)
        )


def ask(
    server: LocalServer, timeout: float = PATIENCE, *, stream: bool = False, url: str | None = None
) -> httpx.Response:
    """``timeout`` is how long a stall is waited for."""
    body = {"prompt": "hi", "stream": stream}
    return httpx.post(url or run_url(server), json=body, headers=bearer(server), verify=VERIFY, timeout=timeout)


def post_late(url: str, request: dict[str, Any], timeout: float) -> httpx.Response:
    """Posts a request, and waits so long for each part of the reply."""
    return httpx.post(url, **request, timeout=timeout)


def stalled(server: LocalServer, call: Callable[[float], object]) -> None:
    """Leaves a server that stalls, once it has seen the request; the timeout is that of the call."""

    def attempt(timeout: float) -> bool:
        with pytest.raises(httpx.ReadTimeout):
            call(timeout)
        return bool(server.requests)

    assert outcome_in_time(attempt, bool)
    assert {record.wait() for record in server.requests} == {"disconnected"}


def read_into(pieces: list[bytes], server: LocalServer, *, stream: bool) -> None:
    body = {"prompt": "hi", "stream": stream}
    with (
        httpx.Client(headers=bearer(server), verify=VERIFY, timeout=PATIENCE) as client,
        client.stream("POST", run_url(server), json=body) as reply,
    ):
        for piece in reply.iter_raw():
            pieces.append(piece)  # noqa: PERF402 - what came before the failure counts


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_wire_page(faulty: Faulty, code: int) -> None:
    reply = ask(faulty(str(code)), stream=True)
    status, words = CODES[code]
    assert reply.status_code == status
    assert reply.json() == {
        "result": None,
        "success": False,
        "errors": [{"code": code, "message": words}],
        "messages": [],
    }
    assert reply.headers["cf-ray"]
    assert "retry-after" not in reply.headers


def test_a_refusal_may_say_when_to_come_back(faulty: Faulty) -> None:
    assert ask(faulty("3040:2")).headers["retry-after"] == "2"
    page = ask(faulty("html:503:9"))
    assert (page.status_code, page.headers["retry-after"]) == (503, "9")


def test_a_code_that_nobody_knows_and_the_other_form_of_an_error(faulty: Faulty) -> None:
    for spec, status in (("1234", 400), ("1234/599", 599)):
        reply = ask(faulty(spec))
        assert (reply.status_code, reply.json()["errors"][0]["code"]) == (status, 1234)
    reply = ask(faulty("error:4006"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "internal_error")
    assert reply.json()["error"]["message"].startswith("4006: AiError: ")


def test_a_page_and_nothing_at_all(faulty: Faulty) -> None:
    page, nothing = ask(faulty("html:524")), ask(faulty("empty"))
    assert (page.status_code, page.headers["content-type"]) == (524, "text/html")
    assert "<title>524" in page.text
    assert (nothing.status_code, nothing.content) == (200, b"")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after", [0, 1, 40])
def test_a_cut_comes_after_just_so_many_bytes(faulty: Faulty, stream: bool, after: int) -> None:
    server = faulty(f"cut:{after}")
    came: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        read_into(came, server, stream=stream)
    assert len(b"".join(came)) == after
    assert server.requests[0].wait() == "failed"


@pytest.mark.parametrize("after", [0, 20])
def test_a_stall_lasts_until_the_client_leaves(faulty: Faulty, after: int) -> None:
    server = faulty(f"stall:{after}")
    stalled(server, partial(ask, server, stream=True))


def test_what_stalls_takes_no_seat_from_the_others() -> None:
    faults = ["stall:5"] * 20
    # The server ends first, and with it what waits in the threads.
    with ThreadPoolExecutor(20) as pool, LocalServer(lambda _: "It is sunny.", faults=faults) as server:
        waiting = [pool.submit(read_into, [], server, stream=True) for _ in faults]
        while len(server.requests) < len(faults):
            time.sleep(0.01)
        assert ask(server).status_code == 200
        # The client has its reply a moment before the server notes that it was sent.
        assert server.requests[20].wait() == "complete"
        assert [record.outcome for record in server.requests[:20]] == ["open"] * 20
        server.close()
        assert {type(one.exception()) for one in waiting} == {httpx.RemoteProtocolError}


def test_a_refusal_stalls_too_until_the_client_leaves(faulty: Faulty) -> None:
    for fault in ("stall", "stall:5"):
        server = faulty(fault)
        refused = {"json": {"prompt": 7}, "headers": bearer(server), "verify": VERIFY}
        stalled(server, partial(post_late, run_url(server), refused))


def test_on_the_twin_errors_have_openais_shape(faulty: Faulty) -> None:
    server = faulty(["3040", "event:3007"])
    asked = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    refused, told = (post(server, twin_url(server), asked) for _ in range(2))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, 3040)
    assert json.loads(told.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == 3007


@pytest.mark.parametrize("chosen", ["nonsense", 3040, ZeroDivisionError()])
def test_a_function_that_chooses_no_fault_is_told_of(
    faulty: Faulty, chosen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def choose(_: RequestRecord) -> Any:
        if isinstance(chosen, Exception):
            raise chosen
        return chosen

    server = faulty(choose)
    reply = ask(server)
    assert reply.status_code == 500
    assert reply.json()["errors"][0]["code"] == 5000
    assert server.requests[0].wait() == "failed"
    assert "The server failed." in caplog.text


@pytest.mark.parametrize("given", [3040, b"0", [3040], [True], {"3040"}, {3040: 1}])
def test_what_holds_no_fault_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="faults"):
        LocalServer("x", faults=given)


@pytest.mark.parametrize("wrong", [("code", 3040), ("stall", None), ("nothing", "1"), ("cut", "1", "0.5")])
def test_a_fault_of_wrong_types_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"fault '{wrong[0]}'"):
        Fault(*wrong)


def test_a_server_that_stalls_can_be_closed() -> None:
    with LocalServer("never", faults="stall") as server, pytest.raises(httpx.ReadTimeout):
        ask(server, timeout=0.2)


@pytest.mark.parametrize("stream", [True, False])
def test_garbage_is_no_json_and_no_text(faulty: Faulty, stream: bool) -> None:
    reply = ask(faulty("garbage:30"), stream=stream)
    assert reply.status_code == 200
    with pytest.raises(UnicodeDecodeError):
        reply.content.decode()


def test_a_failure_in_the_midst_of_it(faulty: Faulty) -> None:
    server = faulty("event:3007")
    streamed, whole = ask(server, stream=True).text, ask(server).json()
    first, second, *rest = streamed.strip().split("\n\n")
    assert json.loads(first.removeprefix("data: "))["response"] == "It "
    assert json.loads(second.removeprefix("data: "))["errors"][0]["code"] == 3007
    assert not rest
    assert (whole["success"], whole["errors"][0]["code"]) == (False, 3007)


@pytest.mark.parametrize("stream", [True, False])
def test_an_end_that_comes_too_early(faulty: Faulty, stream: bool) -> None:
    reply, whole = (ask(faulty(fault), stream=stream) for fault in ("end:20", "end:9999"))
    assert (reply.status_code, len(reply.content)) == (200, 20)
    assert whole.content.endswith(b"data: [DONE]\n\n" if stream else b"}")


def test_a_whole_reply_in_place_of_a_stream(faulty: Faulty) -> None:
    reply = ask(faulty("whole"), stream=True)
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["result"]["response"] == "It is sunny."


def test_a_dribble_is_the_same_reply_byte_by_byte(faulty: Faulty) -> None:
    assert ask(faulty("dribble:0")).json()["result"]["response"] == "It is sunny."


def test_a_wrong_label(faulty: Faulty) -> None:
    reply = ask(faulty("content-type:application/octet-stream"))
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.json()["result"]["response"] == "It is sunny."


def test_one_after_the_other_and_by_request(faulty: Faulty) -> None:
    turns = faulty(["3040", None, Fault("html", "502")])
    assert [ask(turns).status_code for _ in range(4)] == [429, 200, 502, 200]

    def by_request(record: RequestRecord) -> str | None:
        return "3040" if record.body["stream"] else None

    server = faulty(by_request)
    assert [ask(server, stream=stream).status_code for stream in (True, False)] == [429, 200]


def test_a_share_of_the_replies(faulty: Faulty) -> None:
    server = faulty("3040@0.3")
    failed = [ask(server).status_code == 429 for _ in range(60)]
    assert 5 < sum(failed) < 35
    some = faulty(any_of(["3040@0.5", "html@0.5"]))
    assert {ask(some).status_code for _ in range(60)} == {429, 502}, "one of the two, each time"
    with pytest.raises(ValueError, match="more than 1"):
        any_of(["3040@0.6", "html@0.6"])


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "3041x",
        "9999/200",
        "0",
        "1/2/3",
        "3040:1.5",
        "html:200",
        "html:502:x",
        "whole:1",
        "error:1",
        "3040@1.2.3",
        "cut:-1",
        "cut:x",
        "stall:",
        "3040@0",
        "3040@2",
        "nothing",
        "3040:-1",
        "event:1",
    ],
)
def test_what_is_no_fault_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="fault"):
        LocalServer("x", faults=spec)


def test_the_command_takes_faults_and_refuses_others() -> None:
    command: list[Any] = [sys.executable, "-m", "workersai", "serve", "--port", "0", "--fault", "3040@1.5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - our own command
    assert ran.returncode == 1
    assert ran.stderr.startswith("--fault: The share of the fault 'code' must be above 0 and at most 1; got 1.5.")
