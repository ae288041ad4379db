"""Both clients over real sockets; each test that takes ``driver`` runs with the sync and with the async one."""

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support import EVERY_DIALECT, PATIENCE, Driver, Serve, asked_text, connection, outcome_in_time, token_counts
from workersai import AsyncClient, Client, Message, Usage, errors
from workersai.local.engine import CalledTool, RawReply
from workersai.local.scripted import Answer, Gate, Refusal

HI = [Message("user", "hi")]


def refusals_then(*refusals: Refusal | RawReply) -> Callable[[Any], Any]:
    """A script that refuses first and answers from then on."""
    waiting = list(refusals)
    return lambda request: waiting.pop(0) if waiting else "at last"


@EVERY_DIALECT
def test_a_run_gives_the_whole_answer(driver: Driver, serve: Serve) -> None:
    server = serve(Answer("Hello world", usage=None) for _ in range(2))
    completion = driver.run(connection(server), HI, temperature=0.5)
    assert (completion.text, completion.finish_reason) == ("Hello world", "stop")
    assert token_counts(completion.usage) == Usage(prompt_tokens=5, completion_tokens=2)
    assert completion.request_id
    assert completion.request_id.endswith("-LOC")
    (record,) = server.requests
    assert record.body == {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "max_tokens": 4096}
    assert driver.run(connection(server), "a prompt").text == "Hello world"
    assert server.requests[-1].body == {"messages": [{"role": "user", "content": "a prompt"}], "max_tokens": 4096}


def test_a_text_is_a_prompt_in_the_completion_form(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: "Hello world")
    settings = {**connection(server), "prompt_form": "completion"}
    assert driver.run(settings, "a prompt").text == "Hello world"
    assert "".join(delta.text for delta in driver.stream(settings, "a prompt")) == "Hello world"
    body = {"prompt": "a prompt", "max_tokens": 4096}
    assert [record.body for record in server.requests] == [body, body | {"stream": True}]


@EVERY_DIALECT
def test_a_stream_gives_the_answer_in_pieces(driver: Driver, serve: Serve) -> None:
    server = serve([Answer(pieces=["Hé", "llo ", "東京"])])
    deltas = driver.stream(connection(server), HI)
    assert [delta.text for delta in deltas] == ["Hé", "llo ", "東京", ""]
    assert token_counts(deltas[-1].usage) == Usage(prompt_tokens=5, completion_tokens=3)
    assert server.requests[0].body["stream"] is True


@EVERY_DIALECT
def test_streamed_and_unstreamed_are_the_same_answer(driver: Driver, serve: Serve) -> None:
    answer = Answer("It is sunny.", usage=None, tool_calls=(CalledTool("f", {"a": 1}),))
    server = serve(lambda _: answer)
    whole = driver.run(connection(server), HI)
    streamed = driver.stream(connection(server), HI)[-1].completion
    assert streamed is not None
    assert [(call.name, call.arguments) for call in streamed.tool_calls] == [("f", {"a": 1})]
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [("f", {"a": 1})]
    assert token_counts(streamed.usage) == token_counts(whole.usage)
    assert streamed.finish_reason == whole.finish_reason


@EVERY_DIALECT
def test_json_mode_gives_the_object_as_json_text(driver: Driver, serve: Serve) -> None:
    server = serve([Answer(object={"a": [1, "é"]})])
    response_format = {"type": "json_schema", "json_schema": {"type": "object"}}
    assert json.loads(driver.run(connection(server), HI, response_format=response_format).text) == {"a": [1, "é"]}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_wrong_token_is_an_authentication_error(driver: Driver, serve: Serve, streamed: bool) -> None:
    settings = {**connection(serve("never")), "api_token": "wrong"}
    with pytest.raises(errors.AuthenticationError, match="CLOUDFLARE_API_TOKEN") as caught:
        (driver.stream if streamed else driver.run)(settings, HI)
    assert (caught.value.status_code, caught.value.code) == (401, 10000)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_unknown_model_is_told(driver: Driver, serve: Serve, streamed: bool) -> None:
    with pytest.raises(errors.ModelNotFoundError, match="begins with @cf/"):
        (driver.stream if streamed else driver.run)(connection(serve("never")), HI, model="@cf/meta/no-such-model")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_refusal_worth_a_retry_is_tried_again(driver: Driver, serve: Serve, streamed: bool) -> None:
    busy = RawReply(b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}', 429, headers={"Retry-After": "0"})
    server = serve(refusals_then(busy, busy))
    if streamed:
        assert driver.stream(connection(server), HI)[-1].completion.text == "at last"  # type: ignore[union-attr]
    else:
        assert driver.run(connection(server), HI).text == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [(3036, errors.QuotaExceededError), (4006, errors.QuotaExceededError), (5006, errors.BadRequestError)],
)
def test_a_refusal_that_holds_is_not_tried_again(
    driver: Driver, serve: Serve, code: int, kind: type[errors.WorkersAIError]
) -> None:
    server = serve(refusals_then(Refusal(code, "no", 429)))
    with pytest.raises(kind):
        driver.run(connection(server), HI)
    assert len(server.requests) == 1


def test_without_retries_the_first_failure_stands(driver: Driver, serve: Serve) -> None:
    server = serve(refusals_then(Refusal(3040, "busy", 429)))
    with pytest.raises(errors.RateLimitError):
        driver.run(connection(server), HI, max_retries=0)
    assert len(server.requests) == 1


def test_a_wait_that_is_too_long_is_left_to_the_caller(driver: Driver, serve: Serve) -> None:
    server = serve(refusals_then(RawReply(b"{}", 503, headers={"Retry-After": "86400"})))
    with pytest.raises(errors.ServerError) as caught:
        driver.run(connection(server), HI)
    assert (caught.value.retry_after, len(server.requests)) == (86400.0, 1)


@EVERY_DIALECT
def test_a_stream_is_not_tried_again_once_a_piece_was_handed_over(driver: Driver, serve: Serve) -> None:
    server = serve([Answer(pieces=["Hel"], failure=Refusal(3040, "busy", 429)), "never"])
    with pytest.raises(errors.RateLimitError) as caught:
        driver.stream(connection(server), HI)
    assert (caught.value.partial and caught.value.partial.text, len(server.requests)) == ("Hel", 1)


def test_a_connection_lost_in_mid_stream_is_an_interruption_with_what_came(driver: Driver, serve: Serve) -> None:
    server = serve([RawReply([b'data: {"response":"Hel"}\n\n', b'data: {"resp'], cut=True)])
    with pytest.raises(errors.StreamInterruptedError) as caught:
        driver.stream(connection(server), HI)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_a_connection_lost_in_mid_reply_is_a_connection_error(driver: Driver, serve: Serve) -> None:
    server = serve([RawReply([b'{"result":{"resp'], content_type="application/json", cut=True)])
    with pytest.raises(errors.APIConnectionError):
        driver.run(connection(server), HI, max_retries=0)


@pytest.mark.parametrize(
    "end", [b"data: [DONE]\n\n", b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n']
)
def test_a_connection_lost_after_the_whole_answer_loses_nothing(driver: Driver, serve: Serve, end: bytes) -> None:
    server = serve([RawReply([b'data: {"response":"Hello"}\n\n', end], cut=True)])
    deltas = driver.stream(connection(server), HI)
    assert [delta.text for delta in deltas] == ["Hello", ""]
    assert deltas[-1].finish_reason == "stop"


def test_a_stream_labelled_text_plain_is_a_stream(driver: Driver, serve: Serve) -> None:
    body = b'data: {"response":"ok"}\n\ndata: [DONE]\n\n'
    deltas = driver.stream(connection(serve([RawReply(body, content_type="text/plain")])), HI)
    assert [delta.text for delta in deltas] == ["ok", ""]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [200, 404, 502])
def test_a_page_of_html_is_summed_up_and_keeps_its_status(
    driver: Driver, serve: Serve, streamed: bool, status: int
) -> None:
    page = b"<html><head><title>Error 5xx</title></head>" + b"<p>sorry</p>" * 1000
    server = serve([RawReply(page, status, content_type="text/html")])
    with pytest.raises(errors.WorkersAIError, match="HTML page titled 'Error 5xx'") as caught:
        (driver.stream if streamed else driver.run)(connection(server), HI, max_retries=0)
    assert caught.value.status_code == status
    assert "sorry" not in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_no_server_there_is_a_connection_error(driver: Driver, streamed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"base_url": f"http://127.0.0.1:{port}", "account_id": "a", "api_token": "t"}
    with pytest.raises(errors.APIConnectionError, match=f"Could not connect to 127.0.0.1:{port}.*base URL"):
        (driver.stream if streamed else driver.run)(settings, HI, max_retries=0)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_server_that_does_not_answer_is_a_timeout(driver: Driver, serve: Serve, streamed: bool) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("late", hold={0: gate}))

    def attempt(timeout: float) -> bool:
        with pytest.raises(errors.APITimeoutError, match="did not answer in time"):
            (driver.stream if streamed else driver.run)(connection(server), HI, timeout=timeout, max_retries=0)
        return bool(server.requests)

    assert outcome_in_time(attempt, bool)
    assert server.requests[0].wait() == "disconnected"


def test_a_stall_in_mid_stream_is_a_timeout_with_what_came(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["Hel", "lo"], hold={1: Gate()}))

    def attempt(timeout: float) -> str | None:
        with pytest.raises(errors.APITimeoutError) as caught:
            driver.stream(connection(server), HI, timeout=timeout)
        return caught.value.partial.text if caught.value.partial else None

    assert outcome_in_time(attempt, bool) == "Hel"


def test_a_stream_cut_off_before_its_first_piece_is_tried_again(driver: Driver, serve: Serve) -> None:
    server = serve(refusals_then(RawReply(b": hi\n\n", cut=True)))
    assert driver.stream(connection(server), HI)[0].text == "at"
    assert len(server.requests) == 2


def test_a_redirect_is_not_followed(driver: Driver, serve: Serve) -> None:
    server = serve([RawReply(b"", 302, headers={"Location": "https://elsewhere.example/"})])
    with pytest.raises(errors.BadRequestError, match="redirect"):
        driver.run(connection(server), HI)


def test_leaving_a_stream_early_closes_its_connection_and_leaves_the_client_usable(
    driver: Driver, serve: Serve
) -> None:
    endless = Answer(pieces=(f"{number} " for number in range(10**9)))
    server = serve(lambda request: endless if request.stream else "yes")
    assert driver.first(connection(server), HI).text == "0 "
    assert server.requests[0].wait() == "disconnected"


@EVERY_DIALECT
def test_a_stop_string_ends_the_stream_and_closes_its_connection(driver: Driver, serve: Serve) -> None:
    endless = Answer(pieces=["one ", "t", "wo ", "TH", "REE"] + ["more "] * 10**6)
    server = serve(lambda _: endless)
    deltas = driver.stream(connection(server), HI, stop=["THREE"])
    assert "".join(delta.text for delta in deltas) == "one two "
    assert deltas[-1].finish_reason == "stop"
    assert server.requests[0].wait() == "disconnected"
    assert "stop" not in server.requests[0].body


def test_at_a_stop_string_the_connection_is_closed_before_the_text_is_handed_over(serve: Serve) -> None:
    server = serve(lambda _: Answer(pieces=["one TWO "] + ["more "] * 10**6))
    with Client(**connection(server)) as client:
        deltas = client.stream(HI, stop=["TWO"])
        assert next(deltas).text == "one "
        assert server.requests[0].wait() == "disconnected"  # while the stream is not read on
        assert next(deltas).finish_reason == "stop"


def test_bad_input_fails_at_the_call_and_sends_nothing(driver: Driver, serve: Serve) -> None:
    server = serve("never")
    for model_input, options in (("", {}), ([], {}), (HI, {"temperature": 9})):
        with pytest.raises(errors.BadRequestError):
            driver.run(connection(server), model_input, **options)
        with pytest.raises(errors.BadRequestError):
            driver.stream(connection(server), model_input, **options)
    assert server.requests == []


def test_a_clients_defaults_hold_for_each_call_that_says_nothing_else(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: "ok")
    settings = {**connection(server), "temperature": 0.1, "max_tokens": 5}
    driver.run(settings, "a")
    driver.run(settings, "b", temperature=0.9, max_tokens=None)
    assert [record.body for record in server.requests] == [
        {"messages": [{"role": "user", "content": "a"}], "temperature": 0.1, "max_tokens": 5},
        {"messages": [{"role": "user", "content": "b"}], "temperature": 0.9, "max_tokens": 4096},
    ]


def test_one_client_serves_many_threads_over_one_pool(serve: Serve) -> None:
    server = serve(lambda request: f"you said {asked_text(request)}")
    answers: dict[int, str] = {}
    with Client(**connection(server)) as client:

        def ask(number: int) -> None:
            answers[number] = client.run(f"{number}").text

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: f"you said {number}" for number in range(20)}


def test_one_async_client_serves_several_event_loops_one_after_the_other(serve: Serve) -> None:
    async def ask(client: AsyncClient) -> list[str]:
        answers = await asyncio.gather(*(client.run("hi") for _ in range(5)))
        deltas = [delta.text async for delta in client.stream("hi")]
        return [*(answer.text for answer in answers), "".join(deltas)]

    def on_three_loops(client: AsyncClient) -> None:
        for _ in range(3):
            assert asyncio.run(ask(client)) == ["ok"] * 6

    on_three_loops(AsyncClient(**connection(serve(lambda _: "ok"))))
    gc.collect()  # an unclosed socket would warn here, and a warning fails the test


def test_one_async_client_serves_event_loops_of_several_threads_at_once(serve: Serve) -> None:
    client = AsyncClient(**connection(serve(lambda _: "ok")))
    answers: list[str] = []

    async def ask() -> None:
        answers.extend([(await client.run("hi")).text for _ in range(5)])

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["ok"] * 20


def test_a_cancelled_task_closes_its_connection(serve: Serve) -> None:
    gate = Gate()
    server = serve(lambda _: Answer("late", hold={0: gate}))

    async def main() -> None:
        async with AsyncClient(**connection(server)) as client:
            task = asyncio.create_task(client.run(HI))
            await asyncio.to_thread(gate.wait_until_reached)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert server.requests[0].wait() == "disconnected"


def test_an_unclosed_client_leaves_no_warning_behind(serve: Serve) -> None:
    server = serve(lambda request: Answer(pieces=iter(lambda: "word ", None)) if request.stream else "ok")
    Client(**connection(server)).run("hi")
    next(Client(**connection(server)).stream("hi"))

    async def main() -> None:
        client = AsyncClient(**connection(server))
        await client.run("hi")
        await anext(client.stream("hi"))

    asyncio.run(main())
    gc.collect()  # a warning would fail the test
    assert [record.wait() for record in server.requests] == ["complete", "disconnected"] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_connections_of_its_own(serve: Serve) -> None:
    server = serve(lambda request: f"you said {asked_text(request)}")
    asynchronous = AsyncClient(**connection(server))

    async def answers(asked: str) -> list[str]:
        return [(await asynchronous.run(asked)).text for _ in range(20)]

    with Client(**connection(server)) as client:
        client.run("warm")
        asyncio.run(answers("warm"))
        child = os.fork()
        asked = "child" if child == 0 else "parent"
        right = all(client.run(asked).text == f"you said {asked}" for _ in range(20))
        right = right and asyncio.run(answers(asked)) == [f"you said {asked}"] * 20
        if child == 0:
            os._exit(0 if right else 1)
        assert right
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "ALL_PROXY"])
def test_an_environment_that_cannot_be_used_is_told_by_its_variables(name: str) -> None:
    code = (
        "from workersai import Client\n"
        "from workersai.errors import ConfigurationError\n"
        "try: Client(account_id='a', api_token='t').run('hi')\n"
        f"except ConfigurationError as error: assert {name!r} in str(error), error\n"
        "else: raise SystemExit('no error')\n"
    )
    value = {"SSL_CERT_FILE": "/no/such/file", "ALL_PROXY": "socks9://nowhere"}[name]
    subprocess.run([sys.executable, "-c", code], env={**os.environ, name: value}, timeout=PATIENCE, check=True)  # noqa: S603


def test_a_stream_that_begins_after_closing_is_refused(serve: Serve) -> None:
    client = Client(**connection(serve("never")))
    deltas = client.stream(HI)
    client.close()
    with pytest.raises(RuntimeError, match="This Client was closed"):
        next(deltas)


def test_a_closed_client_says_so(serve: Serve) -> None:
    client = Client(**connection(serve("never")))
    client.close()
    with pytest.raises(RuntimeError, match="This Client was closed"):
        client.run("hi")


def test_an_httpx_client_of_ones_own_is_used_and_left_open(serve: Serve) -> None:
    server = serve(lambda _: "ok")
    with httpx.Client(headers={"x-mine": "1"}, timeout=PATIENCE) as mine:
        with Client(**connection(server), http_client=mine) as client:
            assert client.run("hi").text == "ok"
        assert not mine.is_closed
    assert server.requests[0].headers["x-mine"] == "1"


async def test_an_httpx_async_client_of_ones_own_is_used_and_left_open(serve: Serve) -> None:
    server = serve(lambda _: "ok")
    async with httpx.AsyncClient(headers={"x-mine": "1"}, timeout=PATIENCE) as mine:
        async with AsyncClient(**connection(server), http_client=mine) as client:
            assert (await client.run("hi")).text == "ok"
        assert not mine.is_closed
    assert server.requests[0].headers["x-mine"] == "1"


def test_a_proxy_in_the_environment_is_honoured(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def refuse() -> None:
        with listening.accept()[0] as connected:
            asked.append(connected.recv(65_536))
            connected.sendall(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = threading.Thread(target=refuse)
        proxy.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        settings: dict[str, Any] = {"base_url": "https://service.test/v4", "account_id": "a", "api_token": "s3cret"}
        with pytest.raises(errors.APIConnectionError, match="a proxy's setting"):
            driver.run(settings | {"max_retries": 0}, "hi", deadline=PATIENCE)
        proxy.join()
    (request,) = asked
    assert request.startswith(b"CONNECT service.test:443 HTTP/1.1")
    assert b"s3cret" not in request


def test_this_machine_is_reached_without_a_proxy(driver: Driver, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda _: "ok")
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    for host in ("127.0.0.1", "localhost"):
        settings = connection(server) | {"base_url": server.base_url.replace("127.0.0.1", host)}
        assert driver.run(settings, "hi").text == "ok"
