"""Advantages, losses and KL estimators against independent formulas."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spark_kernel.config.sections import ObjectiveSection
from spark_kernel.objective.advantages import advantages, has_zero_variance
from spark_kernel.objective.importance import importance_weights
from spark_kernel.objective.losses import (
    clipped_surrogate,
    kl_estimate,
    normaliser,
    sequence_ratio,
    token_ratio,
    token_weights,
    truncated_reinforce,
)
from spark_kernel.objective.named_losses import LOSSES
from spark_kernel.objective.policy_loss import LossInputs, policy_loss
from tests.helpers.objective_reference import CONSTANT_LENGTH, objective_of, written_out

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


ESTIMATORS = ("group_std_ddof1", "group_std_ddof0", "mean_only", "leave_one_out", "batch_std")


@given(st.fractions(0, 1, max_denominator=60).map(float), st.integers(1, 16), st.integers(0, 3))
@example(0.2, 3, 0)
@example(0.7, 3, 1)
def test_equal_graded_rewards_are_exactly_zero_even_with_no_delta(reward: float, count: int, missing: int) -> None:
    """The mean of three rewards of 0.2 is not 0.2: without care, rounding over a tiny deviation is an advantage."""
    for estimator in ESTIMATORS:
        for delta in (0.0, 1e-9):
            equal: list[float | None] = [reward] * count + [None] * missing
            rows = advantages([equal, [0.1, 0.9, None]], estimator=estimator, delta=delta)
            assert rows[0] == (0.0,) * count + (None,) * missing
            assert rows[1][0] is not None
            assert rows[1][0] < 0


def test_the_mean_of_equal_rewards_is_not_always_that_reward() -> None:
    """Control of the test above: its first example does need the care."""
    assert math.fsum([0.2] * 3) / 3 != 0.2


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
        token_weights(torch.ones(1), aggregation="mean", constant_length=1, dtype=torch.float64)
    inputs = LossInputs(*(torch.zeros(1) for _ in range(3)), None, torch.ones(1), torch.tensor([1]), torch.ones(1))
    for bad, message in (
        (ObjectiveSection(), "auto is to be decided"),
        (objective_of(beta=0.1), "reference"),
    ):
        with pytest.raises(ValueError, match=message):
            policy_loss(inputs, bad, constant_length=1)


@given(
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(-3, 3, allow_subnormal=False).filter(lambda advantage: advantage == 0 or abs(advantage) > 1e-9),
    st.floats(0.05, 0.5),
    st.floats(0.05, 2.0),
)
def test_clipped_surrogate_case_by_case(new: float, old: float, advantage: float, low: float, high: float) -> None:
    logprob = torch.tensor([new], dtype=torch.float64, requires_grad=True)
    ratio = token_ratio(logprob, torch.tensor([old], dtype=torch.float64))
    loss, clipped = clipped_surrogate(ratio, torch.tensor([advantage], dtype=torch.float64), eps_low=low, eps_high=high)
    rho = math.exp(new - old)
    outside = (advantage > 0 and rho > 1 + high) or (advantage < 0 and rho < 1 - low)
    bound = 1 + high if advantage > 0 else 1 - low
    assert float(loss.detach()) == pytest.approx(-(bound if outside else rho) * advantage, rel=1e-9, abs=1e-12)
    assert float(ratio.detach()) == pytest.approx(rho)
    assert bool(clipped) == outside
    (gradient,) = torch.autograd.grad(loss.sum(), logprob)
    assert float(gradient) == pytest.approx(0.0 if outside else -rho * advantage, rel=1e-9, abs=1e-12)


@given(st.floats(-2, 2), st.floats(-3, 3))
def test_dual_clip_bounds_the_loss_of_a_negative_advantage_only(log_ratio: float, advantage: float) -> None:
    ratio = torch.tensor([math.exp(log_ratio)], dtype=torch.float64)
    scale = torch.tensor([advantage], dtype=torch.float64)
    plain, _ = clipped_surrogate(ratio, scale, eps_low=0.2, eps_high=0.2)
    dual, clipped = clipped_surrogate(ratio, scale, eps_low=0.2, eps_high=0.2, dual_clip=2.0)
    bounded = advantage < 0 and math.exp(log_ratio) > 2.0
    assert float(dual) == pytest.approx(-2.0 * advantage if bounded else float(plain))
    assert bool(clipped) or not bounded


def test_cispo_keeps_the_gradient_of_every_token_at_a_capped_weight() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-1.0, -4.0, -0.2], dtype=torch.float64)
    loss, capped = truncated_reinforce(
        logprobs, token_ratio(logprobs, old), torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64), ratio_cap=3.0
    )
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert gradient.tolist() == pytest.approx([-1.0, -3.0, 2.0 * math.exp(-0.3)])
    assert capped.tolist() == [False, True, False]


def test_the_sequence_ratio_is_the_geometric_mean_of_the_token_ratios() -> None:
    new = torch.tensor([-1.0, -2.0, -0.5, -3.0], dtype=torch.float64)
    old = torch.tensor([-1.5, -1.0, -0.2, -3.0], dtype=torch.float64)
    lengths = torch.tensor([3, 1])
    ratios = torch.exp(new - old).tolist()
    expected = (ratios[0] * ratios[1] * ratios[2]) ** (1 / 3)
    assert sequence_ratio(new, old, lengths).tolist() == pytest.approx([expected] * 3 + [1.0])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**16))
def test_importance_weights_by_definition(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    old, sampler = (torch.randn(sum(lengths), generator=generator, dtype=torch.float64) for _ in range(2))
    per_token = (old - sampler).tolist()
    start, per_sequence = 0, []
    for length in lengths:
        per_sequence += [sum(per_token[start : start + length])] * length
        start += length
    old.requires_grad_()
    for level, logs in (("token", per_token), ("sequence", per_sequence)):
        for mode in ("truncate", "mask"):
            weights, bounded = importance_weights(old, sampler, torch.tensor(lengths), mode=mode, level=level, cap=1.5)
            assert not weights.requires_grad
            for weight, flag, log in zip(weights.tolist(), bounded.tolist(), logs, strict=True):
                over = math.exp(log) > 1.5
                assert flag == over
                assert weight == pytest.approx((1.5 if mode == "truncate" else 0.0) if over else math.exp(log))


SEQUENCES = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["solve", "pointwise", "pairwise"]), st.integers(0, 2)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60)
@given(SEQUENCES, st.sampled_from(sorted(LOSSES)), st.booleans(), st.integers(0, 2**16))
def test_any_cut_into_micro_batches_gives_the_same_value_and_gradient(
    rows: list[tuple[int, str, int]], name: str, corrected: bool, seed: int
) -> None:
    """Each row is (tokens, kind, micro-batch); the reference is the whole step, written out token by token."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(length for length, _, _ in rows)
    new, old, sampler, reference = (
        -1.5 + 0.4 * torch.randn(total, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    advantages_S = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    named = LOSSES[name]
    chosen = objective_of(
        loss=name,
        ratio_cap=1.2,
        beta=0.1,
        importance_correction="truncate" if corrected else "off",
        importance_cap=1.3,
    )
    kinds = [kind for _, kind, _ in rows]
    counts = {kind: (kinds.count(kind), sum(n for n, k, _ in rows if k == kind)) for kind in set(kinds)}
    scales = [1.0 / normaliser(*counts[kind], aggregation=named.aggregation) for kind in kinds]
    spans = [range(sum(n for n, _, _ in rows[:i]), sum(n for n, _, _ in rows[: i + 1])) for i in range(len(rows))]

    whole = new.clone().requires_grad_()
    written_out(whole, old, sampler, reference, advantages_S.tolist(), spans, scales, chosen).backward()
    pieces = new.clone().requires_grad_()
    value = 0.0
    for batch in range(3):
        members = [i for i, (_, _, where) in enumerate(rows) if where == batch]
        if not members:
            continue
        tokens = torch.tensor([t for i in members for t in spans[i]])
        part = policy_loss(
            LossInputs(
                logprobs_N=pieces[tokens],
                old_logprobs_N=old[tokens],
                sampler_logprobs_N=sampler[tokens],
                reference_logprobs_N=reference[tokens],
                advantages_S=advantages_S[members],
                lengths_S=torch.tensor([rows[i][0] for i in members]),
                scales_S=torch.tensor([scales[i] for i in members], dtype=torch.float64),
            ),
            chosen,
            constant_length=CONSTANT_LENGTH,
        )
        part.total.backward()
        value += float(part.total.detach())
    expected = written_out(new, old, sampler, reference, advantages_S.tolist(), spans, scales, chosen)
    assert value == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    torch.testing.assert_close(pieces.grad, whole.grad, rtol=1e-12, atol=1e-12)


def test_a_normaliser_per_micro_batch_would_be_noticed() -> None:
    """Negative control of the test above: dividing by the micro-batch's own tokens changes the gradient."""
    logprobs = torch.tensor([-1.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    parts = [([0], 1), ([1, 2], 2)]
    gradients = []
    for per_micro_batch in (False, True):
        total = logprobs.new_zeros(())
        for tokens, count in parts:
            divisor = 2 * count if per_micro_batch else 3
            inputs = LossInputs(
                logprobs_N=logprobs[tokens],
                old_logprobs_N=logprobs[tokens].detach(),
                sampler_logprobs_N=logprobs[tokens].detach(),
                reference_logprobs_N=None,
                advantages_S=torch.tensor([1.0], dtype=torch.float64),
                lengths_S=torch.tensor([count]),
                scales_S=torch.tensor([1.0 / divisor], dtype=torch.float64),
            )
            total = total + policy_loss(inputs, objective_of(), constant_length=1).total
        gradients.append(torch.autograd.grad(total, logprobs)[0])
    assert not torch.allclose(gradients[0], gradients[1])


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_kl_estimators_by_definition(new: float, reference: float) -> None:
    d = reference - new
    arguments = (torch.tensor([new], dtype=torch.float64), torch.tensor([reference], dtype=torch.float64))
    assert float(kl_estimate(*arguments, estimator="k1")) == pytest.approx(-d)
    assert float(kl_estimate(*arguments, estimator="k2")) == pytest.approx(d * d / 2)
    assert float(kl_estimate(*arguments, estimator="k3")) == pytest.approx(math.exp(d) - d - 1, abs=1e-12)
    assert float(kl_estimate(*arguments, estimator="k3")) >= 0


@pytest.mark.parametrize(
    ("estimator", "times_ratio", "divergence"),
    [
        ("k1", False, "none"),
        ("k2", False, "reverse"),
        ("k3", False, "forward"),
        ("k1", True, "reverse"),
        ("k3", True, "reverse"),
    ],
)
def test_what_a_kl_estimator_pulls_towards(estimator: str, times_ratio: bool, divergence: str) -> None:
    """The expected gradient while the ratio is 1, summed over a whole vocabulary, against that of a true KL."""
    logits_V = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    reference_V = torch.tensor([-0.5, 0.2, 0.4, 1.0], dtype=torch.float64).log_softmax(-1)
    logprobs_V = logits_V.log_softmax(-1)
    loss_V = kl_estimate(logprobs_V, reference_V, estimator=estimator)
    if times_ratio:
        loss_V = loss_V * token_ratio(logprobs_V, logprobs_V.detach())
    expected = (logprobs_V.detach().exp() * loss_V).sum()
    true = {
        "reverse": (logprobs_V.exp() * (logprobs_V - reference_V)).sum(),
        "forward": (reference_V.exp() * (reference_V - logprobs_V)).sum(),
        "none": 0.0 * logprobs_V.sum(),
    }[divergence]
    found, wanted = (torch.autograd.grad(value, logits_V, retain_graph=True)[0] for value in (expected, true))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert divergence == "none" or float(wanted.abs().max()) > 0.01


def test_aggregations_average_as_they_say() -> None:
    losses = [[1.0, 2.0, 3.0], [10.0]]
    lengths = torch.tensor([3, 1])
    flat = torch.tensor([x for row in losses for x in row])
    expected = {"token_mean": 16 / 4, "sequence_mean": (2.0 + 10.0) / 2, "constant_length": (6.0 + 10.0) / 8 / 2}
    for aggregation, value in expected.items():
        weights = token_weights(
            lengths, aggregation=aggregation, constant_length=8, dtype=torch.float32
        ).repeat_interleave(lengths)
        assert float((flat * weights).sum()) / normaliser(2, 4, aggregation=aggregation) == pytest.approx(value)
