"""A process that trains a tiny run and kills itself with SIGKILL at a chosen write or event. Run as a module.

    python -m tests.helpers.kill_target BASE OUT fsync|event COUNT

"fsync": just before the count-th fsync, so also in the middle of writing a checkpoint, a round or a phase.
"event": at the count-th event, so in every phase, between micro-batches included.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from spark_kernel.lifecycle import resume_run, start_run
from tests.helpers.runs import tiny_config


class Bomb:
    """Counts calls and kills the process at the last."""

    def __init__(self, count: int) -> None:
        self.left = count

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(base: str, out: str, where: str, count: str) -> None:
    bomb = Bomb(int(count))
    fsync = os.fsync

    def counted_fsync(descriptor: Any) -> None:
        bomb.tick()
        fsync(descriptor)

    if where == "fsync":
        os.fsync = counted_fsync
    exists = (Path(out) / "run.json").exists()
    trainer = resume_run(out) if exists else start_run(tiny_config(Path(base)), out)
    if where == "event":
        trainer.listeners.append(lambda _event: bomb.tick())
    with trainer:
        trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
