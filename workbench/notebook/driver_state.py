"""What can be asked of a driver, what it is at, and the snapshot in which it says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Action(StrEnum):
    """What a person can ask for."""

    RESUME = "resume"
    """Take hold of a run that is on disk, or go on where it stands."""
    PHASE = "phase"
    """Do the phase that is due."""
    ROUND = "round"
    """Do what is left of the round."""
    TRAIN = "train"
    """Do some rounds, or all that are configured."""
    EVALUATE = "evaluate"
    """Evaluate on held-out problems."""
    CHECKPOINT = "checkpoint"
    """Write a checkpoint now."""
    PAUSE = "pause"
    """Stop at the end of this phase."""
    STOP = "stop"
    """Stop at the next micro-batch and write a checkpoint."""
    BACK = "back"
    """Put the run back to how it was after a round."""
    UNDO = "undo"
    """Bring back what going back took away."""
    FORK = "fork"
    """Go on from a round in a new run."""
    CLOSE = "close"
    """Let the run go: others may write it."""


class Mode(StrEnum):
    """What the worker is at."""

    NEW = "new"
    """A configuration, and no run folder yet."""
    WATCHING = "watching"
    """The run is read from disk; nobody here writes it."""
    WORKING = "working"
    """A command is being carried out."""
    STOPPING = "stopping"
    """The same, with a stop or a pause asked for."""
    READY = "ready"
    """The trainer is held and waits for a command."""
    ENDED = "ended"
    """The worker thread is gone."""


@dataclass(frozen=True, slots=True)
class DriverState:
    """A snapshot of what the worker does.

    `run`: the run folder. `doing`: the command under way, in words. `due`: the phase that comes next. `round`: the
    round in flight; `completed`: rounds completed; `rounds`: where the present training ends. `phase`, `done`,
    `total`: progress of the phase under way. `heartbeat`: `time.time()` of the newest sign of life. `seconds_left`:
    estimate for the present command from its finished rounds. `message`: the last outcome in a sentence;
    `failed`: whether that was an error. `serial` grows with every snapshot, `written` with every change on disk.
    """

    run: Path
    mode: Mode
    doing: str = ""
    due: str = ""
    round: int = 0
    completed: int = 0
    rounds: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    heartbeat: float = 0.0
    seconds_left: float | None = None
    message: str = ""
    failed: bool = False
    serial: int = 0
    written: int = 0


BUSY = (Mode.WORKING, Mode.STOPPING)
