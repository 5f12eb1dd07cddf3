"""One cell of an experiment, in a process of its own: start or resume its run, train it, evaluate it at its end.

    python -m workbench.experiment.cell CONFIG.yaml RUN

It ends at once when its standard input closes, so that no cell outlives an experiment that was killed; what it had
written is what a resumed run needs. SIGTERM stops it at the next safe point.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from workbench.cli import BAD_INPUT, FAILED, INTERRUPTED, OK, settle_threads


def main(config_path: str, run_path: str) -> int:
    """Bring one run to its end; the exit code."""
    settle_threads()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from spark_kernel.config import load_config
    from spark_kernel.errors import InputError, SparkError
    from spark_kernel.training.interrupt import stops_on_signals
    from spark_kernel.training.lifecycle import resume_run, start_run
    from workbench.commands import quiet_transformers
    from workbench.reporting.console import make_console
    from workbench.reporting.terminal import Terminal

    quiet_transformers()
    run = Path(run_path)
    try:
        config = load_config(config_path)
        trainer = resume_run(run) if (run / "run.json").exists() else start_run(config, run)
        with trainer, Terminal(make_console()) as terminal:
            trainer.listeners.append(terminal)
            with stops_on_signals(trainer.stop.ask, (signal.SIGINT, signal.SIGTERM)):
                trainer.train()
                if not trainer.stopped and trainer.completed not in trainer.writer.evaluations():
                    trainer.evaluate()
            return INTERRUPTED if trainer.stopped else OK
    except SparkError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, InputError) else FAILED


def _end_with_parent() -> None:
    """Wait for the end of standard input, whose other end the experiment holds open and never writes to."""
    while os.read(0, 1):
        pass
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
