"""SIGKILL at any instant, then resume: the run ends equal to an uninterrupted one, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from spark_kernel.training.lifecycle import resume_run, start_run
from tests.helpers.kill_target import killed
from tests.helpers.runs import fingerprint, tiny_config

pytestmark = pytest.mark.slow
PHASES = ("roll_out", "verify", "recycle", "update")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def uninterrupted(base: Path) -> dict[str, object]:
    with start_run(tiny_config(base), base / "finished") as trainer:
        trainer.train()
    return fingerprint(base / "finished")


def killed_and_resumed(base: Path, run: Path, points: list[tuple[str, int]]) -> dict[str, object]:
    """One run, killed at each point in turn, each time in a fresh process; what it is when it has been resumed."""
    for where, count in points:
        assert killed(base, run, where, count), f"{where} {count} never came"
    with resume_run(run) as trainer:
        trainer.train()
    return fingerprint(run)


def test_killed_at_random_writes(base: Path, uninterrupted: dict[str, object], tmp_path: Path) -> None:
    points = random.Random("writes")
    drawn = [("fsync", points.randint(15, 70)) for _ in range(4)]
    assert killed_and_resumed(base, tmp_path / "run", drawn) == uninterrupted


def test_killed_at_a_random_point_of_every_phase(base: Path, uninterrupted: dict[str, object], tmp_path: Path) -> None:
    """Recycling is one piece of work, killed at its start; the other phases at their start or in their midst."""
    points = random.Random("phases")
    phases = [f"{period}/{phase}" for period in ("policy", "reward") for phase in PHASES]
    places = ["evaluate@0", *phases, "evaluate@4"]
    drawn = [(where, 1 if where.endswith("recycle") else points.randint(1, 3)) for where in places]
    assert killed_and_resumed(base, tmp_path / "run", drawn) == uninterrupted


def test_killed_while_a_checkpoint_is_written(base: Path, uninterrupted: dict[str, object], tmp_path: Path) -> None:
    """Before its first file is safe, in its midst, and when no round is left: the resumed run writes it after all."""
    drawn = [("checkpoint@2", 1), ("checkpoint@2", 6), ("checkpoint@4", 3)]
    assert killed_and_resumed(base, tmp_path / "run", drawn) == uninterrupted
