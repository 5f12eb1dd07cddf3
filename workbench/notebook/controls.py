"""Panel 2: step a phase, a round or many rounds; pause, stop, resume; go back; fork."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import yaml

from workbench.notebook.driver import BUSY, Action, Driver, DriverState, Mode
from workbench.notebook.style import note, panel, row

WORDS = {
    Mode.NEW: "not started",
    Mode.WATCHING: "watching",
    Mode.WORKING: "working",
    Mode.STOPPING: "stopping",
    Mode.READY: "ready",
    Mode.ENDED: "closed",
}


class Controls:
    """Buttons that ask a driver; they return at once and never touch the model themselves."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._buttons: dict[Action, widgets.Button] = {}
        self._refusal: tuple[str, DriverState] | None = None
        self.rounds = widgets.BoundedIntText(5, min=1, max=1_000_000, description="rounds", layout=_width("150px"))
        self.back_to = widgets.BoundedIntText(0, min=0, max=1_000_000, description="round", layout=_width("150px"))
        self.fork_name = widgets.Text("", description="new run", placeholder="name", layout=_width("260px"))
        self.fork_settings = widgets.Text(
            "", description="settings", placeholder="learner.learning_rate: 1e-4", layout=_width("360px")
        )
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
            self._button(Action.CLOSE, "Let go", "eject", lambda: driver.close()),
        )
        history = row(
            self.back_to,
            self._button(Action.BACK, "Go back to it", "undo", lambda: driver.go_back(self.back_to.value)),
            self.fork_name,
            self.fork_settings,
            self._button(Action.FORK, "Fork from it", "code-fork", self._fork),
        )
        self.widget = panel(
            self.state_line, row(self.bar, self.bar_text), forward, hold, history, self.reasons, self.message
        )
        self.refresh(driver.state)

    def button(self, action: Action) -> widgets.Button:
        """The button of an action."""
        return self._buttons[action]

    def refresh(self, state: DriverState) -> None:
        """Show a snapshot."""
        self.state_line.value = _state_html(state)
        share = state.done / state.total if state.total else 0.0
        self.bar.value = min(1.0, share) if state.mode in BUSY else 0.0
        self.bar.description = ""
        self.bar_text.value = _progress_html(state)
        if self._refusal is not None and not _same_situation(self._refusal[1], state):
            self._refusal = None
        refused = self._refusal[0] if self._refusal is not None else ""
        self.message.value = note(refused or state.message, error=bool(refused) or state.failed)
        reasons = []
        for action, button in self._buttons.items():
            reason = self._driver.why_not(action)
            button.disabled = reason is not None
            button.tooltip = reason or TIPS[action]
            if reason is not None:
                reasons.append(f"{button.description}: {reason}")
        resume = self._buttons[Action.RESUME]
        resume.description = "Start" if state.mode is Mode.NEW else "Resume"
        self.reasons.value = _reasons_html(reasons)

    def _button(
        self, action: Action, text: str, icon: str, ask: Callable[[], str | None], style: str = ""
    ) -> widgets.Button:
        button = widgets.Button(description=text, icon=icon, button_style=style, layout=_width("auto"))
        button.on_click(lambda _: self._asked(ask()))
        self._buttons[action] = button
        return button

    def _asked(self, refusal: str | None) -> None:
        state = self._driver.state
        self._refusal = None if refusal is None else (refusal, state)
        self.refresh(state)

    def _fork(self) -> str | None:
        name = self.fork_name.value.strip()
        if not name or Path(name).name != name or name.startswith("."):
            return "Give the fork a name without slashes, for example demo-lower-rate."
        try:
            overrides = _overrides(self.fork_settings.value)
        except ValueError as error:
            return str(error)
        return self._driver.fork(self.back_to.value, self._driver.state.run.parent / name, overrides)


def _same_situation(before: DriverState, now: DriverState) -> bool:
    """Whether a refusal still answers what is on the screen: nothing was started or ended since."""
    return (before.mode, before.doing, before.message) == (now.mode, now.doing, now.message)


TIPS = {
    Action.RESUME: "Load the model and bring the run to where it stands",
    Action.PHASE: "Do the phase that is due",
    Action.ROUND: "Do what is left of the round",
    Action.TRAIN: "Do this many rounds, with evaluations and checkpoints where they are due",
    Action.PAUSE: "Stop at the end of this phase and write a checkpoint",
    Action.STOP: "Stop at the next micro-batch and write a checkpoint",
    Action.CHECKPOINT: "Write a checkpoint now",
    Action.EVALUATE: "Evaluate on held-out problems",
    Action.CLOSE: "Release model and lock; the panels go on showing the run",
    Action.BACK: "Put the run back to how it was after this round; later rounds move to discarded/",
    Action.FORK: "Go on from this round in a new run beside this one",
}


def _overrides(text: str) -> dict[str, Any]:
    """Settings as `section.field: value`, separated by semicolons, nested.

    Raises:
        ValueError: not of this form.
    """
    found: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, separator, value = item.partition(":")
        if not separator or not name.strip():
            raise ValueError(f'"{item}" is no setting: write section.field: value, several with semicolons.')
        place = found
        *sections, leaf = name.strip().split(".")
        for section in sections:
            place = place.setdefault(section, {})
        try:
            place[leaf] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f'"{value.strip()}" cannot be read as a value of {name.strip()}.') from None
    return found


def _state_html(state: DriverState) -> str:
    parts = [f'<span class="spark-pill">{WORDS[state.mode]}</span>', f"<b>{html.escape(state.run.name)}</b>"]
    if state.rounds:
        parts.append(f"{state.completed} of {state.rounds} rounds done")
    if state.due and state.mode not in BUSY:
        parts.append(f"next: {html.escape(state.due)} of round {state.round}")
    if state.mode in BUSY:
        parts.append(html.escape(state.doing))
        parts.append(f"alive {_ago(state.heartbeat)}")
    if state.seconds_left is not None:
        parts.append(f"about {_duration(state.seconds_left)} left")
    return " &nbsp; ".join(parts)


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
