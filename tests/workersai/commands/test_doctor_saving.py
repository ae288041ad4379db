"""The file of ``workersai doctor --save``: the structure stays, what is private is gone."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raw_server import raw_server, reply
from tests.workersai.commands.current_service import (
    ACCOUNT,
    PRIVATE,
    TOKEN,
    CurrentService,
    environment,
    failing,
)
from tests.workersai.commands.running import PLAIN, finished
from workersai._doctor.captures import Capture
from workersai._doctor.redaction import Redactor, masked
from workersai._doctor.saving import saved_text
from workersai.protocol.reply import ReplyHead

SAMPLES = Path(__file__).parents[2] / "wire" / "samples"
SECRET = "Zanzibar quokka 48151"
WORDS = st.text(string.ascii_letters, min_size=12, max_size=20).map(lambda word: f"{word}qz")


def saved(tmp_path: Path, service: CurrentService) -> str:
    file = tmp_path / "saved.json"
    with raw_server(service) as server:
        given = {**PLAIN, **environment(server)}
        done = finished("doctor", "--yes", "--save", str(file), environment=given)
    assert done.returncode in (0, 1)
    return file.read_text()


def whole(body: bytes, *, kind: Any = "whole", headers: dict[str, str] | None = None) -> Capture:
    """A reply as it was captured."""
    capture = Capture("messages", kind, "@cf/example/model", "messages", {"messages": []}, "/ai/run/x")
    capture.head, capture.chunks, capture.times = ReplyHead(200, headers or {}), [body], [0.1]
    return capture


def text_of(*captures: Capture, secrets: tuple[str, ...] = (ACCOUNT, TOKEN)) -> str:
    return saved_text([], captures, secrets, "@cf/example/model")


def types_of(value: Any) -> Any:
    """The structure of a value, without its texts and numbers."""
    if isinstance(value, dict):
        return {key: types_of(inner) for key, inner in value.items()}
    return [types_of(each) for each in value] if isinstance(value, list) else type(value).__name__


def test_nothing_private_of_a_run_is_in_the_file(tmp_path: Path) -> None:
    content = saved(tmp_path, CurrentService(SECRET))
    assert not [private for private in (*PRIVATE, SECRET, "Zanzibar", "quokka", "48151") if private in content]
    samples = json.loads(content)["samples"]
    fields = {"file", "kind", "model", "status", "tools", "max_tokens", "form", "source", "evidence", "when"}
    assert all(fields <= set(sample) for sample in samples)
    assert len({sample["file"] for sample in samples}) == len(samples) > 15


def test_nothing_private_of_a_failed_run_is_in_the_file(tmp_path: Path) -> None:
    words = f"AiError: {SECRET} from 203.0.113.77 for someone@example.net, account {ACCOUNT}, token {TOKEN}"
    refused = failing("403 Forbidden", 10000, words)
    content = saved(tmp_path, CurrentService(SECRET, lambda path, body: refused if "messages" in body else None))
    private = (*PRIVATE, "203.0.113.77", "someone@example.net")
    assert not [each for each in private if each in content]
    assert "AiError" in content


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    file.write_text("mine")
    service = CurrentService()
    with raw_server(service) as server:
        given = {**PLAIN, **environment(server)}
        done = finished("doctor", "--yes", "--save", str(file), environment=given)
        missing = finished("doctor", "--yes", "--save", str(tmp_path / "no" / "x.json"), environment=given)
    assert (done.returncode, missing.returncode, file.read_text(), service.paths) == (2, 2, "mine", [])
    assert "already exists" in done.stderr
    assert "No such file or directory" in missing.stderr


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_the_structure_of_a_captured_reply_stays(path: Path) -> None:
    payload = json.loads(path.read_bytes())
    if path.name == "index.json":
        return
    (sample,) = json.loads(text_of(whole(path.read_bytes())))["samples"]
    before, after = types_of(payload), types_of(sample["body"])
    result = payload.get("result") if isinstance(payload, dict) else None
    is_model_json = isinstance(result, dict) and isinstance(result.get("response"), dict)
    if not is_model_json and "dict_content" not in path.name:  # the keys of a model's own object are its text
        assert after == before


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.sse")), ids=lambda path: path.stem)
def test_the_events_of_a_captured_stream_stay(path: Path) -> None:
    (sample,) = json.loads(text_of(whole(path.read_bytes(), kind="stream")))["samples"]
    before, after = path.read_text().split("\n"), sample["body"].split("\n")
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        assert one[:5] == other[:5]
        try:
            event = json.loads(one[5:])
        except ValueError:
            continue
        assert types_of(event) == types_of(json.loads(other[5:]))


@given(
    WORDS,
    st.sampled_from(
        [
            '{"result":{"response":"%s"}}',
            '{"result":{"response":{"%s":1}}}',
            '{"result":{"response":{"error":"%s","name":"%s","id":"%s"}}}',
            '{"result":{"response":["%s",{"type":"%s"}]}}',
            '{"result":{"choices":[{"message":{"content":"%s","reasoning":"%s"}}]}}',
            '{"result":{"choices":[{"text":"%s"}],"unknown":"%s"}}',
            '{"result":{"tool_calls":[{"id":"%s","name":"%s","arguments":{"city":"%s"}}]}}',
            '{"result":{"tool_calls":[{"function":{"arguments":"{\\"city\\":\\"%s\\"}"}}]}}',
            '{"result":{"output":[{"type":"message","content":[{"type":"output_text","text":"%s"}]}]}}',
            '{"errors":[{"message":"%s"}],"result":{"response":"%s"}}',
            "not JSON %s",
            '{"result":{"response":"%s',
        ]
    ),
)
def test_the_words_of_a_model_are_never_in_the_file(word: str, form: str) -> None:
    body = form.replace("%s", word).encode()
    assert word not in text_of(whole(body))
    event = b"data: " + body + b"\n\n: %s\n\nevent: %s\n\ndata: [DONE]\n\n".replace(b"%s", word.encode())
    assert word not in text_of(whole(event, kind="stream"))


@given(st.text(string.ascii_letters + string.digits + "-_./+", min_size=8, max_size=60), st.integers(0, 3))
def test_a_credential_is_never_in_the_file(secret: str, place: int) -> None:
    quoted = json.dumps(secret)
    bodies = [
        f'{{"result":{{"id":{quoted}}}}}',
        f'{{"errors":[{{"message":{json.dumps("Bearer " + secret)}}}]}}',
        f'{{"result":{{"status":{quoted}}}}}',
        f'{{"result":{{{quoted}:1}}}}',
    ]
    content = text_of(whole(bodies[place].encode(), headers={"cf-ray": "x1234567"}), secrets=(secret,))
    body = json.loads(content)["samples"][0]["body"] if secret in content else None
    # A secret that is a word of the file's own, such as "captured", can't be in what was received.
    assert body is None or secret not in json.dumps(body)


@given(st.text())
def test_masking_keeps_the_lengths_of_lines_and_the_white_space(text: str) -> None:
    made = masked(text)
    assert made.count("\n") == text.count("\n")
    assert [each for each in made if each.isspace()] == [each for each in text if each.isspace()]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_that_a_model_wrote_as_text_stays_json(value: Any) -> None:
    json.loads(masked(json.dumps(value)))


def test_the_same_id_has_the_same_stand_in() -> None:
    redactor = Redactor(())
    value = redactor.value([{"id": "call-abc"}, {"tool_call_id": "call-abc"}, {"id": "call-def"}])
    first, again, other = (next(iter(each.values())) for each in value)
    assert first == again != other
    assert first.startswith("call-")
    repeated = "functions.get_weather:0"
    assert redactor.value({"id": repeated}) == {"id": repeated}


def test_a_page_of_a_proxy_is_saved_without_its_words(tmp_path: Path) -> None:
    page = reply(b"<html><title>Blocked for 203.0.113.9</title></html>", status="403 Forbidden")
    content = saved(tmp_path, CurrentService(override=lambda path, body: page if "messages" in body else None))
    assert "203.0.113.9" not in content
