"""Panel 2: step a phase, a round or many rounds; pause, stop, resume; go back; fork."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from workbench.notebook.configuration import Configuration
from workbench.notebook.driver import Driver
from workbench.notebook.driver_state import BUSY, Action, DriverState, Mode
from workbench.notebook.run_on_disk import Seen
from workbench.notebook.style import Panel, note, row
from workbench.recorded import recorded_runs

WORDS = {
    Mode.NEW: "not started",
    Mode.WATCHING: "viewing",
    Mode.WORKING: "working",
    Mode.STOPPING: "stopping",
    Mode.READY: "ready",
    Mode.ENDED: "closed",
}


STARTS = (Action.RESUME, Action.PHASE, Action.ROUND, Action.TRAIN, Action.EVALUATE)
WRITES = (*STARTS, Action.BACK, Action.UNDO)
"""What makes this process the run's writer."""


class Controls(Panel):
    """Buttons that ask a driver; they return at once and never touch the model themselves.

    Args:
        driver: what is asked.
        configuration: the form whose settings a new run starts with, and a fork changes.
    """

    def __init__(self, driver: Driver, configuration: Configuration | None = None) -> None:
        self._driver = driver
        self._configuration = configuration
        self._seen = Seen(driver.state.run)
        self._buttons: dict[Action, widgets.Button] = {}
        self._refusal: tuple[str, DriverState] | None = None
        self._warned: int | None = None
        self._newest = 0
        self.rounds = widgets.BoundedIntText(5, min=1, max=1_000_000, description="rounds", layout=_width("150px"))
        self.back_to = widgets.BoundedIntText(0, min=0, max=1_000_000, description="round", layout=_width("150px"))
        self.fork_name = widgets.Text("", description="new run", placeholder="name", layout=_width("260px"))
        self.fork_settings = widgets.HTML()
        self.state_line = widgets.HTML()
        self.bar = widgets.FloatProgress(0.0, min=0.0, max=1.0, layout=_width("320px"))
        self.bar_text = widgets.HTML()
        self.message = widgets.HTML()
        self.reasons = widgets.HTML()
        self.bar.add_class("spark-progress")
        forward = row(
            self._button(Action.RESUME, "Hold", "hand-paper-o", lambda: driver.resume()),
            self._button(Action.PHASE, "Next phase", "step-forward", lambda: driver.phase()),
            self._button(Action.ROUND, "Finish round", "forward", lambda: driver.round()),
            self._button(Action.TRAIN, "Train", "play", lambda: driver.train(self.rounds.value)),
            self.rounds,
        )
        hold = row(
            self._button(Action.PAUSE, "Pause after phase", "pause", lambda: driver.pause()),
            self._button(Action.STOP, "Stop", "stop", lambda: driver.stop(), style="warning"),
            self._button(Action.CHECKPOINT, "Checkpoint", "save", lambda: driver.checkpoint()),
            self._button(Action.EVALUATE, "Evaluate", "check", lambda: driver.evaluate()),
            self._button(Action.CLOSE, "Release", "eject", lambda: driver.close()),
        )
        history = row(
            self.back_to,
            self._button(Action.BACK, "Go back to it", "undo", self._go_back),
            self._button(Action.UNDO, "Undo going back", "repeat", lambda: driver.undo_back()),
            self.fork_name,
            self.fork_settings,
            self._button(Action.FORK, "Fork from it", "code-fork", self._fork),
        )
        super().__init__(
            self.state_line, row(self.bar, self.bar_text), self.message, forward, hold, history, self.reasons
        )
        if configuration is not None:
            configuration.on_change(self._configured)
            self._configured()
        self.refresh(driver.state, self._seen)

    def button(self, action: Action) -> widgets.Button:
        """The button of an action."""
        return self._buttons[action]

    def refresh(self, state: DriverState, seen: Seen) -> None:
        """Show a snapshot of the worker, and the run as it is on disk."""
        self._seen = seen
        self._follow_newest(state, seen)
        self.state_line.value = _state_html(state, seen)
        share = state.done / state.total if state.total else 0.0
        self.bar.value = min(1.0, share) if state.mode in BUSY else 0.0
        self.bar.layout.display = "" if state.mode in BUSY else "none"
        self.bar_text.value = _progress_html(state)
        if self._refusal is not None and not _same_situation(self._refusal[1], state):
            self._refusal = None
        refused = self._refusal[0] if self._refusal is not None else ""
        watched = seen.sentence if state.mode is Mode.WATCHING else ""
        said = note(refused or state.message, error=bool(refused) or state.failed)
        self.message.value = said + (note(watched, error=bool(seen.problem)) if watched else "")
        reasons = []
        for action, button in self._buttons.items():
            reason = self.why_not(action)
            button.disabled = reason is not None
            button.tooltip = reason or TIPS[action]
            if action is Action.STOP:  # what cannot be pressed must not shine
                button.button_style = "warning" if reason is None else ""
            if reason is not None:
                reasons.append(f"{button.description}: {reason}")
        resume = self._buttons[Action.RESUME]
        resume.description = "Start" if state.mode is Mode.NEW else "Resume"
        self.reasons.value = _reasons_html(reasons)

    def why_not(self, action: Action) -> str | None:
        """Why an action is impossible now, in a sentence; None where it is possible."""
        reason = self._driver.why_not(action)
        if reason is not None:
            return reason
        state, seen = self._driver.state, self._seen
        if action in (*WRITES, Action.FORK) and state.run in recorded_runs():
            return (
                "The recorded run is part of the program and only to look at: workbench.new() starts one of your own."
            )
        if action is Action.UNDO and not seen.gone_back:
            return "The run was never put back to an earlier round."
        if self._configuration is not None and self._configuration.problem:
            if state.mode is Mode.NEW and action in STARTS:
                return f"The configuration is not valid: {self._configuration.problem}"
            if action is Action.FORK:
                return f"The settings of the fork are not valid: {self._configuration.problem}"
        if state.mode is Mode.WATCHING and seen.run == state.run:
            if seen.problem and action in (*WRITES, Action.FORK):
                return seen.problem
            if seen.written_elsewhere and action in WRITES:
                return "Another process writes this run: stop it there first, or fork the run."
        return None

    def _configured(self) -> None:
        """The form has changed: say what a fork would change."""
        form = self._configuration
        if form is None:
            return
        if self._driver.state.mode is Mode.NEW:
            self.fork_settings.value = ""
        else:
            count = len(form.changed_names())
            text = f"with {count} changed setting{'s' if count != 1 else ''}" if count else "with the same settings"
            self.fork_settings.value = f'<span class="spark-muted">{text} (see Configuration)</span>'
        self.refresh(self._driver.state, self._seen)

    def _button(
        self, action: Action, text: str, icon: str, ask: Callable[[], str | None], style: str = ""
    ) -> widgets.Button:
        button = widgets.Button(description=text, icon=icon, button_style=style, layout=_width("auto"))
        button.on_click(lambda _: self._asked(action, self.why_not(action) or ask()))
        self._buttons[action] = button
        return button

    def _asked(self, action: Action, refusal: str | None) -> None:
        if action is not Action.BACK:
            self._warned = None
        state = self._driver.state
        self._refusal = None if refusal is None else (refusal, state)
        self.refresh(state, self._seen)

    def _follow_newest(self, state: DriverState, seen: Seen) -> None:
        """The round to go back to or fork from is the newest one, unless somebody chose another."""
        newest = _completed(state, seen)[0]
        if self.back_to.value == self._newest:
            self.back_to.value = newest
        self._newest = newest

    def _go_back(self) -> str | None:
        """Say what it costs; do it when it is asked for again."""
        round, newest = self.back_to.value, _completed(self._driver.state, self._seen)[0]
        if round >= newest:
            return f"The run stands after round {newest}: choose an earlier round to go back to."
        if self._warned != round:
            self._warned = round
            lost = f"round {newest}" if newest - round == 1 else f"rounds {round + 1} to {newest}"
            return (
                f"This takes {lost} away, with evaluations and checkpoints, into the run's folder discarded/. "
                'Press "Go back to it" again to do so; "Undo going back" brings them back.'
            )
        self._warned = None
        return self._driver.go_back(round)

    def _fork(self) -> str | None:
        name = self.fork_name.value.strip()
        if not name or Path(name).name != name or name.startswith("."):
            return "Give the fork a name without slashes, for example demo-lower-rate."
        overrides = self._configuration.overrides() if self._configuration is not None else {}
        return self._driver.fork(self.back_to.value, self._driver.state.run.parent / name, overrides)


def _same_situation(before: DriverState, now: DriverState) -> bool:
    """Whether a refusal still answers what is on the screen: nothing was started or ended since."""
    return (before.mode, before.doing, before.message) == (now.mode, now.doing, now.message)


TIPS = {
    Action.RESUME: "Load the model and bring the run to where it stands",
    Action.PHASE: "Do the phase that is due",
    Action.ROUND: "Do what is left of the round; evaluate and write a checkpoint where the settings say so",
    Action.TRAIN: "Do this many rounds, with evaluations and checkpoints where they are due",
    Action.PAUSE: "Stop at the end of this phase and write a checkpoint",
    Action.STOP: "Stop at the next micro-batch and write a checkpoint",
    Action.CHECKPOINT: "Write a checkpoint now",
    Action.EVALUATE: "Evaluate on held-out problems",
    Action.CLOSE: "Release model and lock; the panels go on showing the run",
    Action.BACK: "Put the run back to how it was after this round; later rounds move to discarded/",
    Action.UNDO: "Bring back the rounds that going back took away; rounds made since then move to discarded/",
    Action.FORK: "Go on from this round in a new run beside this one",
}


def _state_html(state: DriverState, seen: Seen) -> str:
    completed, rounds = _completed(state, seen)
    parts = [f'<span class="spark-pill">{WORDS[state.mode]}</span>', f"<b>{html.escape(state.run.name)}</b>"]
    if rounds:
        parts.append(f"{completed} of {max(completed, rounds)} rounds done")
    if state.due and state.mode not in BUSY:
        parts.append(f"next: {html.escape(state.due)} of round {state.round}")
    if state.mode in BUSY:
        parts.append(html.escape(state.doing))
        parts.append(f"alive {_ago(state.heartbeat)}")
    if state.seconds_left is not None:
        parts.append(f"about {_duration(state.seconds_left)} left")
    return " &nbsp; ".join(parts)


def _completed(state: DriverState, seen: Seen) -> tuple[int, int]:
    """Rounds that are done, and rounds in all."""
    if state.mode is Mode.WATCHING and seen.status is not None:
        return seen.status.last_round, seen.config.rounds if seen.config is not None else 0
    return state.completed, state.rounds


def _progress_html(state: DriverState) -> str:
    if state.mode not in BUSY:
        return ""
    counted = f" {state.done} of {state.total}" if state.total else ""
    return f"round {state.round}: {html.escape(state.phase)}{counted}" if state.phase else ""


def _reasons_html(reasons: list[str]) -> str:
    if not reasons:
        return ""
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    return f'<details class="spark-muted"><summary>Why some buttons are off</summary><ul>{items}</ul></details>'


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    return "now" if seconds < 2 else f"{_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 5400 else f"{whole / 3600:.1f} h"


def _width(width: str) -> widgets.Layout:
    return widgets.Layout(width=width)
