import pickle

import pytest

from workersai import Completion, errors
from workersai.error_table import error_for
from workersai.local.faults import CODES

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.WorkersAIError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_pickling_with_all_its_facts(kind: type[errors.WorkersAIError]) -> None:
    error = kind("It broke.", status_code=429, code=3040, request_id="r", retry_after=2.0, partial=Completion("Hel"))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert (again.message, again.facts()) == (error.message, error.facts())


def test_an_error_shows_its_message_and_the_facts_that_support_asks_for() -> None:
    error = errors.ServerError("It broke.", status_code=500, code=5000, request_id="8c5")
    assert str(error) == "It broke. (HTTP 500, code 5000, request 8c5)"
    assert str(errors.APITimeoutError("Too slow.")) == "Too slow."


def test_a_message_says_what_happened_and_then_what_to_do() -> None:
    error = error_for("AiError: No such model", status_code=400, code=5007)
    assert error.message == "AiError: No such model. Check the model's name; it begins with @cf/ or @hf/."


@pytest.mark.parametrize("code", [*CODES, None])
@pytest.mark.parametrize("status", [200, 302, 400, 418, 429, 502])
def test_each_failure_has_an_advice(code: int | None, status: int) -> None:
    error = error_for("Words", status_code=status, code=code)
    advice = error.message.removeprefix("Words. ")
    assert advice != error.message
    assert advice.endswith(".")
