"""What is said of texts that are longer than a model reads, if only the service counts their tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from workersai.catalog import EmbeddingCard
from workersai.errors import ContextWindowExceededError, WorkersAIError
from workersai.retrieval.options import EmbeddingOptions
from workersai.wordpiece import count_wordpieces, may_have_more

logger = logging.getLogger("workersai")

_TOO_LONG = 3030
"""The code for a text that is longer than an embedding model reads (wire.md#error-codes)."""


def explain_too_long(
    error: WorkersAIError, places: tuple[int, int], options: EmbeddingOptions, card: EmbeddingCard | None
) -> None:
    """Adds to an error which texts can be too long, and what to do. Other errors stay as they are.

    Args:
        error: What the service answered to one call.
        places: The places of the call's first and last text.
        options: Those of the call.
        card: What is known of the model.
    """
    if not (isinstance(error, ContextWindowExceededError) or error.code == _TOO_LONG):
        return
    can_be_cut = card is not None and card.truncate_inputs and not options.truncate
    cut = ", or give truncate=True to have it cut" if can_be_cut else ""
    error.reword(
        f"{options.model} can't read one of texts[{places[0]}] to texts[{places[1]}] whole: split it{cut}. "
        f"{error.message}"
    )


def warn_of_long(query: str, documents: Sequence[str], card: EmbeddingCard | None) -> None:
    """Says in the log which documents the reranker will not read to their end.

    Its tokens are not those that are counted here, but about as many.
    """
    if card is None:
        return
    room = card.max_tokens - count_wordpieces(query, card.max_tokens)
    long = [
        place
        for place, document in enumerate(documents)
        if may_have_more(document, room) and count_wordpieces(document, max(room, 0)) > room
    ]
    if long:
        logger.warning(
            "%s reads about %d tokens of the query and a document together: %d of the documents are longer (the first "
            "is documents[%d]), and are judged by their beginnings.",
            card.name,
            card.max_tokens,
            len(long),
            long[0],
        )
