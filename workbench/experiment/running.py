"""The cells of an experiment run side by side, as many as cores and memory allow; what is done is not done again.

Each is a process of its own with its own log. One that fails is named and leaves the others alone; a later start takes
up whatever is not finished, however it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError, SparkError
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.layout import ROUNDS, list_evaluations, list_numbers
from spark_kernel.runs.lock import lock_is_held
from workbench.experiment.plan import Cell, Experiment
from workbench.settings.differences import differing

RUNS, CELLS, LOGS = "runs", "cells", "logs"
LIBRARIES = 700 * 2**20
"""What a process with torch and transformers takes before it has a model."""
POLL_SECONDS = 0.25
SAY_SECONDS = 15.0
"""Longest silence while cells run."""
LOCK_SECONDS = 30.0
"""How long a cell of an experiment that was just killed may take to let go of its run."""


class Outcome(StrEnum):
    """How a cell stands."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    """It was asked to stop, or not begun; the same command goes on with it."""


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell and how it stands. `detail`: of a failed one, the last line of its log."""

    cell: Cell
    outcome: Outcome
    detail: str = ""


@dataclass(slots=True)
class _Running:
    cell: Cell
    process: subprocess.Popen[bytes]


@dataclass(slots=True)
class Laboratory:
    """Runs an experiment's cells in a folder.

    Args:
        experiment: what is run.
        folder: its runs, logs and page; made where missing.
        jobs: cells side by side; None: as many as there are cores.
        say: shows a line.
        memory_free: bytes of main memory that are free now.
        needed: bytes that a cell needs.
    """

    experiment: Experiment
    folder: Path
    jobs: int | None = None
    say: Callable[[str], None] = print
    memory_free: Callable[[], int] = field(default_factory=lambda: _free_memory)
    needed: Callable[[RunConfig], int] = field(default_factory=lambda: _needed_memory)
    _stop: bool = False

    def check(self) -> None:
        """Refuse a folder whose runs were made with other settings.

        Raises:
            InputError: names the cell and the settings.
        """
        for cell in self.experiment.cells:
            run = self.run_of(cell)
            if not (run / "run.json").exists():
                continue
            given = cell.config
            other = {name: pair for name, pair in differing(given, read_config(run)).items() if pair[0] is not None}
            if other:
                name, (wanted, found) = next(iter(other.items()))
                raise InputError(
                    f"{run} was begun with other settings ({name} = {found}, now {wanted}"
                    + (f", and {len(other) - 1} more" if len(other) > 1 else "")
                    + "): choose another --out, or remove it."
                )

    def run_of(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.folder / RUNS / cell.name

    def log_of(self, cell: Cell) -> Path:
        """The log of a cell: all that it printed, of every start."""
        return self.folder / LOGS / f"{cell.name}.log"

    def is_finished(self, cell: Cell) -> bool:
        """Whether a cell has all its rounds and the evaluation after the last."""
        run, last = self.run_of(cell), cell.config.rounds
        return last in list_numbers(run / ROUNDS) and last in list_evaluations(run)

    def stop(self) -> None:
        """Ask every cell to stop at its next safe point, and begin no other; may be called from a signal handler."""
        self._stop = True

    def standing(self) -> tuple[CellResult, ...]:
        """How every cell stands, without running any."""
        return tuple(self._stands(cell, {}) for cell in self.experiment.cells)

    def run(self) -> tuple[CellResult, ...]:
        """Run whatever is not finished; how every cell stands, in their order.

        Raises:
            InputError: see `check`.
        """
        self.check()
        for name in (RUNS, CELLS, LOGS):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        waiting = [cell for cell in self.experiment.cells if not self.is_finished(cell)]
        ended: dict[str, CellResult] = {}
        running: list[_Running] = []
        done = len(self.experiment.cells) - len(waiting)
        if done:
            self.say(f"{done} of {len(self.experiment.cells)} cells are finished already.")
        said = time.monotonic()
        try:
            while running or (waiting and not self._stop):
                while waiting and not self._stop and self.has_room(waiting[0], [one.cell for one in running]):
                    running.append(self._start(waiting.pop(0)))
                if self._stop:
                    self._ask_to_stop(running)
                time.sleep(POLL_SECONDS)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    ended[one.cell.name] = self._ended(one)
                    self.say(self._line(ended[one.cell.name], len(waiting), running))
                    said = time.monotonic()
                if time.monotonic() - said >= SAY_SECONDS and running:
                    self.say(self._under_way(running, len(waiting)))
                    said = time.monotonic()
        finally:
            for one in running:
                one.process.kill()
                one.process.wait()
        return tuple(self._stands(cell, ended) for cell in self.experiment.cells)

    def has_room(self, cell: Cell, running: Sequence[Cell]) -> bool:
        """Whether a cell may begin beside those that run: for want of a core or of memory it waits.

        One alone always may, else nothing ever would; it says itself what it lacks.
        """
        if not running:
            return True
        # A run trains, or has its verifiers work: never both at once.
        busy = max(cell.config.threads or 1, cell.config.verify.workers)
        jobs = self.jobs if self.jobs is not None else max(1, usable_cores() // busy)
        if len(running) >= jobs:
            return False
        # Those that began a moment ago have not taken yet what they will need.
        begun = sum(self.needed(one.config) for one in running if not self._has_rounds(one))
        return self.memory_free() > self.needed(cell.config) + begun

    def _has_rounds(self, cell: Cell) -> bool:
        return bool(list_numbers(self.run_of(cell) / ROUNDS))

    def _start(self, cell: Cell) -> _Running:
        self._wait_for_lock(cell)
        config = self.folder / CELLS / f"{cell.name}.yaml"
        config.write_text(cell.config.to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "workbench.experiment.cell", str(config), str(self.run_of(cell))]
        threads = str(cell.config.threads or 1)
        with self.log_of(cell).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches the experiment, which asks every cell to stop.
                start_new_session=True,
                env=dict(os.environ) | {"OMP_NUM_THREADS": threads, "PYTHONPATH": _import_path()},
            )
        return _Running(cell, process)

    def _wait_for_lock(self, cell: Cell) -> None:
        run, until = self.run_of(cell), time.monotonic() + LOCK_SECONDS
        while (run / "run.json").exists() and lock_is_held(run) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)

    def _ask_to_stop(self, running: Sequence[_Running]) -> None:
        for one in running:
            if one.process.stdin is not None and one.process.poll() is None:
                one.process.send_signal(signal.SIGTERM)
        while any(one.process.poll() is None for one in running):
            time.sleep(POLL_SECONDS)

    def _ended(self, one: _Running) -> CellResult:
        if one.process.stdin is not None:
            one.process.stdin.close()
        if one.process.returncode == 0 and self.is_finished(one.cell):
            return CellResult(one.cell, Outcome.FINISHED)
        if self._stop:
            return CellResult(one.cell, Outcome.STOPPED)
        return CellResult(one.cell, Outcome.FAILED, self._why(one))

    def _why(self, one: _Running) -> str:
        code = one.process.returncode
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = self.log_of(one.cell).read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last[:300]}" if last else how

    def _stands(self, cell: Cell, ended: dict[str, CellResult]) -> CellResult:
        if self.is_finished(cell):
            return CellResult(cell, Outcome.FINISHED)
        return ended.get(cell.name, CellResult(cell, Outcome.STOPPED))

    def _line(self, result: CellResult, waiting: int, running: Sequence[_Running]) -> str:
        detail = f" ({result.detail})" if result.detail else ""
        return f"{result.cell.name} {result.outcome}{detail}; {len(running)} running, {waiting} waiting"

    def _under_way(self, running: Sequence[_Running], waiting: int) -> str:
        stands = []
        for one in running:
            rounds = list_numbers(self.run_of(one.cell) / ROUNDS)
            stands.append(f"{one.cell.name} round {rounds[-1] if rounds else 0}/{one.cell.config.rounds}")
        return f"running: {', '.join(stands)}; {waiting} waiting"


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _import_path() -> str:
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


def _free_memory() -> int:
    import torch

    from spark_kernel.models.memory import free_bytes

    return free_bytes(torch.device("cpu"))


def _needed_memory(config: RunConfig) -> int:
    """At the least: the preflight's estimate and the libraries; a quantized model's is not known.

    A model that cannot be had or does not fit is the cell's own failure, which it will say itself.
    """
    from spark_kernel.models.preflight import check_memory
    from spark_kernel.rollout.memory_use import memory_demand

    try:
        preflight = check_memory(config.model, memory_demand(config))
    except SparkError:
        return LIBRARIES
    return LIBRARIES + (0 if preflight is None else preflight.estimate.needed)
