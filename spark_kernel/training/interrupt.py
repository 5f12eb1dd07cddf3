"""Ctrl-C, or a notebook kernel's interrupt, as a request to stop: work ends at its next safe point, not in the middle.

A KeyboardInterrupt that Python raises wherever it happens to be could leave an optimizer step half done.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

MESSAGE = "Stopping after this micro-batch; interrupt again to stop at once."


@contextmanager
def stops_on_signals(
    ask: Callable[[], None],
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
    *,
    say: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """While the block runs, the first signal calls `ask`; the next one raises KeyboardInterrupt.

    Does nothing off the main thread, where Python delivers no signals, and inside a block of its own kind.

    Args:
        ask: asks for a stop; must return at once.
        signals: which signals ask.
        say: shows one sentence; standard error by default.
    """
    if threading.current_thread() is not threading.main_thread() or any(
        isinstance(signal.getsignal(number), _Handler) for number in signals
    ):
        yield
        return
    handler = _Handler(ask, say or _to_stderr)
    before: dict[signal.Signals, Any] = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class _Handler:
    """A signal handler that lets the first signal ask and the second one interrupt."""

    def __init__(self, ask: Callable[[], None], say: Callable[[str], None]) -> None:
        self._ask = ask
        self._say = say
        self._asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._ask()
        self._say(MESSAGE)


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
