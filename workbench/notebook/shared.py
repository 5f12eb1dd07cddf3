"""What the panels of one run have in common: the run as a view, and the round that is selected in all of them."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from spark_kernel.errors import SparkError
from workbench.notebook.driver_state import DriverState
from workbench.notebook.run_on_disk import Seen
from workbench.notebook.style import Panel, note, row
from workbench.views.run_view import RunView

NOTHING_YET = "Nothing is recorded yet: this fills as soon as the first phase is done."


class Shared:
    """The selection. `lock` is held wherever panels that show data are changed, from whichever thread.

    The field, the buttons and the check box are one model each, shown in every panel, so that all panels agree.
    """

    def __init__(self, lock: threading.RLock | None = None) -> None:
        self.lock = lock if lock is not None else threading.RLock()
        self.view: RunView | None = None
        self.problem = ""
        self.rounds: tuple[int, ...] = ()
        self._listeners: list[Callable[[], None]] = []
        self._quiet = False
        self._shown: object = None
        # Not a slider: the handle of ipywidgets' own has no name for a screen reader.
        self.round = widgets.BoundedIntText(
            0, min=0, max=0, description="round", layout=widgets.Layout(width="170px"), tooltip="The round shown"
        )
        self.range = widgets.HTML()
        self.back = widgets.Button(icon="chevron-left", tooltip="previous round", layout=widgets.Layout(width="36px"))
        self.on = widgets.Button(icon="chevron-right", tooltip="next round", layout=widgets.Layout(width="36px"))
        self.back.on_click(lambda _: self._step(-1))
        self.on.on_click(lambda _: self._step(1))
        self.follow = widgets.Checkbox(
            True, description="newest round", indent=False, tooltip="Go on to each new round as it comes"
        )
        self.round.observe(self._moved, "value")
        self.follow.observe(self._follow, "value")

    def bar(self) -> widgets.Box:
        """The choice of a round, for a panel."""
        return row(self.round, self.back, self.on, self.range, self.follow)

    def on_select(self, listener: Callable[[], None]) -> None:
        """Have something called whenever another round is selected."""
        self._listeners.append(listener)

    @property
    def selected(self) -> int | None:
        """The selected round; None where there is none to select."""
        return self.round.value if self.rounds else None

    def select(self, round: int) -> None:
        """Select a round in every panel, and stop following the newest; a round that is not there is passed over."""
        with self.lock:
            if round in self.rounds:
                self.follow.value = False
                self.round.value = round

    def see(self, seen: Seen) -> None:
        """Take in a look at the disk; the rounds that can be selected, and the newest one if it is followed."""
        with self.lock:
            if self._shown == (seen.run, seen.stamp, seen.problem):
                return
            if seen.reader is None:
                self.view = None
            elif self.view is None or self.view.reader is not seen.reader:
                self.view = RunView(seen.reader)
            self.problem = seen.problem
            self.rounds = self.view.rounds() if self.view is not None else ()
            self._shown = (seen.run, seen.stamp, seen.problem)
            if not self.rounds:
                return
            self._quiet = True
            first, last = self.rounds[0], self.rounds[-1]
            value = last if self.follow.value else min(max(self.round.value, first), last)
            if last < self.round.min:
                self.round.min, self.round.max = first, last
            else:
                self.round.max = last
                self.round.min = first
            self.round.value = value
            self.range.value = f'<span class="spark-muted">of {first} to {last}</span>'
            self._quiet = False

    def _step(self, by: int) -> None:
        self.round.value += by

    def _moved(self, _: object) -> None:
        if self._quiet:
            return
        with self.lock:
            if self.rounds and self.round.value != self.rounds[-1]:
                self.follow.value = False
            self._tell()

    def _follow(self, change: dict[str, object]) -> None:
        with self.lock:
            if change["new"] and self.rounds:
                self.round.value = self.rounds[-1]

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


class DataPanel(Panel):
    """A panel that shows what is on disk. What cannot be read is a sentence in the panel.

    A subclass makes its widgets once and changes them in `show`.
    """

    def __init__(self, shared: Shared, *children: widgets.Widget, bar: bool = True) -> None:
        self.shared = shared
        self.message = widgets.HTML(note(NOTHING_YET))
        self._shown: object = None
        super().__init__(*([shared.bar()] if bar else []), self.message, *children)
        self._behind = False
        self._failed = False
        self._hidden = False
        self._alone = False
        shared.on_select(self._catch_up)

    def hide(self, hidden: bool) -> None:
        """Say whether the panel lies behind others; it is then brought up to date when it comes to the front."""
        with self.shared.lock:
            self._hidden = hidden and not self._alone
            if self._behind and not self._hidden:
                self.reload()

    def refresh(self, _: DriverState, seen: Seen) -> None:
        """Show the run again if anything on disk has changed, or it could not be read the last time."""
        with self.shared.lock:
            self.shared.see(seen)
            if self._failed or self._shown != (seen.run, seen.stamp, seen.problem):
                self._shown = (seen.run, seen.stamp, seen.problem)
                self._catch_up()

    def _catch_up(self) -> None:
        if self._hidden:
            self._behind = True
        else:
            self.reload()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        self._alone = True
        self.hide(False)
        return super()._repr_mimebundle_(**kwargs)

    def reload(self) -> None:
        """Show what is selected."""
        with self.shared.lock:
            self._behind = self._failed = False
            if self.shared.view is None:
                self.say(self.shared.problem or NOTHING_YET, error=bool(self.shared.problem))
                return
            try:
                self.say("")
                self.show(self.shared.view)
            except (SparkError, OSError) as error:
                self._failed = True
                self.say(" ".join(str(error).split()), error=True)

    def say(self, text: str, *, error: bool = False) -> None:
        """A sentence at the top of the panel; empty for none."""
        self.message.value = note(text, error=error)

    @abstractmethod
    def show(self, view: RunView) -> None:
        """Bring the panel up to date.

        Raises:
            SparkError, OSError: something cannot be read; the panel then says so.
        """
