"""The `workbench` command in a process of its own (`tests.helpers.warm`), as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.warm import run_module

COMMAND = [sys.executable, "-m", "workbench"]
TIMEOUT = 300


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, one thread for each library, and a wide terminal-less output."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **extra}


def workbench(*arguments: str | Path, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; nothing is checked."""
    return run_module(
        "workbench",
        [*map(str, arguments)],
        cwd=cwd,
        environment=environment(PYTHONPATH=str(Path(__file__).parents[2]), **extra),
        timeout=TIMEOUT,
    )


def tiny_flags(model: Path) -> list[str]:
    """Settings under which a round takes a fraction of a second. The random model is right about nothing."""
    settings = {
        "model.path": model,
        "problems.per_round": 4,
        "rollout.samples": 4,
        "rollout.max_new_tokens": 16,
        "rollout.verdict_max_new_tokens": 16,
        "rollout.max_prompt_tokens": 1500,
        "evaluation.problems": 4,
        "evaluation.samples": 2,
        "threads": 1,
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]
