"""How many threads a run computes with: the rule, the measurement, and that the number stays with the run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from spark_kernel.models import thread_choice
from spark_kernel.models.policy import load_policy
from spark_kernel.models.thread_choice import choose_threads, fastest, measure, thread_counts
from spark_kernel.runs.configuration import read_config
from spark_kernel.training.lifecycle import resume_run, start_run
from tests.helpers.runs import tiny_config


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_more_threads_only_where_they_gain_enough() -> None:
    assert fastest({1: 1.0, 2: 0.8}) == 2
    assert fastest({1: 1.0, 2: 0.97}) == 1
    assert fastest({1: 1.0, 2: 4.0}) == 1
    assert fastest({1: 1.0, 2: 0.6, 4: 0.58, 6: 0.5}) == 6
    assert fastest({1: 1.0, 2: 0.6, 4: 0.58}) == 2


def test_the_numbers_that_are_tried() -> None:
    tried = {1: [1], 2: [1, 2], 3: [1, 2, 3], 8: [1, 2, 4, 8], 12: [1, 2, 4, 8, 12]}
    assert {most: thread_counts(most) for most in tried} == tried


class Clock:
    """Time that passes as fast as a turn says: a neighbour who takes ten times as long in the middle of it all."""

    def __init__(self, costs: Callable[[int], float]) -> None:
        self.now, self.turns, self.costs = 0.0, 0, costs

    def __call__(self) -> float:
        return self.now

    def turn(self) -> None:
        self.turns += 1
        slow = 10.0 if 8 <= self.turns < 14 else 1.0
        self.now += slow * self.costs(torch.get_num_threads())


def test_turns_rotate_so_that_a_neighbour_s_moment_falls_on_all_alike() -> None:
    clock = Clock(lambda threads: 0.01 if threads == 2 else 0.02)
    found = measure(clock.turn, [1, 2], clock)
    assert found == pytest.approx({1: 0.02, 2: 0.01})
    assert clock.turns == 2 * (1 + thread_choice.MOST_TURNS)


def test_a_slow_model_is_measured_a_few_times_only() -> None:
    clock = Clock(lambda threads: 5.0)
    measure(clock.turn, [1, 2], clock)
    assert clock.turns == 2 * (1 + thread_choice.LEAST_TURNS)


def test_the_measurement_leaves_weights_gradients_and_random_numbers_as_they_were(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    policy = load_policy(config.model)
    before = {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}
    state = torch.random.get_rng_state()
    choice = choose_threads(policy, 2)
    assert set(choice.seconds) == {1, 2}
    assert choice.threads in (1, 2)
    assert torch.get_num_threads() == choice.threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.network.state_dict().items())
    assert all(parameter.grad is None for _, parameter in policy.trainable)


def test_a_number_that_is_left_open_is_measured_stored_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_choice, "measure", lambda turn, counts: {1: 0.5, 2: 0.1})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    with start_run(tiny_config(tmp_path, threads=None, evaluation__every=0), tmp_path / "run") as trainer:
        assert trainer.parts.thread_choice is not None
        assert "1: 500.0 ms, 2: 100.0 ms" in trainer.parts.thread_choice.line
    assert (read_config(tmp_path / "run").threads, chosen) == (2, [2])
    monkeypatch.setattr(thread_choice, "measure", lambda turn, counts: {1: 0.1, 2: 0.5})
    with resume_run(tmp_path / "run") as trainer:
        assert trainer.parts.thread_choice is None
    assert (read_config(tmp_path / "run").threads, chosen) == (2, [2, 2])


def test_a_number_that_is_given_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_choice, "measure", lambda turn, counts: pytest.fail("measured"))
    with start_run(tiny_config(tmp_path, threads=1, evaluation__every=0), tmp_path / "run") as trainer:
        assert trainer.parts.thread_choice is None


@pytest.mark.slow
def test_the_command_asks_openmp_not_to_spin_before_torch_is_loaded() -> None:
    """GNU's OpenMP, which torch brings, prints what it was told when it is loaded."""
    code = (
        "import sys; from workbench.cli import main; assert 'torch' not in sys.modules; main(['--version']); "
        "import torch; torch.ones(9)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in found.stderr
