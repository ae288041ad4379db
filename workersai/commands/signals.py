"""Signals that end a job: the first lets what is in progress end, the second interrupts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not on every platform


class Ended(KeyboardInterrupt):
    """A signal that interrupts at once, wherever the command is.

    Attributes:
        code: The exit code of the command.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """Ends the block by SIGTERM and SIGHUP as by Ctrl-C: what is half written is removed.

    Raises:
        typer.Exit: it was ended so.
    """

    def end(number: int, _: FrameType | None) -> None:
        _leave_dead_terminal()
        raise Ended(exit_code(number))

    in_main = threading.current_thread() is threading.main_thread()  # no other one can handle signals
    before = {number: signal.signal(number, end) for number in _signals()[1:] if in_main}
    try:
        yield
    except Ended as ended:
        raise typer.Exit(ended.code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interrupts:
    """The signals to a running job.

    Args:
        stop: Lets the job end once what is in progress has ended.
        say: Shows a line.

    Attributes:
        number: The signal that came first, if one did.
    """

    def __init__(self, stop: Callable[[], None], say: Callable[[str], None]) -> None:
        self.number: int | None = None
        self._stop, self._say = stop, say
        self._interrupted = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles them inside the block, which runs in a task of asyncio.

        Raises:
            Ended: there was a second one.
        """
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        before = {number: signal.getsignal(number) for number in _signals()}

        def receive(number: int) -> None:
            _leave_dead_terminal()
            if self.number is None:
                self.number = number
                self._stop()
                self._say("Stopping once what is in progress has ended; Ctrl-C again interrupts it.")
            elif main is not None:
                self._interrupted = True
                main.cancel()

        for number in before:
            with contextlib.suppress(NotImplementedError):  # on Windows Ctrl-C ends it at once
                loop.add_signal_handler(number, receive, number)
        try:
            yield
        except asyncio.CancelledError:
            if self._interrupted and self.number is not None:
                raise Ended(exit_code(self.number)) from None
            raise
        finally:
            for number, handler in before.items():
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                    signal.signal(number, handler)


def exit_code(number: int) -> int:
    """The exit code after a signal, as shells have it."""
    return 128 + number


def _signals() -> list[int]:
    """Those that end a job; not one that is ignored, as ``nohup`` lets SIGHUP be."""
    numbers = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]
    return [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]


def _leave_dead_terminal() -> None:
    """Writes nothing more to a terminal that was closed: it would fail, and keep the job from its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or there is none
            descriptor = stream.fileno()
            if _is_dead(descriptor):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)


def _is_dead(descriptor: int) -> bool:
    """Whether it is a terminal that has hung up: a character device that fails to be asked for its settings."""
    if sys.platform == "win32":
        return False
    import errno  # noqa: PLC0415 - with termios, which is on POSIX only
    import termios  # noqa: PLC0415

    try:
        termios.tcgetattr(descriptor)
    except termios.error as error:
        return bool(error.args and error.args[0] == errno.EIO)
    return False
