"""What an engine has to say besides its results: sentences for the round's report."""

from __future__ import annotations

import threading


class Remarks:
    """Sentences that any thread may add and the trainer takes; one that stands there already is not added again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Keep a sentence until it is taken."""
        with self._lock:
            if sentence not in self._sentences:
                self._sentences.append(sentence)

    def take(self) -> tuple[str, ...]:
        """What was added since the last call, in order."""
        with self._lock:
            taken, self._sentences = tuple(self._sentences), []
        return taken
