"""Somebody else at the same app: asks for something small again and again, and notes how long each answer takes.

The app runs in this process, and the machine may be busy with others: besides the seconds of the clock, those that this
process computed meanwhile are noted. Only an event loop that is held makes both of them large.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

COMPUTED_SECONDS = 3.0
WAITED_SECONDS = 60.0


@dataclass
class Pulse:
    """Seconds that each answer took so far, by the clock and of this process's computing."""

    seconds: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        return max(self.seconds, default=float("inf"))

    @property
    def stalled(self) -> bool:
        """Whether some answer came as late as only from a loop that is held: by computing, or by waiting for ever."""
        return max(self.computed, default=99.0) > COMPUTED_SECONDS or self.longest > WAITED_SECONDS

    def __str__(self) -> str:
        return f"median {self.median:.3f} s, longest {self.longest:.3f} s (computing: {max(self.computed):.3f} s)"

    @property
    def median(self) -> float:
        return sorted(self.seconds)[len(self.seconds) // 2]


@contextmanager
def pulse(url: str, path: str = "gradio_api/login_check", pause: float = 0.02) -> Iterator[Pulse]:
    """Ask until the block is left. An answer that never came counts with the time until then."""
    found, ended, began = Pulse(), threading.Event(), threading.Event()

    def beat() -> None:
        with httpx.Client(base_url=url, timeout=120) as http:
            http.get(path)  # the connection
            while not ended.is_set():
                started, computed = time.perf_counter(), time.process_time()
                status = http.get(path).status_code
                found.seconds.append(time.perf_counter() - started)
                found.computed.append(time.process_time() - computed)
                assert status == 200
                began.set()
                time.sleep(pause)

    thread = threading.Thread(target=beat, name="pulse")
    thread.start()
    try:
        began.wait(60)
        yield found
    finally:
        ended.set()
        thread.join()
