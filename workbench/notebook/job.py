"""A button whose work takes seconds: done on a thread of its own, once at a time, its outcome a sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable

import ipywidgets as widgets

from spark_kernel.errors import SparkError
from workbench.notebook.style import note


class Job:
    """Ties a button to work. A second press while it runs does nothing, because the button is off.

    Args:
        button: disabled meanwhile.
        said: where the outcome is written.
        work: gives a sentence, or raises `SparkError` or `OSError` with one.
        doing: shown meanwhile.
    """

    def __init__(self, button: widgets.Button, said: widgets.HTML, work: Callable[[], str], doing: str) -> None:
        self._button, self._said, self._work, self._doing = button, said, work, doing
        self._thread: threading.Thread | None = None
        button.on_click(lambda _: self.start())

    def start(self) -> None:
        """Begin, unless it is under way."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._button.disabled = True
        self._said.value = note(self._doing)
        self._thread = threading.Thread(target=self._run, name=self._doing, daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Block until it is done."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._said.value = note(self._work())
        except (SparkError, OSError) as error:
            self._said.value = note(" ".join(str(error).split()), error=True)
        finally:
            self._button.disabled = False
