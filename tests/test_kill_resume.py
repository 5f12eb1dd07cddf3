"""SIGKILL at any instant, then resume: the run ends equal to an uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spark_kernel.lifecycle import resume_run, start_run
from tests.helpers.runs import fingerprint, tiny_config

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def uninterrupted(base: Path) -> dict[str, object]:
    with start_run(tiny_config(base), base / "finished") as trainer:
        trainer.train()
    return fingerprint(base / "finished")


def killed(base: Path, out: Path, where: str, count: int) -> bool:
    """Train in a process of its own that kills itself; whether it did before it was done."""
    command = [sys.executable, "-m", "tests.helpers.kill_target", str(base), str(out), where, str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()[-2000:]
    return done.returncode != 0


@pytest.mark.parametrize("where", ["fsync", "event"])
def test_killed_several_times_and_resumed(
    base: Path, uninterrupted: dict[str, object], tmp_path: Path, where: str
) -> None:
    """One run, killed again and again wherever it has got to, each time in a fresh process."""
    points = random.Random(where)
    kills = 0
    for _ in range(4):
        kills += killed(base, tmp_path / "run", where, points.randint(15, 70))
    assert kills == 4
    with resume_run(tmp_path / "run") as trainer:
        trainer.train()
    assert fingerprint(tmp_path / "run") == uninterrupted


@pytest.mark.parametrize("count", [95, 101, 107, 113])
def test_killed_while_writing_around_a_checkpoint(
    base: Path, uninterrupted: dict[str, object], tmp_path: Path, count: int
) -> None:
    assert killed(base, tmp_path / "run", "fsync", count)
    with resume_run(tmp_path / "run") as trainer:
        trainer.train()
    assert fingerprint(tmp_path / "run") == uninterrupted
