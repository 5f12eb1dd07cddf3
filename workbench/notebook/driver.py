"""One worker thread that owns a trainer; everybody else asks it to do things and looks at what it is doing.

A button's callback may run on the main thread or, in mid-cell, on another one. So a request only looks at the newest
state, queues a command or sets a flag, and returns at once. The state is an immutable snapshot, replaced as a whole.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError, RunFolderError, SparkError, Stopped
from spark_kernel.training.events import Event
from workbench.notebook.driver_state import BUSY, Action, DriverState, Mode

if TYPE_CHECKING:
    from spark_kernel.training.trainer import Trainer


logger = logging.getLogger(__name__)
WRITES = {"phase_finished", "round_finished", "evaluation_finished", "checkpoint_written"}


class Driver:
    """Carries out commands on a run, one after the other, on a thread of its own.

    Args:
        run: the run's folder; need not exist where a configuration is given.
        config: for a new run.
    """

    def __init__(self, run: str | Path, config: RunConfig | None = None) -> None:
        path = Path(run).absolute()
        self._state = DriverState(path, Mode.WATCHING if config is None else Mode.NEW, heartbeat=time.time())
        self._config = config
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._commands: queue.SimpleQueue[tuple[str, Callable[[], str]] | None] = queue.SimpleQueue()
        self._trainer: Trainer | None = None
        self._finished_rounds: list[float] = []
        self._thread: threading.Thread | None = None
        self._wanted: Action | None = None

    # --- to look at, from any thread

    @property
    def state(self) -> DriverState:
        """The newest snapshot."""
        return self._state

    @property
    def config(self) -> RunConfig | None:
        """The configuration of a run that was not started yet, or of the trainer that is held."""
        return self._trainer.config if self._trainer is not None else self._config

    def why_not(self, action: Action) -> str | None:
        """Why an action is impossible now, in a sentence; None where it is possible."""
        state = self._state
        if state.mode is Mode.ENDED:
            return "This panel was closed: open the run again."
        if action in (Action.STOP, Action.PAUSE):
            if state.mode is Mode.WORKING or (state.mode is Mode.STOPPING and action is Action.STOP):
                return None
            return "A pause is on its way." if state.mode is Mode.STOPPING else "Nothing is being done."
        if state.mode in BUSY:
            return f"Busy: {state.doing}. Stop it first."
        if state.mode is Mode.WATCHING and not _exists(state.run):
            return f"There is no run at {state.run}: check the name, or start one there."
        if action in (Action.BACK, Action.UNDO, Action.FORK) and state.mode is Mode.NEW:
            return "The run has no folder yet: start it first."
        if action is Action.RESUME and state.mode is Mode.READY:
            return "The run is held already."
        if action is Action.CLOSE and self._trainer is None:
            return "The run is not held by this panel."
        if action is Action.CHECKPOINT and self._trainer is None:
            return "The run is not held by this panel: resume it first."
        if action is Action.EVALUATE and self._trainer is not None and self._trainer.state.flight.stage:
            return "Evaluation comes between rounds: finish the round first."
        return None

    def wait(self, until: Callable[[DriverState], bool], timeout: float | None = None) -> DriverState:
        """Block until a snapshot satisfies a condition, or the seconds are over; the newest snapshot."""
        with self._changed:
            self._changed.wait_for(lambda: until(self._state), timeout)
            return self._state

    # --- to ask, from any thread; every request returns at once with a sentence if it is refused

    def start(self, config: RunConfig) -> str | None:
        """Replace the configuration of a run that has no folder yet."""
        if self._state.mode is not Mode.NEW:
            return "The run has begun: fork it to change its settings."
        self._config = config
        self._replace(message="", failed=False)
        return None

    def resume(self) -> str | None:
        """Take hold of the run: load its model and bring it to where it stands; start it if it is new."""
        return self._ask(Action.RESUME, "loading the model", self._hold_sentence)

    def phase(self) -> str | None:
        """Do the phase that is due."""
        return self._ask(Action.PHASE, "the next phase", self._one_phase)

    def round(self) -> str | None:
        """Do what is left of the round."""
        return self._ask(Action.ROUND, "the rest of the round", self._one_round)

    def train(self, rounds: int | None = None) -> str | None:
        """Do `rounds` rounds; None: all that are configured."""
        if rounds is not None and rounds < 1:
            return f"{rounds} rounds are refused: at least 1."
        doing = "all configured rounds" if rounds is None else "1 round" if rounds == 1 else f"{rounds} rounds"
        return self._ask(Action.TRAIN, doing, lambda: self._train(rounds))

    def evaluate(self) -> str | None:
        """Evaluate on held-out problems."""
        return self._ask(Action.EVALUATE, "held-out evaluation", self._evaluate)

    def checkpoint(self) -> str | None:
        """Write a checkpoint now."""
        return self._ask(Action.CHECKPOINT, "writing a checkpoint", self._checkpoint)

    def go_back(self, round: int) -> str | None:
        """Put the run back to how it was after a round; later rounds move to its folder `discarded/`."""
        return self._ask(Action.BACK, f"going back to round {round}", lambda: self._go_back(round))

    def undo_back(self) -> str | None:
        """Bring back what the last going back took away."""
        return self._ask(Action.UNDO, "bringing rounds back", self._undo_back)

    def fork(self, round: int | None, path: str | Path, overrides: Mapping[str, Any] | None = None) -> str | None:
        """Go on from a round in a new run, which this driver then holds."""
        where = Path(path).absolute()
        return self._ask(Action.FORK, f"forking to {where.name}", lambda: self._fork(round, where, overrides))

    def close(self) -> str | None:
        """Let the run go; it stays open to be looked at."""
        return self._ask(Action.CLOSE, "letting the run go", self._let_go)

    def stop(self) -> str | None:
        """Stop at the next micro-batch; a checkpoint is written."""
        return self._interrupt(Action.STOP, "Stopping at the next micro-batch.")

    def pause(self) -> str | None:
        """Stop at the end of this phase."""
        return self._interrupt(Action.PAUSE, "Pausing at the end of this phase.")

    def end(self, timeout: float | None = 60.0) -> None:
        """Stop what is under way, let the run go and end the thread. Calling it twice is fine."""
        with self._lock:
            if self._state.mode is Mode.ENDED:
                return
            if self._trainer is not None:
                self._trainer.stop.ask()
            thread = self._thread
            self._commands.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        if thread is None:
            self._replace(mode=Mode.ENDED, doing="")

    # --- the worker

    def _ask(self, action: Action, doing: str, work: Callable[[], str]) -> str | None:
        with self._lock:
            refusal = self.why_not(action)
            if refusal is not None:
                return refusal
            self._replace(mode=Mode.WORKING, doing=doing, message="", failed=False, phase="", done=0, total=0)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name=f"run {self._state.run.name}", daemon=True)
                self._thread.start()
            self._commands.put((doing, work))
        return None

    def _interrupt(self, action: Action, message: str) -> str | None:
        with self._lock:
            refusal = self.why_not(action)
            if refusal is not None:
                return refusal
            self._wanted = action
            self._pass_on_request()
            self._replace(mode=Mode.STOPPING, message=message)
        return None

    def _work(self) -> None:
        while (command := self._commands.get()) is not None:
            self._finished_rounds.clear()
            try:
                message, failed = command[1](), False
            except Stopped:
                message, failed = self._after_stop(), False
            except (SparkError, OSError) as error:
                message, failed = " ".join(str(error).split()), True
            except Exception as error:  # the thread must live on to say so; the run on disk is whole
                logger.exception("%s failed", command[0])
                self._drop("failed")
                message, failed = (
                    f"{type(error).__name__}: {' '.join(str(error).split())} Resume goes on from disk.",
                    True,
                )
            self._settle(message, failed)
        self._drop("stopped")
        self._replace(mode=Mode.ENDED, doing="", message="Closed.")

    def _settle(self, message: str, failed: bool) -> None:
        with self._lock:
            trainer = self._trainer
            self._wanted = None
            if trainer is not None:
                trainer.stop.clear()
                trainer.pause.clear()
            idle = Mode.READY if trainer is not None else Mode.NEW if self._is_new() else Mode.WATCHING
            self._replace(mode=idle, doing="", message=message, failed=failed, seconds_left=None, **self._where())

    def _hold(self) -> Trainer:
        """The trainer, taken hold of if need be."""
        if self._trainer is not None:
            return self._trainer
        from spark_kernel.training.lifecycle import resume_run, start_run

        run = self._state.run
        if self._is_new():
            if self._config is None:
                raise RunFolderError(f"There is no run at {run}: give a configuration to start one.")
            trainer = start_run(self._config, run, listeners=[self._listen])
        else:
            trainer = resume_run(run, listeners=[self._listen])
        self._take(trainer)
        return trainer

    def _take(self, trainer: Trainer) -> None:
        with self._lock:
            self._trainer = trainer
            self._pass_on_request()
            self._replace(run=trainer.writer.path, written=self._state.written + 1, **self._where())

    def _pass_on_request(self) -> None:
        """Tell the trainer of a stop or a pause; one that came while the model was being loaded waits until now."""
        if self._trainer is not None and self._wanted is not None:
            (self._trainer.stop if self._wanted is Action.STOP else self._trainer.pause).ask()
            self._wanted = None

    def _hold_sentence(self) -> str:
        trainer = self._hold()
        return f"Ready after round {trainer.completed}: {trainer.due} is due."

    def _one_phase(self) -> str:
        trainer = self._hold()
        due = trainer.due
        trainer.step()
        return f"Done: {due}. Next: {trainer.due}."

    def _one_round(self) -> str:
        trainer = self._hold()
        trainer.finish_round()
        return f"Done: round {trainer.completed}. Next: {trainer.due}."

    def _train(self, rounds: int | None) -> str:
        trainer = self._hold()
        if rounds is None and trainer.completed >= trainer.config.rounds:
            raise InputError(
                f"All {trainer.config.rounds} configured rounds are done: say how many more, or fork the run."
            )
        trainer.train(rounds)
        if trainer.stopped:
            return self._stop_sentence(trainer)
        return f"Trained to the end of round {trainer.completed}."

    def _evaluate(self) -> str:
        trainer = self._hold()
        if trainer.completed in trainer.writer.evaluations():
            raise InputError(f"Round {trainer.completed} has an evaluation already.")
        trainer.evaluate()
        return f"Evaluated after round {trainer.completed}."

    def _checkpoint(self) -> str:
        return f"Checkpoint {self._hold().checkpoint().name} is written."

    def _go_back(self, round: int) -> str:
        from spark_kernel.training.lifecycle import check_back, go_back

        run = self._state.run
        check_back(run, round)  # before the run that is held is let go
        self._drop("stopped")
        self._take(go_back(run, round, listeners=[self._listen]))
        return f"The run stands after round {round}; later rounds are in its folder discarded/."

    def _undo_back(self) -> str:
        from spark_kernel.training.lifecycle import check_undo, undo_back

        run = self._state.run
        check_undo(run)  # before the run that is held is let go
        self._drop("stopped")
        trainer = undo_back(run, listeners=[self._listen])
        self._take(trainer)
        return f"The run stands after round {trainer.completed} again."

    def _fork(self, round: int | None, path: Path, overrides: Mapping[str, Any] | None) -> str:
        from spark_kernel.training.lifecycle import check_fork, fork_run

        source = self._state.run
        check_fork(source, round, path, overrides)  # before the run that is held is let go
        self._drop("stopped")
        trainer = fork_run(source, round, path, overrides, listeners=[self._listen])
        self._take(trainer)
        return f"{path.name} goes on from {source.name} after round {trainer.completed}."

    def _let_go(self) -> str:
        self._drop("stopped")
        return "The run is free: others may write it."

    def _after_stop(self) -> str:
        """A stop outside of `train`, which writes its own checkpoint."""
        trainer = self._trainer
        if trainer is None:
            return "Stopped."
        trainer.checkpoint()
        return self._stop_sentence(trainer)

    def _stop_sentence(self, trainer: Trainer) -> str:
        return f"Stopped in round {trainer.state.flight.round}, {trainer.due} is due; a checkpoint is written."

    def _drop(self, outcome: str) -> None:
        with self._lock:
            trainer, self._trainer = self._trainer, None
        if trainer is not None:
            if outcome == "failed":
                trainer.__exit__(RuntimeError, RuntimeError("the worker failed"), None)
            else:
                trainer.close()
            self._replace(written=self._state.written + 1)

    def _is_new(self) -> bool:
        return not _exists(self._state.run)

    def _where(self) -> dict[str, Any]:
        trainer = self._trainer
        if trainer is None:
            return {}
        return {
            "due": str(trainer.due),
            "round": trainer.state.flight.round,
            "completed": trainer.completed,
            "rounds": trainer.config.rounds,
        }

    def _listen(self, event: Event) -> None:
        """A trainer's event, on the worker thread."""
        changes: dict[str, Any] = {"phase": (event.phase or "").replace("_", " "), "round": event.round}
        if event.name == "run_started":
            self._finished_rounds[:] = [time.monotonic()]
            changes["rounds"] = int(event.data["rounds"])
        elif event.name == "progress":
            changes |= {"done": event.done, "total": event.total}
        elif event.name == "phase_started":
            changes |= {"done": 0, "total": 0}
        elif event.name == "round_finished":
            self._finished_rounds.append(time.monotonic())
            changes |= {"completed": event.round, "seconds_left": self._seconds_left(event.round)}
        if event.name in WRITES:
            changes["written"] = self._state.written + 1
        self._replace(**changes)

    def _seconds_left(self, completed: int) -> float | None:
        times = self._finished_rounds[-11:]
        if len(times) < 2:
            return None
        return (self._state.rounds - completed) * (times[-1] - times[0]) / (len(times) - 1)

    def _replace(self, **changes: Any) -> None:
        with self._changed:
            self._state = replace(self._state, **changes, heartbeat=time.time(), serial=self._state.serial + 1)
            self._changed.notify_all()


def _exists(run: Path) -> bool:
    return (run / "run.json").exists()
