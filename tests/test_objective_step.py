"""An optimizer step's loss from verified groups: what is counted, independence of the cut, sums for the report."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from spark_kernel.config.sections import LearnerSection, ModelSection, ObjectiveSection
from spark_kernel.learner.progress import Totals
from spark_kernel.learner.selection import TrainingGroup, micro_batches, select
from spark_kernel.learner.step_loss import (
    add_mismatch,
    add_sums,
    batch_sums,
    micro_batch_loss,
    mismatch_figures,
    sampler_logprobs,
    step_scales,
)
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models.policy import load_policy
from spark_kernel.objective.named_losses import LOSSES, aggregation_of
from spark_kernel.records import Group, Kind, Period, UpdateStats
from tests.helpers.objective_reference import CONSTANT_LENGTH, objective_of, written_out
from tests.helpers.records import make_group
from tests.helpers.tiny_models import save_tiny_llama

REWARDS = st.sampled_from([0.0, 0.25, 1 / 3, 1.0, None])
ROLLOUTS = st.lists(st.tuples(st.integers(1, 6), REWARDS, st.booleans()), min_size=2, max_size=4)
GROUPS = st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(1, 9), ROLLOUTS), min_size=1, max_size=5)


@st.composite
def objectives(draw: st.DrawFn) -> ObjectiveSection:
    name = draw(st.sampled_from(sorted(LOSSES)))
    return objective_of(
        loss=name,
        eps_low=0.1,
        eps_high=0.15,
        ratio_cap=1.2,
        beta=draw(st.sampled_from([0.0, 0.1])),
        importance_correction=draw(st.sampled_from(["off", "truncate", "mask"])),
        importance_level=draw(st.sampled_from(["token", "sequence"])),
        importance_cap=1.3,
        kinds=draw(st.sampled_from(["own", "pooled"])),
        kind_weights=draw(st.sampled_from([{}, {"pointwise": 0.5, "reflection": 2.0}])),
        negative_advantage_scale=draw(st.sampled_from([1.0, 0.5])),
        mask_truncated=draw(st.booleans()),
        mask_zero_variance=draw(st.booleans()),
    )


@dataclass
class Step:
    """One optimizer step's groups and, for every rollout by id, float64 log-probabilities [T]."""

    groups: list[Group]
    prompt_lengths: list[int]
    logprobs: dict[str, dict[str, Tensor]]

    def take(self, name: str, ids: list[str]) -> Tensor:
        return torch.cat([self.logprobs[name][i] for i in ids])


def draw_step(shapes: list[tuple[Kind, int, list[tuple[int, float | None, bool]]]], seed: int) -> Step:
    generator = torch.Generator().manual_seed(seed)

    def noise(tokens: int, scale: float) -> Tensor:
        return scale * torch.randn(tokens, generator=generator, dtype=torch.float64)

    groups: list[Group] = []
    logprobs: dict[str, dict[str, Tensor]] = {name: {} for name in ("new", "old", "sampler", "reference")}
    for number, (kind, _, rollouts) in enumerate(shapes):
        rows = []
        for index, (length, _, _) in enumerate(rollouts):
            new, identity = -1.5 + noise(length, 0.4), f"g{number}#{index}"
            logprobs["new"][identity] = new
            for name in ("old", "sampler", "reference"):
                logprobs[name][identity] = new + noise(length, 0.3)
            rows.append(logprobs["sampler"][identity].tolist())
        groups.append(
            make_group(
                f"g{number}",
                "question",
                [[5] * length for length, _, _ in rollouts],
                [reward for _, reward, _ in rollouts],
                kind=kind,
                logprobs=rows,
                truncated=[cut for _, _, cut in rollouts],
            )
        )
    return Step(groups, [prompt for _, prompt, _ in shapes], logprobs)


def ids_of(groups: list[TrainingGroup]) -> list[str]:
    return [rollout.id for group in groups for rollout in group.rollouts]


def in_micro_batches(
    step: Step, chosen: ObjectiveSection, budget: int, shared_prefix: bool, *, scale_per_batch: bool = False
) -> tuple[float, dict[str, Tensor]]:
    """Value and gradient by rollout as the learner gets them: select, normalise, cut, one backward pass per piece."""
    selected, _ = select(step.groups, chosen, round=1, images_root=Path())
    pairs = [(g, n) for g, n in zip(selected, step.prompt_lengths, strict=True) if g.rollouts]
    trained = [group for group, _ in pairs]
    scales = step_scales(trained, chosen)
    leaves = {i: step.logprobs["new"][i].clone().requires_grad_() for i in ids_of(trained)}
    value = 0.0
    for batch in micro_batches(trained, [n for _, n in pairs], budget, shared_prefix=shared_prefix):
        ids = ids_of(batch)
        loss = micro_batch_loss(
            batch,
            torch.cat([leaves[i] for i in ids]),
            step.take("old", ids),
            step.take("reference", ids) if chosen.beta else None,
            step_scales(batch, chosen) if scale_per_batch else scales,
            chosen,
            constant_length=CONSTANT_LENGTH,
        )
        assert loss.total.dtype == torch.float64
        loss.total.backward()
        value += float(loss.total.detach())
    return value, {i: leaf.grad for i, leaf in leaves.items() if leaf.grad is not None}


def by_definition(step: Step, chosen: ObjectiveSection) -> tuple[float, dict[str, Tensor]]:
    """The same for the whole step at once, from the specification, without any code of the learner."""
    rows: list[tuple[str, str, float]] = []
    for group in step.groups:
        present = [r for r in group.rewards if r is not None]
        flat = len(set(present)) < 2
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
            if reward is None or (flat and chosen.mask_zero_variance) or (rollout.truncated and chosen.mask_truncated):
                continue
            a = 0.0 if flat else (reward - statistics.fmean(present)) / (statistics.stdev(present) + 1e-4)
            rows.append((rollout.id, group.task.kind, a * chosen.negative_advantage_scale if a < 0 else a))
    by_token = aggregation_of(chosen) == "token_mean"
    counts: dict[str, int] = {}
    for identity, kind, _ in rows:
        name = "all" if chosen.kinds == "pooled" else kind
        counts[name] = counts.get(name, 0) + (len(step.logprobs["new"][identity]) if by_token else 1)
    scales = [
        chosen.kind_weights.get(kind, 1.0) / counts["all" if chosen.kinds == "pooled" else kind] for _, kind, _ in rows
    ]
    ids = [identity for identity, _, _ in rows]
    lengths = [len(step.logprobs["new"][i]) for i in ids]
    spans = [range(sum(lengths[:k]), sum(lengths[: k + 1])) for k in range(len(lengths))]
    leaf = step.take("new", ids).requires_grad_()
    others = [step.take(name, ids) for name in ("old", "sampler", "reference")]
    total = written_out(leaf, *others, [a for _, _, a in rows], spans, scales, chosen)
    total.backward()
    assert leaf.grad is not None
    return float(total.detach()), {i: leaf.grad[list(span)] for i, span in zip(ids, spans, strict=True)}


@settings(max_examples=60)
@given(GROUPS, objectives(), st.integers(1, 60), st.booleans(), st.integers(0, 2**16))
def test_any_cut_equals_the_whole_step_written_out(
    shapes: list[tuple[Kind, int, list[tuple[int, float | None, bool]]]],
    chosen: ObjectiveSection,
    budget: int,
    shared_prefix: bool,
    seed: int,
) -> None:
    step = draw_step(shapes, seed)
    assume(any(g.rollouts for g in select(step.groups, chosen, round=1, images_root=Path())[0]))
    expected, gradient = by_definition(step, chosen)
    value, found = in_micro_batches(step, chosen, budget, shared_prefix)
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert found.keys() == gradient.keys()
    for identity, row in gradient.items():
        torch.testing.assert_close(found[identity], row, rtol=1e-12, atol=1e-12)


def test_a_normaliser_of_the_micro_batch_instead_of_the_step_would_be_noticed() -> None:
    """Negative control of the test above."""
    ragged = [(6, 1.0, False), (1, 0.0, False), (2, 0.25, False)]
    step = draw_step([(Kind.SOLVE, 3, ragged), (Kind.SOLVE, 5, ragged[::-1])], seed=1)
    for name in sorted(LOSSES):
        chosen = objective_of(
            loss=name,
        )
        expected, _ = by_definition(step, chosen)
        right, _ = in_micro_batches(step, chosen, 20, True)
        wrong, _ = in_micro_batches(step, chosen, 20, True, scale_per_batch=True)
        assert right == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert wrong != pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_scale_of_a_kind_is_its_weight_over_its_own_tokens_or_over_all() -> None:
    step = draw_step(
        [
            (Kind.SOLVE, 3, [(6, 1.0, False), (4, 0.0, False)]),
            (Kind.POINTWISE, 3, [(1, 1.0, False), (1, 0.0, False), (3, 0.0, False)]),
        ],
        seed=0,
    )
    groups, _ = select(step.groups, objective_of(), round=1, images_root=Path())
    weights = {"pointwise": 0.5}
    expected = {
        ("token_mean", False): {"solve": 1 / 10, "pointwise": 0.5 / 5},
        ("token_mean", True): {"solve": 1 / 15, "pointwise": 0.5 / 15},
        ("sequence_mean", False): {"solve": 1 / 2, "pointwise": 0.5 / 3},
        ("constant_length", True): {"solve": 1 / 5, "pointwise": 0.5 / 5},
    }
    for (aggregation, pooled), scales in expected.items():
        chosen = objective_of(aggregation=aggregation, kinds="pooled" if pooled else "own", kind_weights=weights)
        assert step_scales(groups, chosen) == pytest.approx(scales)


def test_sums_for_the_report_are_per_kind_and_over_all() -> None:
    step = draw_step(
        [
            (Kind.SOLVE, 3, [(2, 1.0, False), (1, 0.0, False)]),
            (Kind.POINTWISE, 3, [(1, 1.0, False), (3, 0.0, False)]),
        ],
        seed=3,
    )
    chosen = objective_of(beta=0.1, importance_correction="truncate", importance_cap=1.05, eps_low=0.01)
    groups, _ = select(step.groups, chosen, round=1, images_root=Path())
    ids = ids_of(groups)
    new, old, reference = (step.take(name, ids) for name in ("new", "old", "reference"))
    loss = micro_batch_loss(groups, new, old, reference, step_scales(groups, chosen), chosen, constant_length=7)
    entropy = torch.arange(1.0, 8.0, dtype=torch.float64)
    totals = Totals()
    sums = batch_sums(groups, loss, entropy)
    add_sums(totals, sums, sums.values.tolist())
    assert (totals.get("tokens"), totals.get("solve/tokens"), totals.get("pointwise/tokens")) == (7, 3, 4)
    assert (totals.get("entropy"), totals.get("solve/entropy"), totals.get("pointwise/entropy")) == (28, 6, 22)
    assert totals.get("ratio") == pytest.approx(float((new - old).exp().sum()))
    d = reference - new
    assert totals.get("solve/kl") == pytest.approx(float((d.exp() - d - 1)[:3].sum()))
    assert totals.get("bounded_share") == int(((old - step.take("sampler", ids)).exp() > 1.05).sum()) > 0
    assert totals.get("total_loss") == pytest.approx(float(loss.total))
    add_sums(totals, sums, sums.values.tolist())
    assert totals.get("entropy") == 56


def test_mismatch_figures_by_hand() -> None:
    learner = torch.full((200,), -1.0, dtype=torch.float64)
    sampler = learner.clone()
    sampler[:50] += 0.005
    sampler[50:53] -= math.log(3.0)
    sampler[53] -= math.log(8.0)
    totals = Totals()
    add_mismatch(totals, learner, sampler)
    figures = mismatch_figures(totals)
    assert figures["mean_abs_logprob"] == pytest.approx((50 * 0.005 + 3 * math.log(3.0) + math.log(8.0)) / 200)
    assert figures["share_over_1_percent"] == pytest.approx(4 / 200)
    assert figures["ratio_p99"] == pytest.approx(3.0)
    assert figures["ratio_max"] == pytest.approx(8.0)
    assert figures["share_bounded"] == 0.0


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def update(folder: Path, groups: list[Group], objective: ObjectiveSection, minibatch: int | None) -> UpdateStats:
    chosen = LearnerSection(learning_rate=1e-9, minibatch_sequences=minibatch)
    learner = TorchLearner(
        load_policy(ModelSection(path=str(folder))), objective, chosen, horizon_steps=10, images_root=Path()
    )
    return learner.update(groups, period=Period.POLICY, round=1)[0]


def sampled_with(folder: Path, groups: list[Group], log_ratio: float) -> list[Group]:
    """The groups as if the sampler had given every token exp(-log_ratio) times the learner's probability."""
    policy = load_policy(ModelSection(path=str(folder)))
    result = []
    for group in groups:
        prompt = policy.encoder.text_ids(policy.encoder.chat_text(group.task.messages))
        rollouts = []
        for rollout in group.rollouts:
            ids = torch.tensor([[*prompt, *rollout.token_ids]])
            with torch.no_grad():
                rows = policy.network(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
            values = rows.gather(-1, ids[0, len(prompt) :, None])[:, 0] - log_ratio
            rollouts.append(replace(rollout, logprobs=tuple(values.tolist())))
        result.append(group.with_rollouts(tuple(rollouts)))
    return result


@pytest.mark.parametrize("minibatch", [None, 2], ids=["one step", "two steps"])
def test_an_update_reports_the_mismatch_and_corrects_it_on_request(model_folder: Path, minibatch: int | None) -> None:
    plain = [
        make_group("a", "one?", [[5, 6, 257], [7, 257]], [1.0, 0.0]),
        make_group("b", "two?", [[8, 257], [9, 10, 11, 257]], [0.0, 1.0]),
    ]
    groups = sampled_with(model_folder, plain, math.log(1.5))
    off, truncated, masked, kept = (
        update(model_folder, groups, objective_of(importance_correction=mode, importance_cap=cap), minibatch)
        for mode, cap in (("off", 2.0), ("truncate", 1.2), ("mask", 1.2), ("mask", 2.0))
    )
    for stats in (off, truncated, masked, kept):
        assert stats.sampler_mismatch["mean_abs_logprob"] == pytest.approx(math.log(1.5), rel=1e-4)
        assert stats.sampler_mismatch["ratio_p99"] == pytest.approx(1.5, rel=1e-4)
        assert stats.sampler_mismatch["share_over_1_percent"] == 1.0
    assert abs(off.loss) > 1e-3
    assert truncated.loss == pytest.approx(1.2 * off.loss, rel=1e-4)
    assert masked.loss == 0.0
    assert kept.loss == pytest.approx(1.5 * off.loss, rel=1e-4)
    bounded = [stats.sampler_mismatch["share_bounded"] for stats in (off, truncated, masked, kept)]
    assert bounded == [0.0, 1.0, 1.0, 0.0]


def test_sampler_log_probabilities_keep_their_precision() -> None:
    group = make_group("a", "x", [[5], [6]], [1.0, 0.0], logprobs=[[-1 / 3], [-0.1]])
    selected, _ = select([group], objective_of(), round=1, images_root=Path())
    assert sampler_logprobs(selected).tolist() == [-1 / 3, -0.1]
