"""Budgets are bounds: what may have been billed counts, and a prompt costs no more than was reserved for it."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import Driver, Serve, connection
from workersai import CATALOG, DEFAULT_MODEL, Client, CostTracker, Message, count_tokens, tokens
from workersai.billing import may_have_been_billed
from workersai.errors import (
    APIConnectionError,
    BudgetExceededError,
    JSONModeError,
    RateLimitError,
    StreamInterruptedError,
    WorkersAIError,
)
from workersai.local import Answer, LocalServer, RawReply
from workersai.local.engine import Usage
from workersai.local.faults import CODES

CARD = CATALOG[DEFAULT_MODEL]
MOST = CARD.cost_usd(count_tokens([Message("user", "hi")]), 100)
SWAHILI = "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri. " * 100
WORKED = (
    3007,
    3008,
    3046,
    5024,
    5000,
    8005,
)  # codes that come once the model may have worked; a set has no order to test in

UNBILLED = [
    *(str(code) for code in CODES if code not in WORKED),
    *("error:4006", "1234", "1234/403", "3040/503", "event:3040"),
    *(f"html:{status}" for status in (400, 401, 403, 404, 413, 421, 429, 499, 521, 523, 525, 526)),
    "empty:404",
]
BILLED = [
    *map(str, WORKED),
    *(
        "1234/500",
        "1234/408",
        "8007/502",
        "empty:200",
        "empty:204",
        "empty:408",
        "empty:500",
        "event:3007",
        "event:5000",
    ),
    *(f"html:{status}" for status in (408, 500, 501, 502, 503, 504, 520, 522, 524, 530)),
    *("cut:0", "cut:9", "end:9", "garbage:9", "stall:0", "stall:9"),
]


@pytest.fixture
def _without_the_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def clear() -> None:
        tokens._counted.clear()
        tokens.counts_exactly.cache_clear()

    # As Python marks a module that can't be imported.
    monkeypatch.setitem(sys.modules, "llama_models", None)
    clear()
    yield
    clear()


@pytest.fixture
def serve_faults() -> Iterator[Any]:
    """Starts a server whose streams have their usage at the end, so that nothing is known of one that fails."""
    with ExitStack() as stack:
        yield lambda faults: stack.enter_context(LocalServer("Yes, it is.", faults=faults, dialect="native"))


def failing(driver: Driver, server: LocalServer, *, stream: bool, **options: Any) -> None:
    call = driver.stream if stream else driver.run
    # Long enough to connect on any machine; a stalled reply takes it whole.
    call(connection(server), "hi", max_tokens=100, timeout=2, **options)


# Which failures count


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("fault", UNBILLED)
def test_what_was_surely_refused_costs_nothing(driver: Driver, serve_faults: Any, fault: str, *, stream: bool) -> None:
    server = serve_faults(fault)
    with CostTracker(budget=1) as cost, pytest.raises(WorkersAIError):
        failing(driver, server, stream=stream, max_retries=0)
    after_text = stream and fault == "event:3040"
    assert cost.calls == cost.unpriced_calls == after_text
    assert cost.left == pytest.approx(1 - MOST if after_text else 1)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("fault", BILLED)
def test_what_may_have_been_billed_counts_as_much_as_it_may_cost(
    driver: Driver, serve_faults: Any, fault: str, *, stream: bool
) -> None:
    server = serve_faults(fault)
    with CostTracker(budget=1) as cost, pytest.raises(WorkersAIError):
        failing(driver, server, stream=stream, max_retries=0)
    assert (cost.calls, cost.unpriced_calls, cost.cost_usd) == (1, 1, 0)
    assert cost.left == pytest.approx(1 - MOST)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("fault", ["html:524:0", "html:502:0", "5000:0", "3007:0", "cut:0"])
def test_each_retry_is_held_to_the_budget(driver: Driver, serve_faults: Any, fault: str, *, stream: bool) -> None:
    server = serve_faults(fault)
    with CostTracker(budget=3.5 * MOST) as cost:
        with pytest.raises(BudgetExceededError, match="of unknown cost"):
            failing(driver, server, stream=stream, max_retries=9)
        assert len(server.requests) == cost.unpriced_calls == 3
        with pytest.raises(BudgetExceededError):
            failing(driver, server, stream=stream)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("failure", "billed"),
    [
        (None, True),
        (KeyboardInterrupt(), True),
        (GeneratorExit(), True),
        (RateLimitError("busy", status_code=429, code=3040), False),
        (RateLimitError("busy", status_code=200, code=3040), False),
        (WorkersAIError("moved", status_code=301), False),
        (WorkersAIError("blocked", status_code=424, code=2016), False),
        (WorkersAIError("answer blocked", status_code=424, code=2017), True),
        (JSONModeError("JSON Mode couldn't be met", status_code=400), True),
        (APIConnectionError("the body was lost", status_code=400), True),
        (APIConnectionError("the body was lost", status_code=500), True),
    ],
)
def test_the_rule_for_what_no_fault_shows(failure: BaseException | None, billed: bool) -> None:
    assert may_have_been_billed(failure) is billed


def test_what_never_reached_a_server_costs_nothing(driver: Driver) -> None:
    nowhere = {"account_id": "a", "api_token": "t", "base_url": "http://127.0.0.1:9"}
    with CostTracker(budget=MOST) as cost, pytest.raises(APIConnectionError):
        driver.run(nowhere, "hi", max_tokens=100, max_retries=1)
    assert (cost.calls, cost.left) == (0, MOST)


# Usage before the end of an answer

EVENT = b'data: {"response":"It is","usage":{"prompt_tokens":40,"completion_tokens":2}}\n\n'


def test_usage_of_a_stream_that_breaks_off_is_the_least_that_it_cost(driver: Driver, serve: Serve) -> None:
    server = serve(lambda _: RawReply([EVENT], cut=True))
    with CostTracker(budget=1) as cost, pytest.raises(StreamInterruptedError):
        driver.stream(connection(server), "hi", max_tokens=100)
    assert cost.cost_usd == pytest.approx(CARD.cost_usd(40, 2))
    assert (cost.prompt_tokens, cost.completion_tokens, cost.unpriced_calls) == (40, 2, 1)
    assert cost.left == pytest.approx(1 - MOST)


def test_usage_of_a_stream_that_is_left_is_the_least_that_it_cost(driver: Driver, serve: Serve) -> None:
    server = serve(lambda request: RawReply([EVENT, b"data: [DONE]\n\n"]) if request.stream else Answer("Yes."))
    with CostTracker(budget=1) as cost:
        driver.stream(connection(server), "hi", max_tokens=100)
        assert (cost.calls, cost.unpriced_calls) == (1, 0)
        assert cost.left == pytest.approx(1 - CARD.cost_usd(40, 2))
        driver.first({**connection(server), "max_tokens": 100}, "hi", stop=["is"])
    assert (cost.calls, cost.unpriced_calls) == (3, 1)


# What a prompt may cost


def exactly_billed(_: Any, prompt: str = SWAHILI) -> Answer:
    """An answer whose usage is what the service would bill, by Meta's tokenizer."""
    own = tokens._tokenizer().model.encode_ordinary(prompt.strip())
    return Answer("Ndiyo.", usage=Usage(len(own) + 35, 1))


def refuses(client: Client, prompt: str) -> bool:
    """Whether the budget has no room for another call."""
    try:
        client.run(prompt)
    except BudgetExceededError:
        return True
    return False


def test_without_the_tokenizer_a_budget_is_a_bound(serve: Serve, request: pytest.FixtureRequest) -> None:
    answer = exactly_billed(None)
    request.getfixturevalue("_without_the_extra")
    server = serve(lambda _: answer)
    estimated = CARD.cost_usd(count_tokens([Message("user", SWAHILI)]), 1)
    assert estimated < CARD.cost_usd(answer.usage.prompt_tokens, 1)  # type: ignore[union-attr]
    with Client(**connection(server), max_tokens=1) as client:
        with CostTracker(budget=estimated), pytest.raises(BudgetExceededError) as caught:
            client.run(SWAHILI)
        assert "tokens of prompt, which are not counted here" in str(caught.value)
        assert "For exact counts: pip install 'workersai[tokens]'" in str(caught.value)
        assert not server.requests
        with CostTracker(budget=8 * estimated) as cost:
            while not refuses(client, SWAHILI):
                assert cost.cost_usd <= 8 * estimated
    assert cost.calls > 1
    assert cost.cost_usd <= 8 * estimated


def test_with_the_tokenizer_the_error_names_the_count(serve: Serve) -> None:
    with (
        Client(**connection(serve("never")), max_tokens=1) as client,
        CostTracker(budget=0),
        pytest.raises(BudgetExceededError, match=r"\([\d,]+ tokens of prompt, up to 1 of answer\)") as caught,
    ):
        client.run(SWAHILI)
    assert "pip install" not in str(caught.value)


def test_a_budget_allows_for_a_schema_in_the_prompt(driver: Driver, serve: Serve) -> None:
    server = serve([Answer("Blue.", usage=Usage(10, 10)), Answer(object={"sky": "blue"}, usage=Usage(10, 10))])
    properties = {f"property_{number}": {"type": "string"} for number in range(200)}
    schema = {"type": "object", "properties": {"sky": {"type": "string"}, **properties}, "required": ["sky"]}
    mode = {"type": "json_schema", "json_schema": schema}
    alone = CARD.cost_usd(len(tokens.token_ids(json.dumps(mode, indent=4))), 0)
    with CostTracker(budget=MOST + alone):
        driver.run(connection(server), "hi", max_tokens=100)
        with pytest.raises(BudgetExceededError):
            driver.run(connection(server), "hi", max_tokens=100, response_format=mode)
    assert len(server.requests) == 1
    with CostTracker(budget=2 * (MOST + alone)):
        driver.run(connection(server), "hi", max_tokens=100, response_format=mode)
