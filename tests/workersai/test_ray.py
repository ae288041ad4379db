"""AskModel: as a callable, and on a local Ray with two workers over Parquet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.documents import examples_with
from tests.support import Serve, asked_text, asked_text_of, connection
from tests.workersai.ray_jobs import OUTCOME
from workersai import RateLimit, Settings
from workersai.errors import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    QuotaExceededError,
    WorkersAIError,
)
from workersai.local import Answer, LocalServer
from workersai.local.engine import GenerationRequest
from workersai.local.records import RequestRecord
from workersai.ray import AskModel

JOBS = Path(__file__).parent / "ray_jobs.py"
LONGEST_JOB = 900  # seconds; most take four, on a machine that does nothing else
NEW = {
    "answer": pa.string(),
    "error": pa.string(),
    "finish_reason": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
}


def echo(request: GenerationRequest) -> str:
    return f"answer to {asked_text(request)}"


def refused(record: RequestRecord) -> str | None:
    return "5006" if "bad" in asked_text_of(record.body) else None


@pytest.fixture
def ask() -> Iterator[Callable[..., AskModel]]:
    """Makes askers that need no Ray, as they share no limit."""
    with contextlib.ExitStack() as stack:
        yield lambda server, **arguments: stack.enter_context(
            contextlib.closing(AskModel(**connection(server), rate_limit=None, **arguments))
        )


Ask = Callable[..., AskModel]


def test_each_row_is_answered_in_its_place_and_all_columns_stay(serve: Serve, ask: Ask) -> None:
    table = pa.table({"n": pa.array([*range(50), None], pa.int8()), "prompt": [*map(str, range(50)), "last"]})
    done = ask(serve(echo), concurrency=7)(table)
    assert done.schema == pa.schema([*table.schema, *NEW.items()])
    assert done.select(["n", "prompt"]) == table
    assert done["answer"].to_pylist() == [f"answer to {prompt}" for prompt in table["prompt"].to_pylist()]
    assert done["error"].null_count == 51
    assert set(done["finish_reason"].to_pylist()) == {"stop"}
    assert set(done["completion_tokens"].to_pylist()) == {3}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray warns of its own settings
def test_a_batch_may_have_any_of_rays_formats(serve: Serve, ask: Ask) -> None:
    asker, prompts = ask(serve(echo)), ["a", "b"]
    for batch in ({"prompt": np.array(prompts)}, pd.DataFrame({"prompt": prompts}), pa.table({"prompt": prompts})):
        assert asker(batch).to_pydict()["answer"] == ["answer to a", "answer to b"]


def test_an_empty_batch_has_the_same_columns(serve: Serve, ask: Ask) -> None:
    table = pa.table({"prompt": pa.array([], pa.string())})
    done = ask(serve(echo))(table)
    assert done.schema == pa.schema([*table.schema, *NEW.items()])
    assert done.num_rows == 0


def test_a_template_takes_the_values_of_columns_and_doubled_braces(serve: Serve, ask: Ask) -> None:
    table = pa.table({"name": ["Ann", "Bo"], "age": [34, None]})
    done = ask(serve(echo), prompt='{name} is {age}: write {{"age": ...}}')(table)
    assert done["answer"].to_pylist() == ['answer to Ann is 34: write {"age": ...}', None]
    assert done["error"].to_pylist() == [None, "BadRequestError: The row has no value in the column 'age'."]


def test_a_column_may_hold_conversations_and_a_system_message_comes_first(serve: Serve, ask: Ask) -> None:
    server = serve(lambda request: " ".join(f"{message.role}:{message.content}" for message in request.messages))
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "!"},
    ]
    asker = ask(server, column="talk", system="Be brief.")
    assert asker(pa.table({"talk": [talk]}))["answer"].to_pylist() == ["system:Be brief. user:Hi assistant:Yes? user:!"]
    assert asker(pa.table({"talk": ["Hi"]}))["answer"].to_pylist() == ["system:Be brief. user:Hi"]
    assert asker(pa.table({"talk": [3]}))["error"].to_pylist() == [
        "BadRequestError: A prompt is a text or a list of messages, not int."
    ]


def test_the_new_columns_have_the_names_they_are_given(serve: Serve, ask: Ask) -> None:
    asker = ask(
        serve(echo), answer_column="a", error_column="e", finish_reason_column=None, usage_columns=("in", "out")
    )
    assert asker(pa.table({"prompt": ["x"]})).column_names == ["prompt", "a", "e", "in", "out"]
    assert ask(serve(echo), usage_columns=None)(pa.table({"prompt": ["x"]})).num_columns == 4


def test_a_name_that_is_taken_says_which_argument_gives_another(serve: Serve, ask: Ask) -> None:
    asker = ask(serve(echo))
    with pytest.raises(ConfigurationError, match="a column 'answer' already: give another name as answer_column"):
        asker(pa.table({"prompt": ["x"], "answer": ["y"]}))
    with pytest.raises(ConfigurationError, match="'prompt_tokens' already: give another name as usage_columns"):
        asker(pa.table({"prompt": ["x"], "prompt_tokens": [1]}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "column: the Dataset has no column 'prompt'; it has 'text'"),
        ({"prompt": "{txt}"}, "prompt: the Dataset has no column 'txt'; it has 'text'"),
    ],
)
def test_a_column_that_is_not_there_stops_the_dataset(
    serve: Serve, ask: Ask, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadRequestError, match=says):
        ask(serve(echo), **arguments)(pa.table({"text": ["x"]}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompt": "{a}", "column": "b"}, "either prompt or column"),
        ({"prompt": ""}, "prompt must be a string, and not empty"),
        ({"prompt": "the same for all"}, "prompt names no column"),
        ({"prompt": "{a"}, "prompt: expected '}' .* written twice"),
        ({"prompt": "{}"}, "prompt: {} is not the name of a column alone"),
        ({"prompt": "{a:>3}"}, "prompt: {a:>3} is not the name of a column alone"),
        ({"prompt": "{a!r}"}, "prompt: {a!r} is not the name of a column alone"),
        ({"column": 3}, "column must be a string"),
        ({"system": ""}, "system must be a string"),
        ({"answer_column": None}, "answer_column must be the name of a column"),
        ({"finish_reason_column": ""}, "finish_reason_column must be the name of a column"),
        ({"usage_columns": ("one",)}, "usage_columns must be two names of columns"),
        ({"error_column": "answer"}, "names of their own; got 'answer', 'answer'"),
        ({"concurrency": 0}, "concurrency must be a whole number above 0, not 0"),
        ({"rate_limit": 300}, "rate_limit: must be a workersai.RateLimit"),
        ({"response_format": {"type": "yaml"}}, "response_format: its type must be"),
        ({"temperature": 9}, "temperature: must be between 0 and 5, got 9"),
        ({"tempreature": 1}, "Did you mean temperature"),
    ],
)
def test_a_wrong_argument_is_named_before_ray_is_asked(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        AskModel.checked(**arguments)


def test_checked_arguments_are_given_back_as_they_are() -> None:
    arguments: dict[str, Any] = {"prompt": "{a}", "rate_limit": RateLimit(5, 60), "api_token": "t", "top_k": 3}
    assert AskModel.checked(**arguments) == arguments


def test_a_row_that_is_refused_has_an_error_and_the_others_their_answers(ask: Ask) -> None:
    with LocalServer(echo, faults=refused) as server:
        done = ask(server)(pa.table({"prompt": ["good", "bad", "fine"]}))
    assert done["answer"].to_pylist() == ["answer to good", None, "answer to fine"]
    nothing, error, _ = done["error"].to_pylist()
    assert nothing is None
    assert error.startswith("BadRequestError: AiError: Bad input")
    assert done["prompt_tokens"].to_pylist()[1] is None


def test_an_answer_in_json_mode_is_json_text(serve: Serve, ask: Ask) -> None:
    asker = ask(serve(lambda _: Answer(object={"age": 34})), response_format={"type": "json_object"})
    assert json.loads(asker(pa.table({"prompt": ["Ann is 34."]}))["answer"][0].as_py()) == {"age": 34}


@pytest.mark.parametrize(("code", "error"), [("10000", AuthenticationError), ("4006", QuotaExceededError)])
def test_an_error_that_no_row_would_escape_is_raised(ask: Ask, code: str, error: type[WorkersAIError]) -> None:
    with LocalServer(echo, faults=code) as server, pytest.raises(error):
        ask(server, concurrency=2)(pa.table({"prompt": ["x"] * 100}))
    assert len(server.requests) <= 4


def test_a_service_that_is_not_there_is_no_rows_fault(ask: Ask) -> None:
    with LocalServer(echo) as server:
        asker = ask(server, max_retries=0)
    with pytest.raises(APIConnectionError):
        asker(pa.table({"prompt": ["x", "y"]}))


def test_settings_are_taken_as_by_a_client(serve: Serve) -> None:
    server = serve(echo)
    with contextlib.closing(AskModel(settings=Settings(**connection(server)), rate_limit=None)) as asker:
        assert asker(pa.table({"prompt": ["x"]}))["answer"].to_pylist() == ["answer to x"]
    with pytest.raises(ConfigurationError, match="no account id"):
        AskModel(rate_limit=None)


def test_without_ray_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pyarrow'] = None; import workersai.ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert "workersai.ray needs pyarrow, which is not installed: pip install 'workersai[ray]'" in done.stderr


class Cluster:
    """A local Ray with two CPUs in a process of its own, whose calls go to a server here."""

    def __init__(self, server: LocalServer, process: subprocess.Popen[str]) -> None:
        self.server = server
        self._process = process

    def do(self, job: str, **arguments: Any) -> Any:
        """What the job returned; a job that raised is an error with its text."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([job, arguments]) + "\n")
        self._process.stdin.flush()
        watch = threading.Timer(LONGEST_JOB, self._process.kill)
        watch.start()
        try:
            told = next((line for line in self._process.stdout if line.startswith(OUTCOME)), None)
        finally:
            watch.cancel()
        assert told is not None, f"{job} had no outcome within {LONGEST_JOB} s"
        outcome = json.loads(told.removeprefix(OUTCOME))
        if "error" in outcome:
            raise RuntimeError(outcome["error"])
        return outcome["value"]


arrivals: list[tuple[str, float]] = []


def arrived(request: GenerationRequest) -> str:
    arrivals.append((asked_text(request), time.monotonic()))
    return echo(request)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with LocalServer(arrived, faults=refused) as server:
        settings = {
            **server.environment,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        }
        process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, str(JOBS)],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            yield Cluster(server, process)
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(LONGEST_JOB)
            finally:
                process.kill()


def parquet(folder: Path, prompts: list[str]) -> dict[str, str]:
    """Rows of ids and prompts in four files, as the arguments of a job."""
    (folder / "in").mkdir()
    for ids in np.array_split(np.arange(len(prompts)), 4):
        table = pa.table({"id": ids, "prompt": [prompts[row] for row in ids]})
        pq.write_table(table, folder / f"in/from {ids[0]}.parquet")
    return {"source": str(folder / "in"), "target": str(folder / "out")}


@pytest.mark.slow
def test_no_row_is_lost_or_doubled_when_a_worker_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    bad = (3, 137, 399)
    prompts = [f"row {row}, a {'bad' if row in bad else 'good'} one" for row in range(400)]
    limit = [10_000, 60, "of the dead and the living"]
    cluster.do("ask", **parquet(tmp_path, prompts), marker=str(tmp_path / "died"), deadly_row=137, limit=limit)
    assert (tmp_path / "died").exists()

    done = pq.read_table(tmp_path / "out").sort_by("id")
    assert done["id"].to_pylist() == list(range(400))
    expected = [None if row in bad else f"answer to {prompt}" for row, prompt in enumerate(prompts)]
    assert done["answer"].to_pylist() == expected
    errors = {row: error for row, error in enumerate(done["error"].to_pylist()) if error is not None}
    assert tuple(errors) == bad
    assert all(error.startswith("BadRequestError: AiError: Bad input") for error in errors.values())

    asked = [asked_text_of(record.body) for record in cluster.server.requests]
    assert set(prompts) <= set(asked)
    assert len(asked) > 400, "what the killed worker had not handed on was asked once more"

    files = list((tmp_path / "out").iterdir())
    assert len(files) > 1
    schema = pa.schema([("id", pa.int64()), ("prompt", pa.string()), *NEW.items()])
    assert {pq.read_schema(path).remove_metadata() for path in files} == {schema}


def test_all_workers_keep_one_rate_limit(cluster: Cluster) -> None:
    calls, seconds, rows = 5, 1.0, 8
    prompts = [[f"paced {worker} {row}" for row in range(rows)] for worker in range(2)]
    told = cluster.do("ask_by_turns", prompts=prompts, limit=[calls, seconds, "paced"])
    assert told["answers"] == [[f"answer to {prompt}" for prompt in own] for own in prompts]
    times = sorted(at for prompt, at in arrivals if prompt.startswith("paced"))
    assert len(times) == 2 * rows
    # Nothing arrives before its turn. With a limit for each of the workers, which are ready before, all would be there
    # within one span after the first.
    waited = [at - told["began"] for at in times]
    assert all(at >= place // calls * seconds * 0.99 for place, at in enumerate(waited)), waited


def test_a_wrong_token_stops_the_job_with_the_services_words(cluster: Cluster, tmp_path: Path) -> None:
    rows = [{"prompt": "secret"}] * 40
    with pytest.raises(RuntimeError, match=r"AuthenticationError: .*Check CLOUDFLARE_API_TOKEN") as caught:
        cluster.do("ask", source=rows, target=str(tmp_path), api_token="not-the-token-of-it", limit=[300, 60])
    assert "not-the-token-of-it" not in str(caught.value)


def test_the_same_name_is_the_same_limit_in_the_cluster_until_it_is_forgotten(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="named 'agreed' is 5 calls in 60 s already, for all of this Ray cluster"):
        cluster.do("refuse_other_numbers")


def test_who_waits_no_longer_leaves_the_line(cluster: Cluster) -> None:
    assert cluster.do("leave_the_line") == [1, 2, 1, 1, 0]


def test_the_example_of_the_documentation_runs(cluster: Cluster) -> None:
    (example,) = examples_with("import ray\n")
    assert cluster.do("run", example=example) == "done"
    asked = [asked_text_of(record.body) for record in cluster.server.requests if record.body]  # none of a wrong token's
    assert sum("Never again." in prompt for prompt in asked) == sum("A joy!" in prompt for prompt in asked) == 1
