"""AI Gateway: its settings become headers, and what it had in its cache costs nothing."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.support import EVERY_DIALECT, Driver, Serve, connection, token_counts
from tests.workersai.batch.conftest import AsyncJobs, JobDriver, SyncJobs
from workersai import CallOptions, Client, CostTracker, Gateway, Usage, errors
from workersai.local import Answer, LocalServer, RawReply
from workersai.local.engine import GenerationRequest
from workersai.local.engine import Usage as Counted

PRICE = 0.29e-6 * 1_000 + 2.25e-6 * 200
CACHING = Gateway("g", cache_ttl=60)
USED = {"prompt_tokens": 1_000, "completion_tokens": 200}
WHOLE = Gateway(
    "my-gateway",
    cache_ttl=3_600,
    skip_cache=True,
    cache_key="greeting",
    metadata={"team": "AI", "user": 12345, "test": True, "shäre": 0.5},
    request_timeout=2.5,
    max_attempts=3,
    retry_delay=0.25,
    backoff="exponential",
)
TOLD = {
    "cf-aig-gateway-id": "my-gateway",
    "cf-aig-cache-ttl": "3600",
    "cf-aig-skip-cache": "true",
    "cf-aig-cache-key": "greeting",
    "cf-aig-metadata": '{"team": "AI", "user": 12345, "test": true, "sh\\u00e4re": 0.5}',
    "cf-aig-request-timeout": "2500",
    "cf-aig-max-attempts": "3",
    "cf-aig-retry-delay": "250",
    "cf-aig-backoff": "exponential",
}


class Counting:
    """A model that says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, request: GenerationRequest) -> Answer:
        self.asked += 1
        text = f'{{"n": {self.asked}}}' if request.json_schema is not None else f"It is {self.asked}."
        return Answer(pieces=[text[:3], text[3:]], usage=Counted(1_000, 200))


@pytest.fixture
def model() -> Counting:
    return Counting()


@pytest.fixture
def server(serve: Serve, model: Counting) -> LocalServer:
    return serve(model)


@pytest.fixture(params=[SyncJobs(), AsyncJobs()], ids=["sync", "async"])
def jobs(request: pytest.FixtureRequest) -> JobDriver:
    given: JobDriver = request.param
    return given


def aig(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("cf-aig-")}


def test_each_setting_is_a_header(driver: Driver, server: LocalServer) -> None:
    driver.run(connection(server), "hi", gateway=WHOLE)
    driver.run(connection(server), "hi", gateway=WHOLE.as_dict())
    driver.run({**connection(server), "gateway": WHOLE}, "hi")
    assert [aig(record.headers) for record in server.requests] == [TOLD] * 3


def test_an_id_alone_is_one_header_and_a_call_may_take_it_back(driver: Driver, server: LocalServer) -> None:
    settings = {**connection(server), "gateway": "g"}
    completion = driver.run(settings, "hi")
    driver.run(settings, "hi", gateway=Gateway("other"))
    plain = driver.run(settings, "hi", gateway=None)
    assert [aig(record.headers) for record in server.requests] == [
        {"cf-aig-gateway-id": "g"},
        {"cf-aig-gateway-id": "other"},
        {},
    ]
    assert completion.cache_status is None
    assert completion.gateway_log_id is not None
    assert (plain.cache_status, plain.gateway_log_id) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"id": ""}, "id must be printable ASCII"),
        ({"id": "a\r\nx-evil: 1"}, "id must be printable ASCII"),
        ({"id": 7}, "id must be a string"),
        ({"id": "https://gateway.example/v1/a/b"}, "id must be the gateway's id, as in 'my-gateway'"),
        ({"cache_ttl": 59}, "cache_ttl must be a whole number of seconds from 60 to 2,678,400, not 59"),
        ({"cache_ttl": 3_000_000}, "cache_ttl must be"),
        ({"cache_ttl": 60.5}, "cache_ttl must be"),
        ({"cache_ttl": True}, "cache_ttl must be"),
        ({"skip_cache": "yes"}, "skip_cache must be True or False"),
        ({"cache_key": "a\nb"}, "cache_key must be printable ASCII"),
        ({"cache_key": "k" * 5_000}, "cache_key must have at most"),
        ({"metadata": ["a"]}, "metadata must be a dict"),
        ({"metadata": {str(number): 1 for number in range(6)}}, "metadata has 6 entries"),
        ({"metadata": {1: "a"}}, "metadata: a name must be a string"),
        ({"metadata": {"a": None}}, r"metadata\['a'\] must be a string, a number or a boolean"),
        ({"metadata": {"a": float("nan")}}, r"metadata\['a'\] must be"),
        ({"metadata": {"a": {"b": 1}}}, r"metadata\['a'\] must be"),
        ({"metadata": {"a": "b" * 5_000}}, "metadata, as JSON, must have at most"),
        ({"request_timeout": 0}, "request_timeout must be a number of seconds from 0.001"),
        ({"request_timeout": float("inf")}, "request_timeout must be"),
        ({"request_timeout": 10**400}, "request_timeout must be"),
        ({"cache_ttl": 10**5_000}, "cache_ttl must be .* not a huge int"),
        ({"metadata": {"a": 10**5_000}}, r"metadata\['a'\] must be"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 to 5, not 0"),
        ({"max_attempts": 6}, "max_attempts must be"),
        ({"retry_delay": 5.5}, "retry_delay must be a number of seconds from 0 to 5"),
        ({"backoff": "random"}, "backoff must be one of constant, linear, exponential"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named(driver: Driver, wrong: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"id": "g", **wrong}
    with pytest.raises(errors.BadRequestError, match=says):
        Gateway(**given)
    with pytest.raises(errors.BadRequestError, match=f"gateway: {says}"):
        driver.run({"account_id": "a", "api_token": "t"}, "hi", gateway=given)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cache_ttl": 60}, "a dict has an id"),
        ({"id": "g", "ttl": 60}, "a dict has an id, and may have cache_ttl, skip_cache"),
        (5, "must be a gateway's id, a workersai.Gateway, or a dict"),
    ],
)
def test_what_is_no_gateway_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(errors.BadRequestError, match=f"gateway: {says}"):
        Client(account_id="a", api_token="t", gateway=wrong)


def test_it_is_a_value() -> None:
    given = {"team": "AI"}
    gateway = Gateway("g", metadata=given)
    given["team"] = "other"
    assert gateway.metadata == {"team": "AI"}
    assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE  # noqa: S301 - our own
    assert Gateway(**json.loads(json.dumps(WHOLE.as_dict()))) == WHOLE
    assert Gateway("g").as_dict() == {"id": "g"}
    at_once = Gateway("g", retry_delay=0)
    assert Gateway(**at_once.as_dict()) == at_once
    assert len({Gateway("g"), Gateway("g"), WHOLE}) == 2
    options = CallOptions(gateway=WHOLE)
    assert CallOptions.model_validate_json(options.model_dump_json()) == options
    assert CallOptions.model_json_schema()["properties"]["gateway"]["anyOf"][0] == {"type": "string"}


@EVERY_DIALECT
def test_an_answer_from_its_cache_is_told_and_costs_nothing(
    driver: Driver, server: LocalServer, model: Counting
) -> None:
    with CostTracker(budget=0.1) as cost:
        first, again = (driver.run(connection(server), "hi", gateway=CACHING) for _ in range(2))
    assert (first.text, again.text, model.asked) == ("It is 1.", "It is 1.", 1)
    assert (first.cache_status, again.cache_status) == ("MISS", "HIT")
    assert first.gateway_log_id != again.gateway_log_id
    assert first.request_id != again.request_id
    assert token_counts(first.usage) == Usage(1_000, 200)
    assert token_counts(again.usage) == Usage(1_000, 200, unbilled_prompt_tokens=1_000, unbilled_completion_tokens=200)
    assert first.usage is not None
    assert again.usage is not None
    assert [first.usage.cost_usd, first.usage.saved_usd] == pytest.approx([PRICE, 0])
    assert [again.usage.cost_usd, again.usage.saved_usd] == pytest.approx([0, PRICE])
    assert (cost.calls, cost.prompt_tokens, cost.unpriced_calls) == (2, 2_000, 0)
    assert cost.cost_usd == cost.saved_usd == pytest.approx(PRICE)
    assert cost.left == pytest.approx(0.1 - PRICE), "nothing is kept of the budget"
    assert repr(cost) == "<CostTracker: 2 calls; 2,000 + 400 tokens; $0.000740 of $0.100000, $0.000740 saved>"


@EVERY_DIALECT
def test_a_stream_from_its_cache_comes_in_the_same_pieces(driver: Driver, server: LocalServer, model: Counting) -> None:
    first, again = (driver.stream(connection(server), "hi", gateway=CACHING) for _ in range(2))
    assert [delta.text for delta in again] == [delta.text for delta in first] == ["It ", "is 1.", ""]
    assert model.asked == 1
    end = again[-1].completion
    assert end is not None
    assert (end.cache_status, end.usage and end.usage.cost_usd) == ("HIT", 0)


def test_a_key_of_its_own_has_one_answer_for_each_form(driver: Driver, server: LocalServer, model: Counting) -> None:
    gateway, settings = Gateway("g", cache_key="k"), connection(server)
    assert driver.run(settings, "hi", gateway=gateway).text == "It is 1."
    assert driver.run(settings, "something else", gateway=gateway).text == "It is 1."
    assert driver.stream(settings, "hi", gateway=gateway)[-1].completion.text == "It is 2."  # type: ignore[union-attr]
    assert driver.run(settings, "hi", gateway=gateway, response_format={"type": "json_object"}).text == '{"n": 3}'
    keys = [record.headers["cf-aig-cache-key"] for record in server.requests]
    assert keys == ["k", "k", "k.stream", "k.json"]
    assert model.asked == 3


def test_of_two_requests_the_one_that_was_billed_is_paid_for(driver: Driver, serve: Serve) -> None:
    """A tool was offered and none was called, so that JSON is asked for: the first answer alone was in the cache."""

    def tool(city: str) -> str:
        return city

    def say(request: GenerationRequest) -> RawReply:
        status = {"cf-aig-cache-status": "MISS" if request.json_schema is not None else "HIT"}
        body = {"response": '{"n": 1}' if request.json_schema is not None else "one", "usage": USED}
        return RawReply(json.dumps({"result": body, "success": True}).encode(), headers=status)

    completion = driver.run(connection(serve(say)), "hi", tools=[tool], response_format={"type": "json_object"})
    assert completion.text == '{"n": 1}'
    assert completion.usage == Usage(2_000, 400, unbilled_prompt_tokens=1_000, unbilled_completion_tokens=200)
    assert completion.usage.cost_usd == completion.usage.saved_usd == pytest.approx(PRICE)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cached_answer_without_counts_costs_nothing_either(driver: Driver, serve: Serve, streamed: bool) -> None:
    hit = {"cf-aig-cache-status": "HIT"}
    body = (
        b'data: {"response":"hi"}\n\ndata: [DONE]\n\n' if streamed else b'{"result":{"response":"hi"},"success":true}'
    )
    server = serve(lambda _: RawReply(body, headers=hit))
    with CostTracker(budget=1) as cost:
        (driver.stream if streamed else driver.run)(connection(server), "hi")
    assert (cost.calls, cost.cost_usd, cost.unpriced_calls, cost.left) == (1, 0, 0, 1)


def test_what_nobody_paid_for_costs_nothing_whatever_its_model() -> None:
    usage = Usage(10, 5, model="@cf/other/model", unbilled_prompt_tokens=10, unbilled_completion_tokens=5)
    assert (usage.cost_usd, usage.saved_usd) == (0, None)


@EVERY_DIALECT
def test_the_share_of_the_prefix_cache_is_told(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: Answer("ok", usage=Counted(1_000, 200, 250)))
    with CostTracker() as cost:
        usage = driver.run(connection(server), "hi", session_affinity="s").usage
    assert usage is not None
    assert (usage.cached_share, usage.saved_usd, cost.cached_share) == (0.25, 0, 0.25)
    assert usage.cost_usd == pytest.approx(PRICE), "Llama 3.3 has no price for cached input"
    assert repr(cost) == "<CostTracker: 1 call; 1,000 (25% cached) + 200 tokens; $0.000740>"
    assert Usage(0, 0).cached_share == CostTracker().cached_share == 0


def test_a_batch_goes_past_the_cache(jobs: JobDriver, server: LocalServer) -> None:
    gateway = Gateway("g", cache_ttl=60, cache_key="k", metadata={"team": "AI"}, max_attempts=5)
    for _ in range(2):
        results = jobs.run(server, ["a", "b"], mode="batch", gateway=gateway)
        assert all(result.error is None for result in results)
    told = {"cf-aig-gateway-id": "g", "cf-aig-skip-cache": "true", "cf-aig-metadata": '{"team": "AI"}'}
    assert len(server.requests) >= 4
    assert [aig(record.headers) for record in server.requests] == [told] * len(server.requests)


def test_a_job_of_calls_may_be_answered_from_it(
    jobs: JobDriver, server: LocalServer, model: Counting, tmp_path: Path
) -> None:
    rows = ["a", "b", "c"]
    for number in range(2):
        journal = tmp_path / f"{number}.db"
        results = jobs.run(server, rows, mode="calls", journal=journal, concurrency=1, gateway=CACHING, in_order=True)
        status = [result.completion and result.completion.cache_status for result in results]
        assert status == [["MISS"] * 3, ["HIT"] * 3][number]
    assert model.asked == 3
    assert jobs.progress(server, rows, mode="calls", journal=tmp_path / "1.db", gateway="another").cost_usd == 0, (
        "a journal goes on through any gateway"
    )


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "advice"),
    [
        (400, 2001, "Please configure AI Gateway in the Cloudflare dashboard", errors.ConfigurationError, "its id"),
        (429, 2003, "Rate limited", errors.RateLimitError, "the limit set for the gateway"),
        (424, 2016, "Prompt blocked due to security configurations", errors.BadRequestError, "guardrail"),
        (424, 2017, "Response blocked due to security configurations", errors.BadRequestError, "guardrail"),
        (401, 2009, "Unauthorized", errors.AuthenticationError, "CLOUDFLARE_API_TOKEN"),
    ],
)
def test_its_own_errors_are_told_in_a_list(
    driver: Driver, serve: Serve, status: int, code: int, message: str, kind: type[errors.WorkersAIError], advice: str
) -> None:
    body = {"success": False, "result": [], "messages": [], "error": [{"code": code, "message": message}]}
    server = serve(lambda _: RawReply(json.dumps(body).encode(), status=status))
    with pytest.raises(kind, match=rf"{message}\. .*{advice}.*code {code}"):
        driver.run(connection(server), "hi", gateway="nowhere", max_retries=0)
