"""A soak: many minutes of calls that are abandoned, cancelled, cut off and failed at random; ``make soak``.

A server in a process of its own repeats the number that each prompt holds, and misbehaves at random. Threads and tasks
of this process make calls in every way there is. The soak fails if

- an answer is not that of its own caller;
- nothing progresses for a minute (a hang), which prints the stacks of all threads;
- sockets, threads or memory grow: the last quarter is compared with the second one;
- an error is raised that isn't one of ours.

It prints a line a minute, and a summary at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import multiprocessing
import os
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_workersai import ChatWorkersAI
from llamaindex_workersai import WorkersAI
from workersai import AsyncClient, Client, CostTracker, RateLimit, _cleanup
from workersai.errors import WorkersAIError

_HANG_SECONDS = 60.0
_PIECES = 6


# The server


def _completion(text: str) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    return json.dumps({"result": {"response": text, "usage": usage}, "success": True}).encode()


def _reply(request: bytes) -> tuple[bytes, bool]:
    """A reply, right or wrong, to a request whose prompt holds a number; and whether the connection is kept."""
    found = re.search(rb"id-\d+-", request)
    number = "id-0-" if found is None else found[0].decode()
    if b'"stream"' in request:
        events = [f"data: {json.dumps({'response': number + ' '})}\n\n".encode() for _ in range(_PIECES)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in [*events, b"data: [DONE]\n\n"])
        right = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    else:
        right = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(_completion(number)) + _completion(number)
    kind = random.random()  # noqa: S311 - not a secret
    if kind < 0.03:  # noqa: PLR2004 - the shares of the faults
        return right[: random.randrange(len(right))], False  # noqa: S311
    if kind < 0.06:  # noqa: PLR2004
        busy = b'{"success":false,"errors":[{"code":3040,"message":"busy"}]}'
        return b"HTTP/1.1 429 Busy\r\nretry-after: 0\r\ncontent-length: %d\r\n\r\n" % len(busy) + busy, True
    if kind < 0.08:  # noqa: PLR2004
        return right + right.replace(number.encode(), b"id-9999999999-"), True  # a stray reply
    if kind < 0.09:  # noqa: PLR2004
        return b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + right, True
    if kind < 0.1:  # noqa: PLR2004
        return b"no HTTP at all\r\n\r\n", False
    return right, random.random() > 0.02  # noqa: PLR2004, S311


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            reply, is_kept = _reply(await reader.readexactly(int(length[1]) if length else 0))
            while reply:
                size = random.choice([1, 20, 200, 5_000])  # noqa: S311
                writer.write(reply[:size])
                reply = reply[size:]
                await writer.drain()
                if random.random() < 0.3:  # noqa: PLR2004, S311
                    await asyncio.sleep(random.random() * 0.005)  # noqa: S311
            if not is_kept:
                break
    writer.close()


def _serve(ports: Any) -> None:
    async def main() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1_000)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


# The calls


@dataclass
class Soak:
    """What the calls share: where they go, when they end, and what became of them."""

    account: dict[str, Any]
    end: float
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    progress: dict[str, float] = field(default_factory=dict)
    number: int = 0

    def next_prompt(self) -> str:
        """A prompt with a number that no other has."""
        self.number += 1
        return f"id-{self.number}-{threading.get_ident()} "

    def check(self, prompt: str, text: str) -> None:
        """Notes an answer that is another caller's."""
        own = prompt.split("-")[1]
        if any(found != own for found in re.findall(r"id-(\d+)-", text)):
            self.wrong.append(f"{prompt!r} was answered with {text!r}")

    def note(self, kind: str) -> None:
        """Counts what became of a call."""
        self.counts[kind] += 1
        self.progress[threading.current_thread().name] = time.monotonic()


class _Cycle:
    """Holds something in a cycle, so that only the garbage collector ends it."""

    def __init__(self, held: Any) -> None:
        self.held, self.itself = held, self


class _OwnError(Exception):
    """Raised by the reader of a stream."""


def _sync_calls(soak: Soak) -> None:
    client = Client(**soak.account)
    chat, llm = ChatWorkersAI(**soak.account), WorkersAI(**soak.account)
    starts: list[Callable[[str], Any]] = [client.stream, chat.stream, llm.stream_complete]
    runs: list[Callable[[str], str]] = [
        lambda prompt: client.run(prompt, rate_limit=RateLimit(100_000, 1, name="soak")).text,
        lambda prompt: chat.invoke(prompt).text,
        lambda prompt: llm.complete(prompt).text,
    ]
    while time.monotonic() < soak.end:
        prompt, way = soak.next_prompt(), random.randrange(6)  # noqa: S311
        try:
            if way == 0:
                soak.check(prompt, random.choice(runs)(prompt))  # noqa: S311
                soak.note("run")
                continue
            stream = random.choice(starts)(prompt)  # noqa: S311
            texts = []
            for delta in stream:
                texts.append(delta.delta if hasattr(delta, "delta") else delta.text)
                soak.check(prompt, "".join(map(str, texts)))
                if way == 1:
                    _Cycle(stream)
                    break
                if way == 2:  # noqa: PLR2004
                    raise _OwnError  # noqa: TRY301
                if way == 3:  # noqa: PLR2004
                    stream.close()
                    break
            soak.note(("", "abandoned", "", "closed", "read", "read")[way])
        except _OwnError:
            soak.note("left by an error")
        except WorkersAIError as error:
            soak.note(type(error).__name__)


async def _async_call(soak: Soak, client: AsyncClient, chat: ChatWorkersAI) -> None:
    prompt, way = soak.next_prompt(), random.randrange(6)  # noqa: S311
    try:
        if way == 0:
            soak.check(prompt, (await client.run(prompt)).text)
        elif way == 1:
            soak.check(prompt, (await asyncio.wait_for(chat.ainvoke(prompt), random.random() * 0.05)).text)  # noqa: S311
        elif way == 2:  # noqa: PLR2004
            task = asyncio.ensure_future(client.run(prompt))
            await asyncio.sleep(random.random() * 0.02)  # noqa: S311
            task.cancel()
            soak.check(prompt, (await task).text)
        elif way == 3:  # noqa: PLR2004
            soak.check(prompt, (await client.run(prompt, deadline=random.random() * 0.05 + 0.001)).text)  # noqa: S311
        else:
            stream = client.stream(prompt)
            async for delta in stream:
                soak.check(prompt, delta.text)
                if way == 4 and random.random() < 0.5:  # noqa: PLR2004, S311
                    break
        soak.note("async")
    except (asyncio.CancelledError, asyncio.TimeoutError):
        soak.note("cancelled")
    except WorkersAIError as error:
        soak.note(type(error).__name__)


def _async_calls(soak: Soak, word: Any) -> None:
    async def main() -> None:
        async with AsyncClient(**soak.account, http_client=word) as client:
            chat = ChatWorkersAI(**soak.account, http_async_client=word)

            async def work() -> None:
                while time.monotonic() < min(soak.end, began + 20):
                    await _async_call(soak, client, chat)

            began = time.monotonic()
            await asyncio.gather(*(work() for _ in range(20)))

    while time.monotonic() < soak.end:  # another event loop every 20 seconds
        asyncio.run(main())


# The watch


def _sample() -> tuple[int, int, float]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


def run(minutes: float, interval: float = 60.0) -> int:
    """Soaks for so many minutes, and returns the exit code."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=_serve, args=(ports,), daemon=True)
    server.start()
    account = {"base_url": f"http://127.0.0.1:{ports.get()}", "account_id": "a", "api_token": "t", "max_retries": 1}
    soak = Soak({**account, "timeout": 10.0}, time.monotonic() + 60 * minutes)
    began, samples = time.monotonic(), []
    works: list[tuple[str, Callable[[], None]]] = [(f"sync {n}", lambda: _sync_calls(soak)) for n in range(4)]
    works += [("async", lambda: _async_calls(soak, None)), ("httpx", lambda: _async_calls(soak, "httpx"))]
    with CostTracker() as tracker:
        threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in works]
        for thread in threads:
            soak.progress[thread.name] = time.monotonic()
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(interval / len(threads))
            stuck = [
                thread.name
                for thread in threads
                if thread.is_alive() and time.monotonic() - soak.progress[thread.name] > _HANG_SECONDS
            ]
            if stuck:
                print(f"HANG: {stuck} made no progress for {_HANG_SECONDS:g} s")
                faulthandler.dump_traceback(all_threads=True)
                return 1
            samples.append(_sample())
            files, alive, memory = samples[-1]
            print(
                f"{(time.monotonic() - began) / 60:5.1f} min  {soak.counts.total():9,} calls  {files:4} files  "
                f"{alive:3} threads  {memory:6.1f} MiB  {_cleanup.pending()} pending  {len(soak.wrong)} wrong",
                flush=True,
            )
    server.terminate()
    print(dict(soak.counts), repr(tracker))
    return _verdict(soak, samples)


def _verdict(soak: Soak, samples: list[tuple[int, int, float]]) -> int:
    quarter = max(1, len(samples) // 4)
    before, after = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter - 1 : -1] or samples[-1:]
    grown = []
    for place, (name, allowed) in enumerate((("files", 40.0), ("threads", 3.0), ("MiB", 30.0))):
        was, now = (statistics.median(sample[place] for sample in part) for part in (before, after))
        print(f"{name}: {was:g} in the second quarter, {now:g} in the last")
        if now > was + allowed:
            grown.append(name)
    for line in soak.wrong[:5]:
        print("WRONG:", line)
    print("It failed." if grown or soak.wrong else "It held.", f"Grown: {grown}" if grown else "")
    return 1 if grown or soak.wrong else 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between two samples")
    arguments = parser.parse_args()
    sys.exit(run(arguments.minutes, arguments.interval))


if __name__ == "__main__":
    main()
