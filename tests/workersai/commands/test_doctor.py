"""``workersai doctor``: which row each fault of an account gives, and the exit codes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.raw_server import raw_server, reply
from tests.support import Lengths, Serve
from tests.workersai.commands.current_service import (
    CurrentService,
    Override,
    enveloped,
    environment,
    failing,
)
from tests.workersai.commands.running import PLAIN, at_terminal, finished, towards
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL
from workersai.local import Answer, CalledTool, Gate, LocalServer
from workersai.local.engine import GenerationRequest

ALL = (
    *("connection", "token", "account", "permission", "model list"),
    *("messages", "prompt", "stream", "tools auto", "tools required", "tools named", "JSON Mode"),
    *("reject if busy", "session affinity", "batch prompt", "batch template", "batch messages"),
    *("embeddings", "reranker"),
)


def checked(service: CurrentService, *arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the checks by name, of a run against a service."""
    with raw_server(service) as server:
        given = {**PLAIN, **environment(server), **variables}
        done = finished("doctor", "--yes", "--json", *arguments, environment=given)
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return done.returncode, {check["name"]: check for check in report["checks"]}


def overriding(name: str, made: bytes) -> Override:
    """Replies so to requests of the default model, or of a path, and in no other way to the rest."""
    return lambda path, body: made if name in path else None


def well(request: GenerationRequest) -> Answer:
    """Answers as a good model does."""
    if request.tools:
        return Answer(tool_calls=(CalledTool("get_weather", {"city": "Tokyo"}),))
    if request.json_schema is not None:
        return Answer(object={"city": "Paris", "country": "France"})
    return Answer("Paris")


def test_a_service_of_today_passes_every_check() -> None:
    service = CurrentService()
    code, checks = checked(service)
    assert (code, tuple(checks)) == (0, ALL)
    statuses = {name: check["status"] for name, check in checks.items()}
    assert {name for name, status in statuses.items() if status != "ok"} == {"batch prompt"}  # continued
    shapes = {check["shape"] for name, check in checks.items() if name.startswith(("tools", "messages", "stream"))}
    assert shapes == {"hybrid"}
    assert (checks["prompt"]["shape"], checks["prompt"]["details"]) == ("text completion", {"chat_template": False})
    assert checks["stream"]["details"]["usage"] == "increments, then totals"
    assert (checks["stream"]["prompt_tokens"], checks["stream"]["completion_tokens"]) == (47, 3)
    assert checks["session affinity"]["details"] == {"cached": 32}
    assert "choices[0]" not in checks["tools auto"]["summary"]
    assert checks["batch prompt"]["status"] == "warn"
    answered = {name: checks[name]["details"]["answered"] for name in ALL if name.startswith("batch")}
    assert answered == {"batch prompt": False, "batch template": True, "batch messages": True}


def test_the_report_for_programs_has_the_same_fields_for_each_check() -> None:
    with raw_server(CurrentService()) as server:
        done = finished("doctor", "--yes", "--json", environment={**PLAIN, **environment(server)})
    report = json.loads(done.stdout)
    assert set(report) == {"version", "model", "exit_code", "estimated_cost_usd", "cost_usd", "checks"}
    assert report["model"] == DEFAULT_MODEL
    assert 0 < report["cost_usd"] <= report["estimated_cost_usd"] < 0.01
    fields = {"name", "status", "summary", "advice", "shape", "expected_shape"}
    fields |= {"prompt_tokens", "completion_tokens", "seconds", "details"}
    assert {frozenset(check) for check in report["checks"]} == {frozenset(fields)}
    assert {check["status"] for check in report["checks"]} <= {"ok", "warn", "fail", "skip"}


def test_the_older_shape_is_a_warning_and_no_failure(serve: Serve) -> None:
    server = serve(well)
    done = finished("doctor", "--yes", "--json", environment=towards(server))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {check["name"] for check in checks.values() if check["status"] == "fail"} == set()
    assert done.returncode == 0
    for name in ("messages", "stream", "tools named"):
        found = checks[name]["status"], checks[name]["shape"], checks[name]["expected_shape"]
        assert found in {("warn", "native", "hybrid"), ("ok", "hybrid", "hybrid")}


def test_another_model_is_expected_to_have_no_certain_shape() -> None:
    code, checks = checked(CurrentService(), "-m", "@cf/example/model")
    assert (code, checks["messages"]["status"], checks["messages"]["expected_shape"]) == (0, "ok", None)
    assert checks["model list"]["status"] == "warn"
    assert checks["batch template"]["status"] == "skip"


def test_without_credentials_it_says_what_is_missing_and_where_to_get_it() -> None:
    done = finished("doctor", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    account, token, rest = done.stderr.splitlines()
    assert account.startswith("CLOUDFLARE_ACCOUNT_ID is not set.")
    assert "dash.cloudflare.com/<account id>" in account
    assert token.startswith("CLOUDFLARE_API_TOKEN is not set.")
    assert "https://dash.cloudflare.com/profile/api-tokens" in token
    assert rest.startswith("Nothing was sent.")


def test_only_the_missing_setting_is_named(serve: Serve) -> None:
    server = serve("Paris")
    done = finished("doctor", "--json", environment={**towards(server), "CLOUDFLARE_API_TOKEN": " "})
    assert done.returncode == 2
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem.startswith("CLOUDFLARE_API_TOKEN is not set.")
    assert server.requests == []


def test_a_setting_that_cant_be_right_is_not_sent() -> None:
    given = {**PLAIN, "CLOUDFLARE_ACCOUNT_ID": "a", "CLOUDFLARE_API_TOKEN": "t", "CLOUDFLARE_BASE_URL": "nonsense"}
    done = finished("doctor", "--yes", environment=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert "base_url" in done.stderr


def test_without_a_terminal_it_asks_for_yes(serve: Serve) -> None:
    server = serve("Paris")
    done = finished("doctor", environment=towards(server))
    assert (done.returncode, done.stdout, server.requests) == (2, "", [])
    estimate, refusal = done.stderr.splitlines()
    assert "cost at most $0.00" in estimate
    assert refusal.endswith("workersai doctor --yes")


def test_no_is_an_answer(serve: Serve) -> None:
    server = serve("Paris")
    with at_terminal("doctor", environment={**towards(server), "COLUMNS": "80"}) as terminal:
        terminal.read_until("Run the checks?")
        terminal.enter("n")
        code, _ = terminal.end()
    assert (code, server.requests) == (2, [])


@pytest.mark.parametrize(
    ("variable", "wrong", "advice"),
    [("CLOUDFLARE_API_TOKEN", "token", "profile/api-tokens"), ("CLOUDFLARE_ACCOUNT_ID", "account", "<account id>")],
)
def test_it_says_which_of_token_and_account_is_wrong(serve: Serve, variable: str, wrong: str, advice: str) -> None:
    server = serve("Paris")
    done = finished("doctor", "--yes", "--json", environment={**towards(server), variable: "another-one"})
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert [name for name, check in checks.items() if check["status"] == "fail"] == [wrong]
    assert advice in checks[wrong]["advice"]
    assert checks["messages"] | {"seconds": None} == checks["reranker"] | {"name": "messages"}
    assert checks["messages"]["summary"] == f"{wrong!r} failed"


ACTIVE = enveloped({"id": "0" * 32, "status": "active"})
EXPIRED = enveloped({"id": "0" * 32, "status": "expired"})
DENIED = failing("401 Unauthorized", 1000, "Invalid API Token")


@pytest.mark.parametrize(
    ("user", "owned", "wrong"),
    [
        (ACTIVE, DENIED, "account"),
        (DENIED, ACTIVE, "account"),
        (DENIED, DENIED, "token"),
        (EXPIRED, DENIED, "token"),
    ],
)
def test_cloudflare_is_asked_whether_it_knows_the_token(user: bytes, owned: bytes, wrong: str) -> None:
    def override(path: str, body: dict[str, Any]) -> bytes | None:
        if path == "/user/tokens/verify":
            return user
        if path.endswith("/tokens/verify"):
            return owned
        return failing("403 Forbidden", 10000, "Authentication error")

    code, checks = checked(CurrentService(override=override))
    assert (code, [name for name, check in checks.items() if check["status"] == "fail"]) == (1, [wrong])


def test_an_account_that_is_not_found() -> None:
    lost = failing("404 Not Found", 7003, "Could not route to /accounts/x/ai/models/search")
    code, checks = checked(CurrentService(override=overriding("/ai/", lost)))
    assert (code, checks["account"]["status"]) == (1, "fail")
    assert "CLOUDFLARE_ACCOUNT_ID" in checks["account"]["advice"]


def test_a_token_that_may_read_but_not_run() -> None:
    refused = failing("403 Forbidden", 10000, "Authentication error")
    code, checks = checked(CurrentService(override=overriding("/ai/run/", refused)))
    assert (code, checks["permission"]["status"], checks["messages"]["status"]) == (1, "ok", "fail")
    assert '"Workers AI: Edit"' in checks["messages"]["advice"]
    assert {checks[name]["status"] for name in ALL[6:]} == {"skip"}


def test_an_exhausted_allocation_ends_all_that_costs() -> None:
    spent = failing("429 Too Many Requests", 4006, "AiError: you have used up your daily free allocation")
    service = CurrentService(override=overriding("/ai/run/", spent))
    code, checks = checked(service)
    assert (code, checks["messages"]["status"]) == (1, "fail")
    assert "00:00 UTC" in checks["messages"]["advice"]
    assert {checks[name]["status"] for name in ALL[6:]} == {"skip"}
    assert len(service.paths) == 2


def test_a_model_that_is_gone_leaves_the_other_models_to_be_checked() -> None:
    gone = failing("410 Gone", 5028, f"AiError: {DEFAULT_MODEL} was deprecated on 2026-05-30")
    code, checks = checked(CurrentService(override=overriding(f"/run/{DEFAULT_MODEL}", gone)))
    assert (code, checks["messages"]["status"]) == (1, "fail")
    assert {checks[name]["status"] for name in ALL[6:17]} == {"skip"}
    assert (checks["embeddings"]["status"], checks["reranker"]["status"]) == ("ok", "ok")


def test_a_busy_model_is_a_warning() -> None:
    busy = failing("429 Too Many Requests", 3040, "AiError: Capacity temporarily exceeded, please try again.")
    code, checks = checked(CurrentService(override=overriding(f"/run/{DEFAULT_MODEL}", busy)))
    assert (code, checks["messages"]["status"], checks["reject if busy"]["status"]) == (0, "warn", "ok")


def test_one_reply_that_fails_is_one_row() -> None:
    broken = reply(b"<html><title>502 Bad Gateway</title></html>", status="502 Bad Gateway")
    code, checks = checked(CurrentService(override=overriding(DEFAULT_EMBEDDING_MODEL, broken)))
    assert (code, [name for name, check in checks.items() if check["status"] == "fail"]) == (1, ["embeddings"])
    assert "502" in checks["embeddings"]["summary"]


def test_a_shape_that_is_not_known_is_a_failure() -> None:
    odd = enveloped({"generations": [{"answer": "Paris"}]})
    code, checks = checked(CurrentService(override=overriding(f"/run/{DEFAULT_MODEL}", odd)))
    assert (code, checks["messages"]["status"]) == (1, "fail")


def test_an_empty_result_where_a_stream_was_requested_is_a_warning() -> None:
    code, checks = checked(CurrentService(override=lambda path, body: enveloped({}) if body.get("stream") else None))
    assert (code, checks["stream"]["status"]) == (0, "warn")
    assert "empty" in checks["stream"]["summary"]


@pytest.mark.parametrize("fault", ["cut:40", "garbage:40", "event:3040", "stall:0"])
def test_a_faulty_stream_is_one_row_that_is_not_ok(fault: str) -> None:
    def faults(record: Any) -> str | None:
        return fault if isinstance(record.body, dict) and record.body.get("stream") else None

    with LocalServer(well, embedder=Lengths(), faults=faults) as server:
        done = finished("doctor", "--yes", "--json", "--timeout", "1", environment=towards(server))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["stream"]["status"] in ("warn", "fail")
    assert checks["tools auto"]["status"] != "skip"


def test_a_batch_that_stays_queued_is_a_warning(serve: Serve) -> None:
    with LocalServer(well, embedder=Lengths(), batch_delay=600) as server:
        done = finished("doctor", "--yes", "--json", "--batch-wait", "0", environment=towards(server))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {checks[name]["status"] for name in ALL[14:17]} == {"warn"}
    assert "--batch-wait" in checks["batch prompt"]["advice"]


def test_no_network_is_one_row() -> None:
    with raw_server(CurrentService()) as server:
        given = {**PLAIN, **environment(server)}
    done = finished("doctor", "--yes", "--json", environment=given)  # nobody listens there any more
    checks = json.loads(done.stdout)["checks"]
    assert done.returncode == 1
    assert [(check["name"], check["status"]) for check in checks[:2]] == [("connection", "fail"), ("token", "skip")]
    assert "Check the network" in checks[0]["summary"]


def test_ctrl_c_ends_with_the_rows_so_far(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    server = serve(lambda request: Answer("Paris", hold={0: gate}) if request.stream else well(request))
    given = {**towards(server), "COLUMNS": "200"}
    with at_terminal("doctor", "--yes", "--save", str(tmp_path / "saved.json"), environment=given) as terminal:
        gate.wait_until_reached()
        terminal.interrupt()
        code, shown = terminal.end()
    assert code == 130
    assert "Traceback" not in shown
    assert re.search(r"^prompt +\w+ +text completion", shown, re.MULTILINE)
    assert re.search(r"^stream +skip +interrupted", shown, re.MULTILINE)
    assert json.loads((tmp_path / "saved.json").read_text())["samples"][-1]["kind"] == "stream"


@pytest.mark.parametrize("columns", [200, 80, 40])
def test_nothing_of_the_table_is_cut_off_at_a_terminal(serve: Serve, columns: int) -> None:
    server = serve(well)
    given = {**towards(server), "TERM": "xterm", "COLUMNS": str(columns)}
    with at_terminal("doctor", "--yes", environment=given) as terminal:
        terminal.read_until("connection")
        code, shown = terminal.end()
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", f"connection{shown}").splitlines()
    assert (code, "…" in shown) == (0, False)
    assert max(map(len, lines)) <= columns
    assert all(name in "\n".join(lines) for name in ALL)


def test_words_of_the_service_that_a_stream_cant_encode_are_escaped() -> None:
    odd = failing("400 Bad Request", 5006, "AiError: \u2603 \x1b[31m")
    with raw_server(CurrentService(override=overriding(f"/run/{DEFAULT_MODEL}", odd))) as server:
        given = {**PLAIN, **environment(server), "PYTHONIOENCODING": "ascii", "PYTHONPATH": "."}
        done = finished("doctor", "--yes", environment=given)
    assert done.returncode == 1
    assert "\\u2603" in done.stdout
    assert "\x1b" not in done.stdout
