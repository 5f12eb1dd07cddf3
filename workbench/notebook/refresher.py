"""Keeps panels up to date from one background thread, at most five times a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from workbench.notebook.driver import Driver
from workbench.notebook.driver_state import DriverState, Mode
from workbench.notebook.run_on_disk import RunOnDisk, Seen

INTERVAL = 0.2
"""Seconds between two refreshes while something happens."""
IDLE = 2.0
"""Seconds between two looks at the disk while nothing here happens: another process may be writing."""

logger = logging.getLogger(__name__)

Refresh = Callable[[DriverState, Seen], None]


class Refresher:
    """Calls every panel's refresh with the newest snapshot, from a thread of its own.

    A panel that fails is taken off the list and the failure is logged, so that one broken panel does not freeze the
    others.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._panels: list[Refresh] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._disk = RunOnDisk()
        self._seen: tuple[tuple[object, ...], float, Seen] | None = None
        self.lock = threading.RLock()
        """Held while panels are brought up to date; callbacks of panels that show data hold it, too."""
        self._thread: threading.Thread | None = None

    def add(self, refresh: Refresh) -> None:
        """Have a panel refreshed from now on."""
        with self._lock:
            self._panels.append(refresh)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="panels", daemon=True)
                self._thread.start()

    def refresh_now(self) -> None:
        """One refresh on the calling thread."""
        self._seen = None
        self._refresh(self._driver.state)

    def end(self) -> None:
        """Stop refreshing. Calling it twice is fine."""
        self._ended.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _run(self) -> None:
        seen = -1
        while not self._ended.is_set():
            known = seen
            state = self._driver.wait(lambda now: now.serial != known or self._ended.is_set(), IDLE)  # noqa: B023
            seen = state.serial
            self._refresh(state)
            if state.mode is Mode.ENDED:
                return
            time.sleep(INTERVAL)

    def look(self, state: DriverState) -> Seen:
        """The run on disk: read again when this process has written, and every `IDLE` seconds."""
        key = (state.run, state.written, state.mode)
        now = time.monotonic()
        known = self._seen
        if known is None or known[0] != key or now - known[1] >= IDLE:
            known = self._seen = (key, now, self._disk.look(state.run))
        return known[2]

    def _refresh(self, state: DriverState) -> None:
        with self._lock:
            panels = list(self._panels)
        with self.lock:
            seen = self.look(state)
            for refresh in panels:
                try:
                    refresh(state, seen)
                except Exception:  # any: one thread refreshes all panels, and a broken one may not stop the others
                    logger.exception("A panel could not be brought up to date; it stays as it is.")
                    with self._lock:
                        if refresh in self._panels:
                            self._panels.remove(refresh)
