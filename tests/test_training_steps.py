"""What reaches the optimizer in a real run, seen by PyTorch's own hook; and phases that fail and are called again.

Nothing here looks into learner or trainer: runs are started, stopped, failed and read back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from spark_kernel.config import RunConfig
from spark_kernel.errors import RunFolderError, Stopped
from spark_kernel.records import UpdateStats
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import fingerprint, tiny_config

pytestmark = pytest.mark.slow

PEAK, FLOOR, WARMUP = 2e-3, 0.25, 0.2
SMALL = 1e-3
"""A norm below that of any gradient here."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@contextmanager
def seen_by_the_optimizer() -> Iterator[list[tuple[float, float]]]:
    """Learning rate and norm of the whole gradient of every optimizer step taken meanwhile."""
    steps: list[tuple[float, float]] = []

    def note(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        steps.append((float(rate), math.sqrt(sum(float(g.double().square().sum()) for g in gradients))))

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield steps
    finally:
        handle.remove()


def trained(config: RunConfig, run: Path) -> tuple[list[tuple[float, float]], list[UpdateStats]]:
    with seen_by_the_optimizer() as steps, start_run(config, run) as trainer:
        reports = trainer.train()
    return steps, [update for report in reports for update in report.updates]


def config_of(base: Path, **overrides: Any) -> RunConfig:
    """24 sequences a period in two optimizer steps, so four are planned a round; a linear schedule."""
    settings = {
        "evaluation__every": 0,
        "learner__schedule": "linear",
        "learner__learning_rate": PEAK,
        "learner__floor_share": FLOOR,
        "learner__warmup_share": WARMUP,
    }
    return tiny_config(base, **(settings | overrides))


def planned_rate(step: int, horizon: int) -> float:
    """Oracle: up in equal parts over the warm-up, then straight down to the floor."""
    warmup = math.ceil(WARMUP * horizon)
    if step < warmup:
        return PEAK * (step + 1) / warmup
    return PEAK - (PEAK - FLOOR * PEAK) * (step - warmup) / (horizon - warmup)


def test_every_optimizer_step_has_its_own_rate_and_a_clipped_gradient(base: Path, tmp_path: Path) -> None:
    rounds = 3
    steps, updates = trained(config_of(base, rounds=rounds, learner__max_grad_norm=SMALL), tmp_path / "run")
    assert len(steps) == sum(update.optimizer_steps for update in updates) > 2 * rounds
    assert [rate for rate, _ in steps] == pytest.approx([planned_rate(i, 4 * rounds) for i in range(len(steps))])
    done = 0
    for update in updates:  # the rate of an update is that of its last step
        done += update.optimizer_steps
        assert update.learning_rate == pytest.approx(planned_rate(done - 1, 4 * rounds))
    assert [norm for _, norm in steps] == pytest.approx([SMALL] * len(steps), rel=1e-3)
    assert all(update.grad_norm > 2 * SMALL for update in updates)  # as it was before


def test_a_gradient_below_the_bound_is_left_as_it_is_and_its_norm_is_reported(base: Path, tmp_path: Path) -> None:
    steps, updates = trained(config_of(base, rounds=1, learner__max_grad_norm=1e6), tmp_path / "run")
    norms = iter(norm for _, norm in steps)
    for update in updates:
        own = [next(norms) for _ in range(update.optimizer_steps)]
        assert update.grad_norm == pytest.approx(sum(own) / len(own), rel=1e-5)


# Phases that are called again -----------------------------------------------------------------------------------------


def queueing(base: Path, **overrides: Any) -> RunConfig:
    """Two rounds that leave tasks waiting, too old in the next: what is taken or dropped twice shows."""
    small = {"judge_quota": 2, "reflection_quota": 1, "mixed_pairwise_share": 0.7, "max_age": 0}
    return tiny_config(base, rounds=2, evaluation__every=0, recycle=small, **overrides)


@pytest.fixture(scope="module")
def undisturbed(base: Path) -> dict[str, Any]:
    with start_run(queueing(base), base / "undisturbed") as trainer:
        trainer.train()
    reader = RunReader(base / "undisturbed")
    assert reader.report(1).queue_length >= 3
    assert reader.report(2).exclusions["queue/too_old"] >= 3
    return fingerprint(base / "undisturbed")


def test_a_stop_while_recycled_tasks_are_sampled_puts_them_back(
    base: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with start_run(queueing(base), tmp_path / "run") as trainer:
        trainer.train(rounds=1)
        for _ in range(4):
            trainer.step()
        for _ in range(3):
            trainer.stop.ask()
            with pytest.raises(Stopped):
                trainer.roll_out()
        trainer.train()
    assert fingerprint(tmp_path / "run") == undisturbed


def fails_once(monkeypatch: pytest.MonkeyPatch, place: tuple[int, str, str]) -> list[tuple[int, str, str]]:
    """Have the journal refuse a phase (round, period, phase) the first time, as a full disk would."""
    record, refused = RunWriter.record_phase, []

    def record_phase(self: RunWriter, round: int, index: int, period: str, phase: str, records: Any) -> None:
        if (round, period, phase) == place and not refused:
            refused.append(place)
            raise RunFolderError("the disk is full")
        record(self, round, index, period, phase, records)

    monkeypatch.setattr(RunWriter, "record_phase", record_phase)
    return refused


@pytest.mark.parametrize("place", [(2, "policy", "recycle"), (2, "reward", "roll_out"), (2, "reward", "update")])
def test_a_phase_that_could_not_be_recorded_is_repeated_as_if_it_were_the_first_time(
    base: Path,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[int, str, str],
) -> None:
    """Its exclusions are counted once, its tasks are added to the queue or taken from it once, its update made once."""
    refused = fails_once(monkeypatch, place)
    with start_run(queueing(base), tmp_path / "run") as trainer:
        with pytest.raises(RunFolderError, match="disk is full"):
            trainer.train()
        trainer.train()
    assert refused == [place]
    assert fingerprint(tmp_path / "run") == undisturbed


def test_what_a_failed_phase_noted_is_noted_once(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = fails_once(monkeypatch, (1, "reward", "roll_out"))
    config = tiny_config(base, rounds=1, evaluation__every=0, recycle__minimum=1000, recycle__max_age=None)
    with start_run(config, tmp_path / "run") as trainer:
        with pytest.raises(RunFolderError, match="disk is full"):
            trainer.train()
        (report,) = trainer.train()
    assert refused
    assert [note for note in report.notes if "No reward period" in note] == list(report.notes)
    assert len(report.notes) == 1
