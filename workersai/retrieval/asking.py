"""Texts and documents, checked, and the calls that ask for their vectors and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from workersai.calls import BaseClient, Call
from workersai.catalog import MOST_TEXTS, RERANKER_CATALOG, EmbeddingCard, embedding_card
from workersai.costs import CostTracker, trackers_here
from workersai.deadline import Deadline
from workersai.errors import BadRequestError
from workersai.options import RequestOptions, checked_options
from workersai.protocol.batch import MOST_BYTES, queue_request
from workersai.protocol.reply import Asked
from workersai.protocol.request import Request, json_bytes, request_to
from workersai.protocol.values import Usage
from workersai.retries import OnRetry
from workersai.retrieval.long_texts import warn_of_long
from workersai.retrieval.options import EmbeddingOptions, RerankOptions
from workersai.settings import DEFAULT_MAX_RETRIES
from workersai.wordpiece import (
    FRAME,
    count_wordpieces,
    cut_to,
    most_bytes,
    most_sentencepieces,
    most_wordpieces,
)

# What a client's own options say of every request. Its model writes text, and its rate limit is of that, which the
# service counts apart (wire.md#limits).
_SHARED = tuple(name for name in RequestOptions.model_fields if name not in ("model", "rate_limit"))
_AROUND_ITEM = 100  # bytes of an item of a batch, beside its texts
_ENOUGH = 10_000  # tokens; how many more a text has, nobody needs to know


@dataclass(frozen=True)
class Text:
    """A text as it is sent, with its place, its bytes, and its tokens where they were counted."""

    place: int
    sent: str
    size: int
    tokens: int | None
    was_cut: bool


@dataclass(frozen=True)
class Group:
    """The texts of one call."""

    texts: Sequence[Text]

    @property
    def size(self) -> int:
        """Their bytes, and what stands around them in a batch."""
        return _AROUND_ITEM + sum(text.size for text in self.texts)


class Asker:
    """What makes the calls of a client that asks for vectors."""

    def __init__(self, client: BaseClient[Any], given: Mapping[str, Any]) -> None:
        self._client = client
        self._on_retry, rest = _on_retry_of(client, given)
        self.options = checked_options(EmbeddingOptions, rest, beside=("on_retry",))
        self.card = embedding_card(self.options.model)
        if self.card is not None:
            _check_options(self.options, self.card)
        self._trackers = trackers_here()
        self._ends: Deadline | None = None

    def begin_deadline(self) -> None:
        """From now on, all calls have one deadline together, and not one each."""
        self._ends = Deadline(self.options.deadline)

    def texts(self, texts: Sequence[Any], first: int = 0) -> tuple[list[Text], BadRequestError | None]:
        """The texts as they are sent; up to one that can't be, with its error."""
        found: list[Text] = []
        for place, text in enumerate(texts, first):
            try:
                found.append(text if isinstance(text, Text) else self._text(text, place))
            except BadRequestError as error:
                return found, error
        return found, None

    def _text(self, text: Any, place: int) -> Text:
        where = f"texts[{place}]"
        checked_text(text, where)
        tokens, was_cut = None, False
        if self.card is not None and self.card.wordpiece:
            tokens = count_wordpieces(text, _ENOUGH)
            if tokens > self.card.max_tokens:
                if not self.options.truncate:
                    told = f"{tokens:,}" if tokens <= _ENOUGH else f"over {_ENOUGH:,}"
                    raise BadRequestError(
                        f"{where} has {told} tokens, and {self.card.name} reads {self.card.max_tokens}: split it "
                        "into smaller ones, give truncate=True to have it cut, or use bge-m3, which reads 8,192."
                    )
                text, was_cut = cut_to(text, self.card.max_tokens), True
                tokens = count_wordpieces(text)
        return Text(place, text, len(json_bytes(text)) + 1, tokens, was_cut)

    def groups(self, texts: Sequence[Text]) -> Iterator[Group]:
        """Yields the texts of each call, within the model's limits for a call and the bytes of a batch.

        If the model limits the tokens of a call, an upper bound is counted for each text, so a call is never refused
        for the sum. A text that is over the limit by that bound is sent alone.
        """
        most_texts, most_tokens = MOST_TEXTS, None
        if self.card is not None:
            most_texts, most_tokens = self.card.max_texts, self.card.max_call_tokens
        group: list[Text] = []
        size, tokens = _AROUND_ITEM, 0
        for text in texts:
            more = 0 if most_tokens is None else self._most_tokens(text.sent)
            too_many = most_tokens is not None and tokens + more > most_tokens
            if group and (too_many or len(group) == most_texts or size + text.size >= MOST_BYTES):
                yield Group(group)
                group, size, tokens = [], _AROUND_ITEM, 0
            group.append(text)
            size += text.size
            tokens += more
        if group:
            yield Group(group)

    def body(self, group: Group) -> dict[str, Any]:
        """What asks for the vectors of a group."""
        body: dict[str, Any] = {"text": [text.sent for text in group.texts]}
        if self.options.pooling is not None and (self.card is None or self.card.pooling):
            body["pooling"] = self.options.pooling
        if self.options.truncate and self.card is not None and self.card.truncate_inputs:
            body["truncate_inputs"] = True  # bge-m3's schema: else the service refuses what is too long
        return body

    def call(self, group: Group) -> Call:
        """The call for a group."""
        body = self.body(group)
        if self.options.reject_if_busy:
            body["options"] = {"rejectIfBusy": True}
        content = json_bytes(body)
        form = _cache_form("embed", self.options, content)
        request = request_to(self._client.settings, self.options, content, form=form)
        return replace(self.call_of(request, [group]), operation="embeddings")

    def call_of(self, request: Request, groups: Sequence[Group]) -> Call:
        """A call that asks for groups, by whatever request."""
        texts = (text.sent for group in groups for text in group.texts)
        most = sum(map(self._most_tokens, texts)) if self._trackers else 0  # nobody else needs it
        call = made_call(self._client, request, self.options, (most, 0), self._trackers, self._on_retry)
        return replace(call, ends=self._ends)

    def _most_tokens(self, text: str) -> int:
        if self.card is not None and self.card.wordpiece:
            return most_wordpieces(text)
        if self.card is not None and self.card.byte_level:
            return FRAME + most_bytes(text)
        return FRAME + most_sentencepieces(text)

    def usage(self, groups: Sequence[Group], *, billed: bool = True) -> Usage | None:
        """The tokens as they were counted here; None where they weren't."""
        counts = [text.tokens for group in groups for text in group.texts]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        tokens = sum(known)
        return Usage(tokens, 0, model=self.options.model, unbilled_prompt_tokens=0 if billed else tokens)

    def submission(self, groups: Sequence[Group]) -> Call:
        """What submits groups as one batch."""
        items = [{**self.body(group), "external_reference": str(place)} for place, group in enumerate(groups)]
        return self.call_of(self._queued({"requests": items}), groups)

    def poll(self, request_id: str, groups: Sequence[Group]) -> Call:
        """What asks for a batch."""
        return self.call_of(self._queued({"request_id": request_id}), groups)

    def _queued(self, body: Mapping[str, Any]) -> Request:
        return queue_request(self._client.settings, self.options, json_bytes(body))


def _check_options(options: EmbeddingOptions, card: EmbeddingCard) -> None:
    """Raises BadRequestError for a pooling or a truncation that the model can't be asked for."""
    if options.pooling is not None and not card.pooling and options.pooling != card.fixed_pooling:
        always = f"; it always uses {card.fixed_pooling!r}" if card.fixed_pooling else ""
        raise BadRequestError(f"pooling: {card.name} takes none{always}. Leave pooling out.")
    if options.truncate and not (card.wordpiece or card.truncate_inputs):
        raise BadRequestError(
            f"truncate: {card.name} has no option to cut texts. Split texts of more than {card.max_tokens:,} tokens, "
            "and leave truncate out."
        )


def rerank_call(client: BaseClient[Any], query: Any, documents: Sequence[Any], given: Mapping[str, Any]) -> Call:
    """The call that asks for the scores of documents.

    Raises:
        BadRequestError: the query or a document is no string, or empty; or an option can't be right.
    """
    on_retry, rest = _on_retry_of(client, given)
    options = checked_options(RerankOptions, rest, beside=("on_retry",))
    checked_text(query, "query")
    for place, document in enumerate(documents):
        checked_text(document, f"documents[{place}]")
    warn_of_long(query, documents, RERANKER_CATALOG.get(options.model))
    body: dict[str, Any] = {"query": query, "contexts": [{"text": document} for document in documents]}
    if options.top_n is not None:
        body["top_k"] = min(options.top_n, len(documents))
    if options.reject_if_busy:
        body["options"] = {"rejectIfBusy": True}
    content = json_bytes(body)
    request = request_to(client.settings, options, content, form=_cache_form("rerank", options, content))
    # The query is read once with each document, and four tokens stand around the two.
    pairs = len(documents) * (2 * FRAME + most_sentencepieces(query)) + sum(map(most_sentencepieces, documents))
    return replace(made_call(client, request, options, (pairs, 0), trackers_here(), on_retry), operation="rerank")


def _cache_form(operation: str, options: RequestOptions, content: bytes) -> str:
    """What goes after a gateway's cache key: vectors and scores of other texts would be wrong, and look right."""
    if options.gateway is None:
        return ""
    return f"{operation}.{sha256(options.model.encode() + content).hexdigest()}"


def checked_text(text: Any, where: str) -> None:
    """Fails for what has no vector.

    Raises:
        BadRequestError: it is no string, or there is nothing in it.
    """
    if not isinstance(text, str):
        raise BadRequestError(f"{where} must be a string, not {type(text).__name__}.")
    if not text or text.isspace():
        raise BadRequestError(f"{where} is empty: leave it out, or give it a text.")


def made_call(
    client: BaseClient[Any],
    request: Request,
    options: EmbeddingOptions | RerankOptions,
    most_tokens: tuple[int, int],
    trackers: tuple[CostTracker, ...],
    on_retry: OnRetry | None,
) -> Call:
    """A call for something else than an answer in words."""
    return Call(
        request,
        Asked(options.model, None),
        DEFAULT_MAX_RETRIES if options.max_retries is None else options.max_retries,
        trackers=trackers,
        most_tokens=most_tokens,
        limiter=None if options.rate_limit is None else client.limiter_of(options.rate_limit),
        deadline=options.deadline,
        on_retry=on_retry,
    )


def _on_retry_of(client: BaseClient[Any], given: Mapping[str, Any]) -> tuple[OnRetry | None, dict[str, Any]]:
    rest = {**{name: value for name, value in client.defaults.items() if name in _SHARED}, **given}
    return client.checked_on_retry(rest.pop("on_retry", None)) or client.on_retry, rest
