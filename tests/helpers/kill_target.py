"""A process that trains a tiny run and kills itself with SIGKILL at a chosen write or event. Run as a module.

    python -m tests.helpers.kill_target BASE OUT WHERE COUNT [CHANGES]

CHANGES are settings of the run as JSON, with double underscores. WHERE and what COUNT counts:
    fsync            fsyncs of the whole process, so also those in the middle of writing a round or a phase.
    checkpoint@K     fsyncs while the checkpoint after round K is written.
    evaluate@K       events of the held-out evaluation after round K.
    PERIOD/PHASE     events of a phase (its start is the first; then its progress, as between micro-batches); of round
                     K alone as PERIOD/PHASE@K.

The kill comes just before the fsync, or in the listener that the event is given to.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.events import Event
from spark_kernel.training.lifecycle import resume_run, start_run
from tests.helpers.runs import tiny_config
from tests.helpers.warm import run_module

ROOT = Path(__file__).parent.parent.parent


def killed(base: Path, out: Path, where: str, count: int, changes: Mapping[str, Any] | None = None) -> bool:
    """Train in a process of its own that kills itself; whether it did before it was done."""
    arguments = [str(base), str(out), where, str(count), json.dumps(changes or {})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = run_module("tests.helpers.kill_target", arguments, cwd=ROOT, environment=environment, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
    return done.returncode != 0


class Bomb:
    """Counts calls and kills the process at the last."""

    def __init__(self, count: int) -> None:
        self.left = count

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(base: str, out: str, where: str, count: str, changes: str = "{}") -> None:
    bomb = Bomb(int(count))
    where, _, at = where.partition("@")
    armed = where == "fsync"
    fsync, write_checkpoint = os.fsync, RunWriter.write_checkpoint

    def counted_fsync(descriptor: Any) -> None:
        if armed:
            bomb.tick()
        fsync(descriptor)

    def listen(event: Event) -> None:
        phase = event.phase or ""
        if at in ("", str(event.round)) and where in (f"{event.period}/{phase}", phase.partition(" ")[0]):
            bomb.tick()

    def armed_write(writer: RunWriter, name: str, *args: Any, **kwargs: Any) -> Path:
        nonlocal armed
        armed = armed or (where == "checkpoint" and int(name) == int(at))
        return write_checkpoint(writer, name, *args, **kwargs)

    os.fsync = counted_fsync
    RunWriter.write_checkpoint = armed_write  # type: ignore[method-assign]
    exists = (Path(out) / "run.json").exists()
    trainer = resume_run(out) if exists else start_run(tiny_config(Path(base), **json.loads(changes)), out)
    trainer.listeners.append(listen)
    with trainer:
        trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
