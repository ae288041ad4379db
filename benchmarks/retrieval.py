"""How well questions find the passages that answer them: by words, by the local server's vectors, reranked, and mixed.

``python -m benchmarks.retrieval`` runs all of it over HTTP against a local server, prints the table and writes
``benchmarks/retrieval.md``. The text and the questions are those of ``benchmarks/retrieval.json``.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s  # type: ignore[import-untyped]  # it ships no types
import httpx

from benchmarks.report import machine, today
from workersai.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_RERANKER, MOST_TEXTS
from workersai.local import LocalServer

ROOT = Path(__file__).parent
SET, PAGE = ROOT / "retrieval.json", ROOT / "retrieval.md"
RERANKED = 20
"""Passages that the reranker is given, the best of another way."""
_FOUND = 5  # passages that a prompt would be given
_FUSION = 60  # the constant of reciprocal rank fusion, as in the paper that proposed it (Cormack and others, 2009)

Order = list[int]
"""All passages, the best first."""


@dataclass(frozen=True)
class Labelled:
    """Passages, questions, and for each question the places of the passages that answer it."""

    passages: list[str]
    questions: list[str]
    answers: list[set[int]]

    @classmethod
    def read(cls) -> Labelled:
        """The whole set."""
        kept = json.loads(SET.read_text(encoding="utf-8"))
        places = {passage["id"]: place for place, passage in enumerate(kept["passages"])}
        return cls(
            passages=[passage["text"] for passage in kept["passages"]],
            questions=[entry["question"] for entry in kept["questions"]],
            answers=[{places[name] for name in entry["answers"]} for entry in kept["questions"]],
        )

    def small(self, questions: int) -> Labelled:
        """The first questions, among the passages that answer them."""
        kept = sorted(set().union(*self.answers[:questions]))
        answers = [{kept.index(place) for place in places} for places in self.answers[:questions]]
        return Labelled([self.passages[place] for place in kept], self.questions[:questions], answers)


@dataclass(frozen=True)
class Row:
    """What a way to search found: each figure of each question, and milliseconds of processor time a question."""

    title: str
    recall: list[float]
    rank: list[float]
    milliseconds: float

    def __str__(self) -> str:
        figures = (f"{statistics.mean(values):.2f} ± {_error(values):.2f}" for values in (self.recall, self.rank))
        told = f"{self.milliseconds:,.0f}" if self.milliseconds >= 1 else "< 1"
        return f"| {self.title} | {' | '.join(figures)} | {told} |"


class Search:
    """All the ways, over one set of passages."""

    def __init__(self, server: LocalServer, http: httpx.Client, passages: Sequence[str]) -> None:
        self._server = server
        self._http = http
        self._passages = passages
        self._words = bm25s.BM25()
        self._words.index(_tokens(passages), show_progress=False)
        self._vectors = {pooling: self._embed(passages, pooling) for pooling in ("mean", "cls")}

    def by_words(self, question: str) -> Order:
        """BM25."""
        found, _ = self._words.retrieve(_tokens([question]), k=len(self._passages), show_progress=False)
        return [int(place) for place in found[0]]

    def by_vectors(self, question: str, pooling: str = "mean") -> Order:
        """The cosine, which the product of two vectors of length 1 is."""
        (asked,) = self._embed([question], pooling)
        scores = [math.fsum(a * b for a, b in zip(asked, row, strict=True)) for row in self._vectors[pooling]]
        return sorted(range(len(scores)), key=lambda place: -scores[place])

    def fused(self, question: str) -> Order:
        """Reciprocal rank fusion of the two."""
        scores = [0.0] * len(self._passages)
        for order in (self.by_words(question), self.by_vectors(question)):
            for rank, place in enumerate(order, 1):
                scores[place] += 1 / (_FUSION + rank)
        return sorted(range(len(scores)), key=lambda place: -scores[place])

    def reranked(self, question: str, order: Order) -> Order:
        """The first of an order sorted anew."""
        first, rest = order[:RERANKED], order[RERANKED:]
        contexts = [{"text": self._passages[place]} for place in first]
        result = self._run(DEFAULT_RERANKER, {"query": question, "contexts": contexts})
        return [*(first[scored["id"]] for scored in result["response"]), *rest]

    def _embed(self, texts: Sequence[str], pooling: str) -> list[list[float]]:
        found: list[list[float]] = []
        for start in range(0, len(texts), MOST_TEXTS):
            body = {"text": list(texts[start : start + MOST_TEXTS]), "pooling": pooling}
            found += self._run(DEFAULT_EMBEDDING_MODEL, body)["data"]
        return found

    def _run(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._server.base_url}/accounts/{self._server.account_id}/ai/run/{model}"
        reply = self._http.post(url, json=body).raise_for_status().json()
        result: dict[str, Any] = reply["result"]
        return result


def measured(labelled: Labelled) -> list[Row]:
    """Each way over all questions, on a local server of its own."""
    with (
        LocalServer("no chat") as server,
        httpx.Client(headers={"authorization": f"Bearer {server.api_token}"}, timeout=None) as http,  # noqa: S113 - loopback
    ):
        search = Search(server, http, labelled.passages)
        ways: dict[str, Callable[[str], Order]] = {
            "BM25": search.by_words,
            "embeddings": search.by_vectors,
            "embeddings with `cls` pooling": lambda question: search.by_vectors(question, "cls"),
            f"embeddings, the best {RERANKED} reranked": lambda question: search.reranked(
                question, search.by_vectors(question)
            ),
            "hybrid of BM25 and embeddings": search.fused,
            f"hybrid, the best {RERANKED} reranked": lambda question: search.reranked(question, search.fused(question)),
        }
        return [_row(title, way, labelled) for title, way in ways.items()]


def page(labelled: Labelled, rows: Sequence[Row]) -> str:
    """The results, with how they came about."""
    table = ["| | recall@5 | MRR | ms a question |", "| --- | --- | --- | --- |", *map(str, rows)]
    told = _EXPLAINED.format(
        day=today(), machine=machine(), passages=len(labelled.passages), questions=len(labelled.questions)
    )
    return told + "\n".join(table) + "\n"


def _row(title: str, way: Callable[[str], Order], labelled: Labelled) -> Row:
    began = time.process_time()
    orders = [way(question) for question in labelled.questions]
    seconds = time.process_time() - began
    pairs = list(zip(orders, labelled.answers, strict=True))
    return Row(
        title,
        recall=[len(answers.intersection(order[:_FOUND])) / len(answers) for order, answers in pairs],
        rank=[1 / (1 + min(order.index(answer) for answer in answers)) for order, answers in pairs],
        milliseconds=1_000 * seconds / len(orders),
    )


def _tokens(texts: Sequence[str]) -> Any:
    return bm25s.tokenize(list(texts), stopwords="en", show_progress=False)


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


_EXPLAINED = """# Retrieval on the local server

Written by `make bench-retrieval` on {day}: {machine}.

{questions} questions in plain words look for the passages that answer them among {passages} passages of Python's
reference (`benchmarks/retrieval.json`, which names source, licence and the rule that cuts it). The questions, each with
one to four answers, were written before any way to search was run, and not changed since.

- **BM25**: `bm25s` as it comes, with its English stop words and no stemmer; questions in plain words share few words
  with a reference, which is what makes this set hard for it.
- **embeddings**: cosine of the vectors of `@cf/baai/bge-base-en-v1.5` as the local server gives them: all-MiniLM-L6-v2
  makes them. The figures say nothing of the bge models on the service, which are larger.
- **reranked**: by `@cf/baai/bge-reranker-base` of the local server, which is no cross-encoder but MiniLM's late
  interaction. It was chosen on this very set over two others (the cosine, which changes nothing, and the mean of both),
  so that its gain is a little flattered.
- **hybrid**: reciprocal rank fusion of BM25 and embeddings, with the usual constant of 60.
- **recall@5**: of a question's answers, the share that is among the first five passages. **MRR**: one over the place of
  the first answer. Both are means over the questions, ± their standard error: of two figures that lie within it,
  neither is the better one.
- **ms a question**: processor time of the server and of this benchmark, which are one process, with the question's own
  vector but not those of the passages. The local server makes them on all cores but one.

"""


def main() -> None:
    """Prints the page, and writes it."""
    labelled = Labelled.read()
    written = page(labelled, measured(labelled))
    PAGE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
