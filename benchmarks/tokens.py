"""How long counting a full window takes, fresh and with one turn added; bounds and estimate beside the count."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from workersai import Message, count_tokens, tokens
from workersai.protocol.estimate import estimate_tokens
from workersai.protocol.token_bounds import fewest_tokens, most_tokens

WINDOW = 24_000
TURN = "The boat went out to sea before the sun was up, and nobody on the shore saw it leave. " * 12

KINDS = {
    "English": TURN,
    "code": Path(tokens.__file__).read_text(encoding="utf-8"),
    "JSON": '{"id": 17, "name": "Ann", "tags": ["new", "open"], "score": 0.25}\n' * 30,
    "German": "Die Rechtsschutzversicherungsgesellschaften bestätigen die Geschwindigkeitsbegrenzung. " * 20,
    "Russian": "Все счастливые семьи похожи друг на друга. " * 30,
    "Chinese": "人工智能是计算机科学的一个分支，它企图了解智能的实质。" * 30,
    "Japanese": "吾輩は猫である。名前はまだ無い。" * 30,
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। " * 20,
    "emoji": "😀🎉🚀🔥💯✨" * 60,
    "Swahili": "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa. Wote wamejaliwa akili na dhamiri. " * 20,
    "base64": "R2l0IGlzIGEgZnJlZSBhbmQgb3BlbiBzb3VyY2UgZGlzdHJpYnV0ZWQgdmVyc2lvbiBjb250cm9s" * 20,
}


def main() -> None:
    """Prints both tables."""
    chat = [Message("system", "Be brief.")]
    while count_tokens(chat) < WINDOW:
        chat += [Message("user", f"{len(chat)}: {TURN}"), Message("assistant", f"{len(chat)}. {TURN}")]
    print(f"A chat of {count_tokens(chat):,} tokens in {len(chat)} messages")
    tokens._counted.clear()  # noqa: SLF001 - to count it from the beginning
    fresh = _seconds(lambda: count_tokens(chat))
    chat.append(Message("user", "One more question."))
    more = _seconds(lambda: count_tokens(chat))
    print(f"  fresh: {1_000 * fresh:.1f} ms; with one turn added: {1_000 * more:.2f} ms\n")

    print(f"{'kind of text':12} {'exact':>7} {'at least':>9} {'estimate':>9} {'at most':>9}")
    for kind, text in KINDS.items():
        exact = count_tokens(text)
        counts = [count(text) / exact for count in (fewest_tokens, estimate_tokens, most_tokens)]
        print(f"{kind:12} {exact:7,} {counts[0]:8.2f}x {counts[1]:8.2f}x {counts[2]:8.2f}x")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
