"""Work that a request asks for, done beside the event loop: few threads, and no more waiting than can be done soon."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from spark_kernel.errors import InputError

T = TypeVar("T")
BUSY = "The page has as much to do as it can take: come back in a moment."


class Workroom:
    """Runs functions on threads of its own. `run` belongs to one event loop.

    More threads would not do more: Python runs one at a time, and each of them makes the event loop wait for its turn.

    Args:
        threads: functions that run at once.
        most: those that run or wait, of all clients.
        each: those of one client.
    """

    def __init__(self, name: str, threads: int, most: int, each: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._each = most, each
        self._clients: dict[str, int] = {}

    async def run(self, client: str, function: Callable[..., T], *args: Any) -> T:
        """The function's result.

        Raises:
            InputError: too much waits already (`BUSY`); and whatever the function raises.
        """
        own = self._clients.get(client, 0)
        if own >= self._each or sum(self._clients.values()) >= self._most:
            raise InputError(BUSY)
        self._clients[client] = own + 1
        work = asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        # Who goes away does not free the place: the thread is busy until the function has returned.
        work.add_done_callback(lambda done: self._leave(client, done))
        return await asyncio.shield(work)

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, client: str, work: asyncio.Future[Any]) -> None:
        if not work.cancelled():
            work.exception()  # whoever asked may have gone: then nobody else looks at it
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


class Remembered:
    """Results by key, the last `most` that were asked for.

    Safe between threads: what two ask for at once is made once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for this key; an error it raises is not remembered."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    return self._known[key]
            try:
                made = make()
                with self._lock:
                    self._known[key] = made
                    while len(self._known) > self._most:
                        self._known.popitem(last=False)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return made
