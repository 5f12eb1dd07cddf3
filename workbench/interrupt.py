"""Ctrl-C and SIGTERM during a run: the first asks for a stop, the second stops at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MESSAGE = "Stopping after this micro-batch; press Ctrl-C again to stop at once."


@contextmanager
def stops_on_signals(ask: Callable[[], None], *, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """While the block runs, the first signal calls `ask`; the next one raises KeyboardInterrupt.

    Works on the main thread only, as Python's signals do.

    Args:
        ask: asks for a stop; must return at once.
        say: shows one sentence; standard error by default.
    """
    asked = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        ask()
        (say or _to_stderr)(MESSAGE)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
