"""The queue that calls and jobs wait at: no wait outlasts its timeout, and no item is lost."""

import gc
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType

import pytest

from tests.support import PATIENCE
from workersai._wait_queue import WaitQueue


def run_in_thread(work: Callable[[], object]) -> None:
    """Does it in a thread that may hang without keeping the tests from going on."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_wait_ends_however_short_it_is() -> None:
    """A ``SimpleQueue`` of CPython 3.10 to 3.12 hangs here, within some thousands of waits."""
    ended = 0

    def wait_often() -> None:
        nonlocal ended
        for number in range(50_000):
            try:
                WaitQueue[int]().get(timeout=number % 5 * 1e-6)
            except queue.Empty:
                ended += 1

    run_in_thread(wait_often)
    assert ended == 50_000


def test_every_item_reaches_one_of_many_threads_that_wait() -> None:
    items, threads = WaitQueue[int | None](), 8

    def take() -> list[int]:
        taken: list[int] = []
        while True:
            with suppress(queue.Empty):
                item = items.get(timeout=1e-4 if len(taken) % 2 else None)
                if item is None:
                    return taken
                taken.append(item)

    def give(first: int) -> None:
        for number in range(first, 4_000, 4):
            items.put(number)

    with ThreadPoolExecutor(threads + 4) as pool:
        takers = [pool.submit(take) for _ in range(threads)]
        for giver in [pool.submit(give, first) for first in range(4)]:
            giver.result(PATIENCE)
        for _ in takers:
            items.put(None)
        taken = [number for taker in takers for number in taker.result(PATIENCE)]
    assert sorted(taken) == list(range(4_000))
    assert items.empty()


def test_items_come_in_their_order() -> None:
    items = WaitQueue[int]()
    for number in range(100):
        items.put(number)
    assert [items.get(timeout=0) for _ in range(100)] == list(range(100))


def test_a_finalizer_may_put_while_the_same_thread_puts_or_gets() -> None:
    items = WaitQueue[str]()

    class Left:
        def __init__(self) -> None:
            self.own = self  # which only a garbage collection ends

        def __del__(self) -> None:
            items.put("left")

    def use() -> None:
        for _ in range(300):
            Left()
            items.put("kept")
            with suppress(queue.Empty):
                items.get(timeout=1e-6)

    before = gc.get_threshold()
    gc.set_threshold(1)  # at each line that allocates
    try:
        run_in_thread(use)
    finally:
        gc.set_threshold(*before)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_who_is_interrupted_leaves_the_next_item_to_another() -> None:
    items, taken = WaitQueue[str](), []
    waiting = threading.Thread(target=lambda: taken.append(items.get(timeout=PATIENCE)), daemon=True)

    def interrupt(_: int, __: FrameType | None) -> None:
        waiting.start()
        items.put("item")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            items.get(timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
    waiting.join(PATIENCE)
    assert taken == ["item"]
