"""The learner: its gradient against a plain one, its independence of the cut, and stops in mid-update."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.config.sections import LearnerSection, LoraSection, ModelSection, ObjectiveSection
from spark_kernel.errors import NonFiniteError, StaleEngineError, Stopped
from spark_kernel.learner.schedule import learning_rate
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.records import ExclusionReason, Group, Kind, Period
from tests.helpers.objective_reference import objective_of
from tests.helpers.records import make_group
from tests.helpers.tiny_models import save_tiny_llama

SETTINGS = LearnerSection(learning_rate=1e-2, minibatch_sequences=None)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


LORA = LoraSection(enabled=True, rank=4)


def make_learner(
    folder: Path, objective: ObjectiveSection | None = None, lora: LoraSection = LoraSection(), **settings: Any
) -> TorchLearner:
    policy = load_policy(ModelSection(path=str(folder), lora=lora))
    return TorchLearner(
        policy, objective or objective_of(), SETTINGS.model_copy(update=settings), horizon_steps=10, images_root=Path()
    )


def some_groups() -> list[Group]:
    eos = 257
    return [
        make_group("a", "one?", [[5, 6, eos], [7, eos], [8, 9, 10, 11]], [1.0, 0.0, 0.0]),
        make_group("b", "a longer question", [[20, 21], [22], [23, 24, 25]], [0.0, 1.0, 1.0], kind=Kind.POINTWISE),
        make_group("c", "and a third", [[30], [31, 32], [33]], [0.25, 1.0, 0.0], kind=Kind.REFLECTION),
    ]


def plain_gradient(
    policy: Policy, groups: list[Group], objective: ObjectiveSection, reference: Any = None
) -> dict[str, torch.Tensor]:
    """The objective written out: one sequence at a time, whole logits, one sum; ratio 1 (a single step)."""
    network = policy.network
    network.zero_grad()
    counts: dict[str, int] = {}
    for group in groups:
        name = "all" if objective.kinds == "pooled" else group.task.kind
        counts[name] = counts.get(name, 0) + sum(len(r.token_ids) for r in group.rollouts)
    total = torch.zeros(())
    for group in groups:
        divisor = counts["all" if objective.kinds == "pooled" else group.task.kind]
        prefix = policy.encoder.text_ids(policy.encoder.chat_text(group.task.messages))
        for rollout in group.rollouts:
            ids = torch.tensor([[*prefix, *rollout.token_ids]])
            logprobs = network(ids).logits[0, len(prefix) - 1 : -1].log_softmax(-1)
            chosen = logprobs.gather(-1, ids[0, len(prefix) :, None])[:, 0]
            advantage = float(rollout.advantage or 0.0)
            token_loss = -torch.exp(chosen - chosen.detach()) * advantage
            if reference is not None:
                with torch.no_grad():
                    other = reference(ids).logits[0, len(prefix) - 1 : -1].log_softmax(-1)
                d = other.gather(-1, ids[0, len(prefix) :, None])[:, 0] - chosen
                token_loss = token_loss + objective.beta * (d.exp() - d - 1)
            total = total + token_loss.sum() / divisor
    total.backward()
    gradients = {name: p.grad.clone() for name, p in policy.trainable if p.grad is not None}
    network.zero_grad()
    return gradients


def captured_gradient(learner: TorchLearner, groups: list[Group]) -> dict[str, torch.Tensor]:
    """The gradient that the learner's single optimizer step sees."""
    seen: dict[str, torch.Tensor] = {}
    original = learner.optimizer.step

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.update({name: p.grad.clone() for name, p in learner.policy.trainable if p.grad is not None})
        return original(*args, **kwargs)

    learner.optimizer.step = spy  # type: ignore[method-assign]
    learner.update(groups, period=Period.POLICY, round=1)
    return seen


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in a.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / scale


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
def test_gradient_equals_the_objective_written_out(model_folder: Path, shared_prefix: bool, pooled: bool) -> None:
    objective = objective_of(kinds="pooled" if pooled else "own")
    learner = make_learner(model_folder, objective, shared_prefix=shared_prefix, max_grad_norm=1e9)
    expected = plain_gradient(learner.policy, some_groups(), objective)
    assert largest_difference(expected, captured_gradient(learner, some_groups())) < 1e-5


def test_shared_prefix_isolates_outputs_of_a_group(model_folder: Path) -> None:
    """Negative control of the equality above: an output that leaked into its neighbour would change its gradient."""
    learner = make_learner(model_folder, max_grad_norm=1e9)
    groups = some_groups()
    first = groups[0]
    swapped = first.with_rollouts(
        (first.rollouts[0], first.rollouts[1], replace(first.rollouts[2], token_ids=(12, 13, 14, 15)))
    )
    same = plain_gradient(learner.policy, groups, objective_of())
    other = plain_gradient(learner.policy, [swapped, *groups[1:]], objective_of())
    captured = captured_gradient(learner, groups)
    assert largest_difference(same, captured) < 1e-5 < 1e-3 < largest_difference(other, captured)


@pytest.mark.parametrize("budget", [1, 60, 120, 100_000])
def test_gradient_does_not_depend_on_the_cut_into_micro_batches(model_folder: Path, budget: int) -> None:
    whole = captured_gradient(make_learner(model_folder, max_grad_norm=1e9), some_groups())
    cut = captured_gradient(make_learner(model_folder, max_grad_norm=1e9, micro_batch_tokens=budget), some_groups())
    assert largest_difference(whole, cut) < 1e-5


@pytest.mark.parametrize("lora", [LoraSection(), LORA], ids=["a frozen copy", "the adapter off"])
def test_kl_pulls_towards_the_initial_policy(model_folder: Path, lora: LoraSection) -> None:
    objective = objective_of(beta=0.5)
    learner = make_learner(model_folder, objective, lora, max_grad_norm=1e9)
    reference = copy.deepcopy(learner.policy.network)
    learner.update(some_groups(), period=Period.POLICY, round=1)
    expected = plain_gradient(learner.policy, some_groups(), objective, reference)
    stats_gradient = captured_gradient(learner, some_groups())
    assert largest_difference(expected, stats_gradient) < 1e-4
    without = plain_gradient(learner.policy, some_groups(), objective)
    assert largest_difference(expected, without) > 1e-3


def test_several_steps_use_log_probabilities_from_before_the_first(model_folder: Path) -> None:
    learner = make_learner(model_folder, minibatch_sequences=3, learning_rate=0.05, epochs=2)
    stats, _ = learner.update(some_groups(), period=Period.POLICY, round=1)
    assert stats.optimizer_steps == 6
    assert abs(stats.ratio_mean - 1.0) > 1e-3
    single = make_learner(model_folder)
    stats, _ = single.update(some_groups(), period=Period.POLICY, round=1)
    assert stats.optimizer_steps == 1
    assert stats.ratio_mean == pytest.approx(1.0, abs=1e-7)


def test_masked_rollouts_leave_loss_and_normaliser_with_a_reason(model_folder: Path) -> None:
    eos = 257
    groups = [
        make_group("flat", "x", [[5, eos], [6, eos]], [1.0, 1.0]),
        make_group("cut", "y", [[5, 6], [7, eos], [8, eos]], [0.0, 1.0, 0.0], truncated=[True, False, False]),
        make_group("crash", "z", [[5, eos], [7, eos], [8, eos]], [None, 1.0, 0.0]),
    ]
    learner = make_learner(model_folder)
    stats, exclusions = learner.update(groups, period=Period.POLICY, round=3)
    reasons = {e.subject_id: e.reason for e in exclusions}
    assert reasons == {
        "flat#0": ExclusionReason.ZERO_VARIANCE,
        "flat#1": ExclusionReason.ZERO_VARIANCE,
        "cut#0": ExclusionReason.TRUNCATED,
        "crash#0": ExclusionReason.VERIFIER_CRASH,
    }
    assert (stats.sequences, stats.loss_tokens) == (4, 8)
    faithful = objective_of(mask_truncated=False, mask_zero_variance=False)
    stats, exclusions = make_learner(model_folder, faithful).update(groups, period=Period.POLICY, round=3)
    assert (stats.sequences, len(exclusions)) == (7, 1)


def test_version_counts_updates_and_is_absent_in_mid_update(model_folder: Path) -> None:
    learner = make_learner(model_folder, minibatch_sequences=3)
    seen = []

    def peek(done: int, total: int) -> None:
        with pytest.raises(StaleEngineError):
            _ = learner.policy.version
        seen.append((done, total))

    learner.update(some_groups(), period=Period.POLICY, round=1, on_progress=peek)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert learner.policy.version == 1


@pytest.mark.slow
@pytest.mark.parametrize("lora", [LoraSection(), LORA])
@pytest.mark.parametrize("stop_at", range(1, 10))
def test_stop_save_load_and_go_on_bit_for_bit(
    model_folder: Path, tmp_path: Path, stop_at: int, lora: LoraSection
) -> None:
    groups = some_groups()
    keywords: dict[str, Any] = {"minibatch_sequences": 3, "micro_batch_tokens": 30}
    straight = make_learner(model_folder, lora=lora, **keywords)
    straight.update(groups, period=Period.POLICY, round=1)
    stopped = make_learner(model_folder, lora=lora, **keywords)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == stop_at:
            raise Stopped

    with pytest.raises(Stopped):
        stopped.update(groups, period=Period.POLICY, round=1, check_stop=check)
    stopped.save(tmp_path)
    resumed = make_learner(model_folder, lora=lora, **keywords)
    resumed.load(tmp_path)
    stats, _ = resumed.update(groups, period=Period.POLICY, round=1)
    assert stats.optimizer_steps == 3
    assert resumed.policy.version == straight.policy.version == 1
    assert resumed.steps_taken == straight.steps_taken == 3
    for (name, a), (_, b) in zip(straight.policy.trainable, resumed.policy.trainable, strict=True):
        assert torch.equal(a, b), name
        for key, value in straight.optimizer.state[a].items():
            assert torch.equal(value, resumed.optimizer.state[b][key]), (name, key)


def test_non_finite_loss_leaves_everything_as_it_was_and_names_the_rollouts(model_folder: Path) -> None:
    learner = make_learner(model_folder)
    before = {name: p.detach().clone() for name, p in learner.policy.trainable}
    group = some_groups()[0]
    broken = group.with_rollouts(tuple(replace(r, advantage=float("inf")) for r in group.rollouts))
    with pytest.raises(NonFiniteError, match=r"a#0, a#1, a#2"):
        learner.update([broken], period=Period.POLICY, round=1)
    assert all(torch.equal(before[name], p) for name, p in learner.policy.trainable)
    assert learner.policy.version == 0
    assert not learner.optimizer.state


def test_a_group_that_is_learnt_gets_likelier(model_folder: Path) -> None:
    learner = make_learner(model_folder, learning_rate=5e-3, horizon_steps=1000, schedule="constant", warmup_share=0.0)
    groups = [make_group("a", "one?", [[5, 6, 257], [7, 8, 257]], [1.0, 0.0])]
    prompt_ids = learner.policy.encoder.text_ids(learner.policy.encoder.chat_text(groups[0].task.messages))

    def logprob(output: tuple[int, ...]) -> float:
        ids = torch.tensor([[*prompt_ids, *output]])
        with torch.no_grad():
            rows = learner.policy.network(ids).logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1)
        return float(rows.gather(-1, ids[0, len(prompt_ids) :, None]).sum())

    good, bad = (r.token_ids for r in groups[0].rollouts)
    before = logprob(good) - logprob(bad)
    for round_number in range(1, 6):
        learner.update(groups, period=Period.POLICY, round=round_number)
    assert logprob(good) - logprob(bad) > before + 1.0


def test_learning_rate_warms_up_falls_and_never_rises_again() -> None:
    for schedule in ("cosine", "linear"):
        settings = LearnerSection(schedule=schedule, warmup_share=0.1, learning_rate=1.0)
        rates = [learning_rate(step, settings, 100) for step in range(300)]
        assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
        assert all(later <= earlier for earlier, later in itertools.pairwise(rates[9:]))
        assert rates[100] == rates[299] == pytest.approx(0.1)
