"""Advantages, losses and KL estimators against independent formulas."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.objective.advantages import advantages, has_zero_variance
from spark_kernel.objective.losses import clipped_surrogate, kl_estimate, normaliser, token_weights

REWARDS = st.lists(st.one_of(st.none(), st.floats(0, 1, width=32)), min_size=1, max_size=9)


@given(REWARDS)
def test_group_advantages_are_the_textbook_formula(rewards: list[float | None]) -> None:
    present = [r for r in rewards if r is not None]
    for ddof, deviation in ((1, statistics.stdev), (0, statistics.pstdev)):
        (row,) = advantages([rewards], estimator=f"group_std_ddof{ddof}", delta=1e-4)
        for reward, value in zip(rewards, row, strict=True):
            if reward is None:
                assert value is None
            elif len(set(present)) < 2:
                assert value == 0.0
            else:
                expected = (reward - statistics.fmean(present)) / (deviation(present) + 1e-4)
                assert value == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(REWARDS)
def test_leave_one_out_compares_with_the_mean_of_the_others(rewards: list[float | None]) -> None:
    (row,) = advantages([rewards], estimator="leave_one_out", delta=0.0)
    for index, reward in enumerate(rewards):
        others = [r for i, r in enumerate(rewards) if i != index and r is not None]
        if reward is None:
            assert row[index] is None
        elif has_zero_variance(rewards):
            assert row[index] == 0.0
        else:
            assert row[index] == pytest.approx(reward - statistics.fmean(others), abs=1e-12)


def test_equal_graded_rewards_are_exactly_zero_even_with_no_delta() -> None:
    third = 1 / 3
    for estimator in ("group_std_ddof1", "group_std_ddof0", "mean_only", "leave_one_out", "batch_std"):
        rows = advantages([[third] * 8, [0.1, 0.9, None]], estimator=estimator, delta=1e-9)
        assert rows[0] == (0.0,) * 8
        assert rows[1][0] is not None
        assert rows[1][0] < 0


def test_batch_std_divides_all_groups_by_the_same_deviation() -> None:
    rewards = [[0.0, 1.0], [0.25, 0.75]]
    rows = advantages(rewards, estimator="batch_std", delta=0.0)
    scale = statistics.stdev([0.0, 1.0, 0.25, 0.75])
    assert rows == [(-0.5 / scale, 0.5 / scale), (-0.25 / scale, 0.25 / scale)]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="leave_one_out"):
        advantages([[1.0]], estimator="std", delta=0.0)
    with pytest.raises(ValueError, match="k1, k2, k3"):
        kl_estimate(torch.zeros(1), torch.zeros(1), estimator="k4")
    with pytest.raises(ValueError, match="sequence_mean"):
        token_weights(torch.ones(1), aggregation="mean", constant_length=1)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-3, 3), st.floats(0.05, 0.5), st.floats(0.05, 2.0))
def test_clipped_surrogate_case_by_case(new: float, old: float, advantage: float, low: float, high: float) -> None:
    logprob = torch.tensor([new], dtype=torch.float64, requires_grad=True)
    loss, ratio, clipped = clipped_surrogate(
        logprob,
        torch.tensor([old], dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        eps_low=low,
        eps_high=high,
    )
    rho = math.exp(new - old)
    outside = (advantage > 0 and rho > 1 + high) or (advantage < 0 and rho < 1 - low)
    bound = 1 + high if advantage > 0 else 1 - low
    assert float(loss.detach()) == pytest.approx(-(bound if outside else rho) * advantage, rel=1e-9, abs=1e-12)
    assert float(ratio) == pytest.approx(rho)
    assert bool(clipped) == outside
    (gradient,) = torch.autograd.grad(loss.sum(), logprob)
    assert float(gradient) == pytest.approx(0.0 if outside else -rho * advantage, rel=1e-9, abs=1e-12)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_kl_estimators_by_definition(new: float, reference: float) -> None:
    d = reference - new
    arguments = (torch.tensor([new], dtype=torch.float64), torch.tensor([reference], dtype=torch.float64))
    assert float(kl_estimate(*arguments, estimator="k1")) == pytest.approx(-d)
    assert float(kl_estimate(*arguments, estimator="k2")) == pytest.approx(d * d / 2)
    assert float(kl_estimate(*arguments, estimator="k3")) == pytest.approx(math.exp(d) - d - 1, abs=1e-12)
    assert float(kl_estimate(*arguments, estimator="k3")) >= 0


def test_aggregations_average_as_they_say() -> None:
    losses = [[1.0, 2.0, 3.0], [10.0]]
    lengths = torch.tensor([3, 1])
    flat = torch.tensor([x for row in losses for x in row])
    expected = {"token_mean": 16 / 4, "sequence_mean": (2.0 + 10.0) / 2, "constant_length": (6.0 + 10.0) / 8 / 2}
    for aggregation, value in expected.items():
        weights = token_weights(lengths, aggregation=aggregation, constant_length=8).repeat_interleave(lengths)
        assert float((flat * weights).sum()) / normaliser(2, 4, aggregation=aggregation) == pytest.approx(value)
