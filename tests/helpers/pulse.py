"""Somebody else at the same app: asks for something small again and again, and notes how long each answer takes.

The app runs in this process, on a machine that may be busy with others. So besides the seconds of the clock, those that
each step of the server's event loop computed are noted: they depend on nobody else.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

STEP_SECONDS = 1.0
"""A step of the loop that computes for so long is one that holds everybody; what is aimed at is 0.05."""
WAITED_SECONDS = 60.0
"""An answer that takes as long waits for a loop that is held by something other than computing."""
SERVER = "http-server"
"""The name of the thread that the server's loop runs on."""


@dataclass
class Pulse:
    """Seconds that each answer took so far, and that the longest step of the server's loop computed."""

    seconds: list[float] = field(default_factory=list)
    step: float = 0.0

    @property
    def stalled(self) -> bool:
        """Whether the loop was held."""
        return self.step > STEP_SECONDS or max(self.seconds) > WAITED_SECONDS

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        return (
            f"median {ordered[len(ordered) // 2]:.3f} s, longest {ordered[-1]:.3f} s of {len(ordered)}; "
            f"longest step of the loop {self.step * 1000:.0f} ms"
        )


@contextmanager
def pulse(url: str, path: str = "gradio_api/login_check", pause: float = 0.02) -> Iterator[Pulse]:
    """Ask until the block is left, at least once."""
    found, ended, began = Pulse(), threading.Event(), threading.Event()

    def beat() -> None:
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
            http.get(path)  # the connection
            while not ended.is_set() or not found.seconds:
                started = time.perf_counter()
                status = http.get(path).status_code
                found.seconds.append(time.perf_counter() - started)
                assert status == 200
                began.set()
                time.sleep(pause)

    thread = threading.Thread(target=beat, name="pulse")
    with _timed_steps(found):
        thread.start()
        try:
            began.wait(60)
            yield found
        finally:
            ended.set()
            thread.join()


@contextmanager
def _timed_steps(found: Pulse) -> Iterator[None]:
    """Note what each callback of the server's loop computes."""
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.events.Handle) -> None:
        started = time.thread_time()
        run(handle)
        if threading.current_thread().name == SERVER:
            found.step = max(found.step, time.thread_time() - started)

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        asyncio.events.Handle._run = run  # type: ignore[method-assign]
