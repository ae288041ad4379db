"""Streams that are left to the garbage collector, and signal handlers that raise: no later call ever hangs."""

import faulthandler
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from tests.raw_server import LONG, RawServer, chunk, chunked, completion, events, is_stream, raw_server, reply
from workersai import Client, CostTracker, RateLimit, _cleanup

STREAM = chunked(events("one ", "two ", "three"))
OPEN_ENDED = chunked(events("one ", "two ", done=False), end=False)
Start = Callable[[], Any]


def answer(connected: Any, request: bytes) -> None:
    connected.sendall(STREAM if is_stream(request) else reply(completion("ok")))


def never_end(connected: Any, request: bytes) -> None:
    connected.sendall(OPEN_ENDED if is_stream(request) else reply(completion("ok")))


def write_on(connected: Any, request: bytes) -> None:
    """As a model does, until the client leaves: no thread of a web app waits long for the next delta of a stream."""
    never_end(connected, request)
    while is_stream(request):
        connected.sendall(chunk(events("more", done=False)))
        time.sleep(0.005)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(answer) as running:
        yield running


@pytest.fixture(autouse=True)
def _hang_is_reported() -> Iterator[None]:
    """A hang of this kind stops every thread for good: it ends the process with the stacks, and not the CI's time."""
    faulthandler.dump_traceback_later(5 * LONG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=["client", "langchain", "llamaindex"])
def start(request: pytest.FixtureRequest, server: RawServer) -> Start:
    """Starts a stream by one of the APIs."""
    if request.param == "client":
        client = Client(**server.account)
        return lambda: client.stream("hi")
    if request.param == "langchain":
        chat = ChatWorkersAI(**server.account)
        return lambda: chat.stream("hi")
    llm = WorkersAI(**server.account)
    return lambda: llm.stream_complete("hi")


class Keeper:
    """Holds a stream in a cycle, so that only the garbage collector ends it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.itself = self


def abandon(start: Start, number: int) -> None:
    for _ in range(number):
        stream = start()
        next(iter(stream))
        Keeper(stream)


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive(), "a thread hangs"


@pytest.mark.parametrize("threads", [1, 4])
def test_streams_may_be_collected_at_any_allocation(start: Start, threads: int) -> None:
    """The collector runs after every so many allocations, so that it meets each line of a call."""
    before = gc.get_threshold()
    try:
        for threshold in (*range(1, 40, 3), 50, 70, 100, 150, 300):
            gc.set_threshold(threshold, 2, 2)
            in_threads(threads, lambda: abandon(start, 6))
    finally:
        gc.set_threshold(*before)
    gc.collect()
    _cleanup.flush()
    assert _cleanup.pending() == 0


def test_an_error_of_the_callers_own_leaves_the_stream_to_the_collector(start: Start) -> None:
    """The traceback holds the frame, the frame the stream: the common way into such a cycle."""

    def fail() -> None:
        stream = start()
        for _ in stream:
            raise ValueError("the caller's own")

    failures = []
    for _ in range(300):
        try:
            fail()
        except ValueError as error:
            error.add_note("kept") if hasattr(error, "add_note") else None
            failures.append(error)
            failures = failures[-5:]
    assert len(failures) == 5


def test_a_client_of_the_callers_own_is_safe_as_well(server: RawServer) -> None:
    """Its pool is httpx's, whose lock isn't re-entrant: it is closed by the clean-up thread."""
    with httpx.Client() as http:
        client = Client(**server.account, http_client=http)
        before = gc.get_threshold()
        try:
            for threshold in range(1, 60, 4):
                gc.set_threshold(threshold, 2, 2)
                abandon(lambda: client.stream("hi"), 10)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert client.run("still there?").text == "ok"


def test_the_connection_of_an_abandoned_stream_ends_at_once() -> None:
    with raw_server(never_end) as server:
        client = Client(**server.account)
        for number in range(5):
            stream = client.stream("hi")
            assert next(stream).text
            if number % 2:
                Keeper(stream)
            del stream
            gc.collect()
            assert server.ended.acquire(timeout=LONG), "the server would write on, and the account pay for it"
        assert client.run("still there?").text == "ok"


def test_what_an_abandoned_stream_may_have_cost_is_counted(server: RawServer) -> None:
    with CostTracker() as tracker, Client(**server.account) as client:
        for _ in range(3):
            abandon(lambda: client.stream("hi", rate_limit=RateLimit(1_000, 1, name="abandoned")), 1)
        gc.collect()
        assert tracker.calls == 3
        assert tracker.unpriced_calls == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_jobs_may_be_collected_at_any_allocation(server: RawServer, tmp_path: Path, threads: int) -> None:
    """A job has threads, locks and a journal, which can be continued once the job is collected."""
    client = Client(**server.account)

    def work() -> None:
        for number in range(2):
            path = tmp_path / f"{threading.get_ident()}-{number}.journal"
            options: Any = {"mode": "calls", "rate_limit": None, "concurrency": 3, "journal": path}
            job = client.batch(["one", "two", "three", "four", "five"], **options)
            assert next(job).completion is not None
            Keeper(job)

    before = gc.get_threshold()
    try:
        for threshold in (15, 40, 100, 250):
            gc.set_threshold(threshold, 2, 2)
            in_threads(threads, work)
            gc.collect()
            for path in tmp_path.glob("*.journal"):
                assert len(list(client.batch(None, journal=path, mode="calls", rate_limit=None))) == 5, "it goes on"
            for path in tmp_path.iterdir():
                path.unlink()
    finally:
        gc.set_threshold(*before)


def test_ends_that_wait_stay_bounded(server: RawServer) -> None:
    """A call does some of the work itself where too much of it waits."""
    hold = threading.Event()
    _cleanup.start()
    _cleanup.submit(hold.wait)
    with Client(**server.account) as client:
        for _ in range(_cleanup.MAX_PENDING + 50):
            next(client.stream("hi"))
        assert _cleanup.pending() <= _cleanup.MAX_PENDING + 2
        hold.set()
        _cleanup.flush()
        assert _cleanup.pending() == 0


def test_the_end_of_a_stream_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("broken")

    _cleanup.start()
    _cleanup.submit(fail)
    _cleanup.flush()
    assert "The end of a stream that was left early failed" in caplog.text
    assert "broken" in caplog.text


def test_work_that_reads_a_tracker_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the end of an abandoned job does; in the clean-up thread, and in a thread that drains the queue."""
    monkeypatch.setattr(_cleanup, "_FLUSH_SECONDS", 5 * LONG)
    tracker, done = CostTracker(), threading.Event()

    def look() -> None:
        assert tracker.calls == 0
        done.set()

    _cleanup.submit(look)
    in_threads(1, _cleanup.drain)
    _cleanup.start()
    _cleanup.submit(look)
    _cleanup.flush()
    assert done.wait(LONG)


class Interruption(BaseException):
    """What the signal handler of these tests raises, as Ctrl-C's does."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket's, interrupted as it is made
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_signal_handler_may_raise_at_any_line(server: RawServer, *, streamed: bool) -> None:
    armed = False

    def interrupt(*_: object) -> None:
        if armed:
            raise Interruption

    def one(client: Client) -> Generator[None, None, None]:
        yield
        text = "".join(delta.text for delta in client.stream("hi")) if streamed else client.run("hi").text
        assert text == ("one two three" if streamed else "ok")

    previous = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        with Client(**server.account) as client:
            client.run("hi")
            for number in range(400):
                run = one(client)
                next(run)
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, 1e-5 + number * 5e-6)
                    next(run, None)
                    armed = False
                except Interruption:
                    interrupted += 1
                finally:
                    armed = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert all(client.run("hi", deadline=LONG).text == "ok" for _ in range(20)), "no lock or permit is lost"
    finally:
        signal.signal(signal.SIGALRM, previous)
        gc.collect()  # sockets that were interrupted as they were made
    assert interrupted > 20, "the handler has met calls at all"


def test_a_web_app_survives_browsers_that_leave() -> None:
    """Starlette iterates over the stream in a thread pool, and forgets it when a browser leaves."""
    app = """
        import asyncio, gc, sys, threading
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse, StreamingResponse
        from starlette.routing import Route
        import uvicorn
        from langchain_workersai import ChatWorkersAI

        llm = ChatWorkersAI(account_id="a", api_token="t", base_url=sys.argv[1], max_retries=0)

        def chat(request):
            return StreamingResponse((chunk.text for chunk in llm.stream("hello")), media_type="text/plain")

        def ask(request):
            return PlainTextResponse(llm.invoke("hello").text)

        gc.set_threshold(20, 2, 2)  # often enough to meet every line
        server = uvicorn.Server(uvicorn.Config(
            Starlette(routes=[Route("/chat", chat), Route("/ask", ask)]), port=0, log_level="critical"))

        async def main():
            serving = asyncio.ensure_future(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            print(server.servers[0].sockets[0].getsockname()[1], flush=True)
            await serving

        asyncio.run(main())
    """
    with raw_server(write_on) as service:
        command = [sys.executable, "-c", textwrap.dedent(app), service.account["base_url"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                assert process.stdout is not None
                address = f"http://127.0.0.1:{int(process.stdout.readline())}"
                with httpx.Client(timeout=LONG) as browser:
                    for _ in range(60):
                        with browser.stream("GET", f"{address}/chat") as page:
                            next(page.iter_text())  # and leaves
                        assert browser.get(f"{address}/ask").text == "ok"
            finally:
                process.kill()
