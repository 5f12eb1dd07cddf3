"""How much one client may do: requests in a while, and requests at once.

Not safe between threads: the guard runs on one loop.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MOST_CLIENTS = 4096


class Pace:
    """A token bucket per client: `rate` requests per second in the long run, `burst` at once."""

    def __init__(self, rate: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._now = rate, burst, now
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """0 if the client may go on, else the seconds until it may."""
        now = self._now()
        tokens, last = self._clients.pop(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - last) * self._rate)
        allowed = tokens >= 1
        self._clients[client] = (tokens - 1 if allowed else tokens, now)
        while len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate


class OpenRequests:
    """Requests of each client that are not answered to the end; streams are among them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._clients: dict[str, int] = {}

    def enter(self, client: str) -> bool:
        """Whether the client may have one more; then `leave` must follow."""
        if self._clients.get(client, 0) >= self._most:
            return False
        self._clients[client] = self._clients.get(client, 0) + 1
        return True

    def leave(self, client: str) -> None:
        """One of them is over."""
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


class KnownSessions:
    """The sessions that asked for something lately; only they have a stream to read.

    What was asked for has paid for its answer: one reading for each time a session joined does not count towards the
    pace, or a question would be computed and its answer refused.
    """

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self._most = most
        self._paid: OrderedDict[str, int] = OrderedDict()

    def add(self, session: str) -> None:
        """This session joined the queue."""
        self._paid[session] = self._paid.get(session, 0) + 1
        self._paid.move_to_end(session)
        while len(self._paid) > self._most:
            self._paid.popitem(last=False)

    def take(self, session: str) -> bool:
        """Whether this reading is paid for by a joining that was not read yet; then it is now."""
        if not self._paid.get(session):
            return False
        self._paid[session] -= 1
        return True

    def __contains__(self, session: object) -> bool:
        return session in self._paid
