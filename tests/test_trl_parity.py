"""Our objective against TRL's GRPOTrainer, in float64, value and gradient: an implementation that is not ours.

One optimizer step per generation. Tensors are injected after scoring, so that both see the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from spark_kernel.config.sections import ObjectiveSection
from spark_kernel.objective.advantages import advantages
from spark_kernel.objective.importance import importance_weights
from spark_kernel.objective.losses import normaliser
from spark_kernel.objective.named_losses import LOSSES, aggregation_of
from spark_kernel.objective.policy_loss import LossInputs, policy_loss
from tests.helpers.objective_reference import objective_of
from tests.helpers.trl_peer import AdvantageOracle, LossOracle, make_trainer

pytestmark = pytest.mark.slow
TRL_NAMES = {"grpo": "grpo", "dr_grpo": "dr_grpo", "dapo": "dapo", "bnpo": "bnpo", "cispo": "cispo", "gspo": "grpo"}
LENGTHS = {"ragged": [5, 1, 8, 3, 2, 7], "equal": [6] * 6, "one row masked": [5, 1, 8, 0, 2, 7]}
WIDTH = 8


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> LossOracle:
    trainer = make_trainer(
        tmp_path_factory.mktemp("trl"), lambda completions, **_: [0.0] * len(completions), num_generations=3, batch=6
    )
    return LossOracle(trainer)


def draw(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Padded float64 tensors; old, sampler and reference differ from the policy enough for clips to act.

    The sampler's values are representable in float32, in which TRL keeps them.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = len(lengths)
    logps = -2.0 + noise(0.5, rows, WIDTH)
    return {
        "mask": torch.tensor([[1] * n + [0] * (WIDTH - n) for n in lengths]),
        "logps": logps,
        "old": logps + noise(0.4, rows, WIDTH),
        "sampler": (logps + noise(0.6, rows, WIDTH)).float().double(),
        "reference": logps + noise(0.5, rows, WIDTH),
        "advantages": noise(1.0, rows),
    }


def ours(
    given: dict[str, Tensor], settings: ObjectiveSection, *, old: bool, rows_counted: int
) -> tuple[Tensor, Tensor]:
    """Value and gradient [B, T] by `policy_loss`; rows without tokens leave, as `selection` leaves them out."""
    mask = given["mask"].bool()
    kept = mask.any(dim=1)
    leaf = given["logps"].clone().requires_grad_()
    lengths = mask.sum(dim=1)[kept]
    divisor = normaliser(rows_counted, int(mask.sum()), aggregation=aggregation_of(settings))
    result = policy_loss(
        LossInputs(
            logprobs_N=leaf[mask],
            old_logprobs_N=given["old"][mask] if old else leaf[mask].detach(),
            sampler_logprobs_N=given["sampler"][mask],
            reference_logprobs_N=given["reference"][mask],
            advantages_S=given["advantages"][kept],
            lengths_S=lengths,
            scales_S=torch.full((len(lengths),), 1.0 / divisor, dtype=torch.float64),
        ),
        settings,
        constant_length=WIDTH,
    )
    result.total.backward()
    assert leaf.grad is not None
    return result.total.detach(), leaf.grad


def settings_of(name: str, **changes: object) -> ObjectiveSection:
    return objective_of(loss=name, **changes)


def theirs(oracle: LossOracle, name: str, given: dict[str, Tensor], settings: ObjectiveSection, *, old: bool):
    leaf = given["logps"].clone().requires_grad_()
    importance = None
    if settings.importance_correction != "off":
        importance = oracle.importance(
            given["old"] if old else given["logps"],
            given["sampler"],
            given["mask"],
            mode=settings.importance_correction,
            level=settings.importance_level,
            cap=settings.importance_cap,
        )
        assert importance.dtype == torch.float64
    loss = oracle.loss(
        leaf,
        given["mask"],
        given["advantages"],
        loss_type=TRL_NAMES[name],
        old_B_T=given["old"] if old else None,
        reference_B_T=given["reference"] if settings.beta else None,
        importance_B_X=importance,
        eps_low=settings.eps_low,
        eps_high=settings.ratio_cap if name == "cispo" else settings.eps_high,
        delta=settings.dual_clip,
        beta=settings.beta,
        kl_times_ratio=settings.kl_times_ratio,
        level=LOSSES[name].ratio_level,
        max_length=WIDTH,
    )
    loss.backward()
    return loss.detach(), leaf.grad


def agree(oracle: LossOracle, name: str, lengths: list[int], settings: ObjectiveSection, *, old: bool) -> None:
    given = draw(lengths)
    # TRL counts a row without tokens among the sequences; our selection leaves it out before it counts.
    mine = ours(given, settings, old=old, rows_counted=len(lengths))
    peer = theirs(oracle, name, given, settings, old=old)
    assert mine[0].dtype == torch.float64
    torch.testing.assert_close(mine[0], peer[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mine[1], peer[1], rtol=1e-9, atol=1e-9)
    assert float(peer[1].abs().max()) > 1e-3


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("old", [False, True], ids=["old absent", "old given"])
@pytest.mark.parametrize("name", TRL_NAMES)
def test_value_and_gradient(oracle: LossOracle, name: str, old: bool, beta: float, lengths: list[int]) -> None:
    settings = settings_of(name, beta=beta, eps_low=0.15, eps_high=0.3, ratio_cap=1.2)
    agree(oracle, name, lengths, settings, old=old)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    name=st.sampled_from(sorted(TRL_NAMES)),
    lengths=st.lists(st.integers(0, WIDTH), min_size=1, max_size=7).filter(any),
    advantages_drawn=st.lists(st.sampled_from([-1.5, -0.5, 0.0, 0.25, 1.0]), min_size=7, max_size=7),
    old=st.booleans(),
    beta=st.sampled_from([0.0, 0.1]),
    dual_clip=st.sampled_from([None, 1.35]),
    seed=st.integers(0, 2**16),
)
def test_any_shape_mask_and_advantage(
    oracle: LossOracle,
    name: str,
    lengths: list[int],
    advantages_drawn: list[float],
    old: bool,
    beta: float,
    dual_clip: float | None,
    seed: int,
) -> None:
    chosen = settings_of(name, beta=beta, eps_low=0.15, eps_high=0.3, ratio_cap=1.2, dual_clip=dual_clip)
    drawn = draw(lengths, seed)
    drawn["advantages"] = torch.tensor(advantages_drawn[: len(lengths)], dtype=torch.float64)
    mine = ours(drawn, chosen, old=old, rows_counted=len(lengths))
    peer = theirs(oracle, name, drawn, chosen, old=old)
    torch.testing.assert_close(mine[0], peer[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mine[1], peer[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("old", [False, True], ids=["old absent", "old given"])
@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
def test_kl_times_ratio(oracle: LossOracle, name: str, old: bool) -> None:
    agree(oracle, name, LENGTHS["ragged"], settings_of(name, beta=0.1, kl_times_ratio=True), old=old)


@pytest.mark.parametrize("name", ["grpo", "dapo", "bnpo", "dr_grpo", "gspo"])
def test_dual_clip_is_delta(oracle: LossOracle, name: str) -> None:
    # a mean over an output strays less from 1 than a token, so the bound of a sequence is set closer
    settings = settings_of(name, eps_high=0.01, dual_clip=1.02 if name == "gspo" else 1.4)
    agree(oracle, name, LENGTHS["ragged"], settings, old=True)
    given = draw(LENGTHS["ragged"])
    without = ours(given, settings.model_copy(update={"dual_clip": None}), old=True, rows_counted=6)
    assert not torch.allclose(without[1], ours(given, settings, old=True, rows_counted=6)[1])


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("name", TRL_NAMES)
def test_importance_correction(oracle: LossOracle, name: str, mode: str, level: str) -> None:
    settings = settings_of(name, beta=0.05, importance_correction=mode, importance_level=level, importance_cap=1.5)
    for old in (True, False):
        agree(oracle, name, LENGTHS["ragged"], settings, old=old)
    given = draw(LENGTHS["ragged"])
    _, bounded = importance_weights(
        given["old"].flatten(), given["sampler"].flatten(), torch.full((6,), WIDTH), mode=mode, level=level, cap=1.5
    )
    assert 0 < int(bounded.sum()) < bounded.numel()


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "cispo", "gspo"])
def test_accumulation_where_the_normalisers_coincide(oracle: LossOracle, name: str) -> None:
    """Equal rows per micro-batch: TRL's average over micro-batches is our sum over the step."""
    halves = [draw([5, 1, 8], seed=1), draw([3, 2, 7], seed=2)]
    settings = settings_of(name, beta=0.05)
    whole = {key: torch.cat([half[key] for half in halves]) for key in halves[0]}
    mine = ours(whole, settings, old=True, rows_counted=6)
    total, gradients = 0.0, []
    for half in halves:
        leaf = half["logps"].clone().requires_grad_()
        loss = oracle.loss(
            leaf,
            half["mask"],
            half["advantages"],
            loss_type=TRL_NAMES[name],
            old_B_T=half["old"],
            reference_B_T=half["reference"],
            beta=0.05,
            level=LOSSES[name].ratio_level,
            max_length=WIDTH,
            eps_high=settings.ratio_cap if name == "cispo" else 0.2,
            accumulation=2,
            items=int(whole["mask"].sum()),
        )
        loss.backward()
        total += float(loss.detach())
        gradients.append(leaf.grad)
    assert float(mine[0]) == pytest.approx(total, abs=1e-9)
    torch.testing.assert_close(mine[1], torch.cat(gradients), rtol=1e-9, atol=1e-9)


def test_bnpo_is_the_same_for_one_micro_batch_and_another_for_two(oracle: LossOracle) -> None:
    """TRL divides by the tokens of the micro-batch, so that its value depends on the cut; ours does not."""
    given = draw(LENGTHS["ragged"])
    mine = ours(given, settings_of("bnpo"), old=True, rows_counted=6)[0]
    cuts = {}
    for pieces in (1, 2):
        size = 6 // pieces
        parts = [{key: value[i : i + size] for key, value in given.items()} for i in range(0, 6, size)]
        cuts[pieces] = sum(
            oracle.loss(
                part["logps"],
                part["mask"],
                part["advantages"],
                loss_type="bnpo",
                old_B_T=part["old"],
                accumulation=pieces,
            ).item()
            for part in parts
        )
    assert cuts[1] == pytest.approx(float(mine), abs=1e-9)
    assert cuts[2] != pytest.approx(float(mine), abs=1e-3)


WRONG = {
    "sequence mean for token mean": ("dapo", {"aggregation": "sequence_mean"}),
    "a mean per sequence for the constant length": ("dr_grpo", {"aggregation": "sequence_mean"}),
    "clip range": ("dapo", {"eps_low": 0.01, "eps_high": 0.01}),
    "CISPO's bound": ("cispo", {"ratio_cap": 1.1}),
    "ratio per token for per sequence": ("gspo", {"loss": "grpo"}),
    "KL estimator": ("dapo", {"kl_estimator": "k2"}),
    "KL without the ratio": ("dapo", {"kl_times_ratio": False}),
    "truncated for masked": ("dapo", {"importance_correction": "truncate"}),
}


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG)
def test_the_comparison_can_fail(oracle: LossOracle, name: str, change: dict[str, object]) -> None:
    """Negative controls: one formula exchanged on our side only is told apart, in value and in gradient."""
    right = settings_of(
        name, beta=0.1, kl_times_ratio=True, ratio_cap=1.2, importance_correction="mask", importance_cap=1.5
    )
    given = draw(LENGTHS["ragged"])
    peer = theirs(oracle, name, given, right, old=True)
    same = ours(given, right, old=True, rows_counted=6)
    other = ours(given, right.model_copy(update=change), old=True, rows_counted=6)
    assert torch.allclose(same[1], peer[1], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(other[0], peer[0], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(other[1], peer[1], rtol=1e-6, atol=1e-6)


REWARDS = [
    [1.0, 0.0, 0.0],
    [0.25, 0.75, 1.0],
    [1 / 3, 1 / 3, 1 / 3],
    [1.0, None, 0.0],
    [None, None, None],
    [0.0, 0.0, 1.0],
]
SCALES = {"group_std_ddof1": "group", "mean_only": "none", "batch_std": "batch"}


@pytest.mark.parametrize("estimator", SCALES)
def test_advantages(estimator: str, tmp_path: Path) -> None:
    """TRL scores in float32, so to 1e-6; a missing reward has no advantage here and 0 there."""
    flat = [r for row in REWARDS for r in row]
    trainer = make_trainer(
        tmp_path, lambda completions, **_: flat, num_generations=3, batch=len(flat), scale_rewards=SCALES[estimator]
    )
    rows = [{"prompt": f"question {i}"} for i in range(len(REWARDS)) for _ in range(3)]
    trainer.model.train()
    peer = trainer._generate_and_score_completions(rows)["advantages"]
    mine = [
        a
        for row in advantages(REWARDS, estimator=estimator, delta=1e-4 if estimator != "mean_only" else 0.0)
        for a in row
    ]
    for value, other, reward in zip(mine, peer.tolist(), flat, strict=True):
        assert (value is None) == (reward is None)
        assert other == pytest.approx(value or 0.0, abs=1e-6)
    assert mine[6:9] == [0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> AdvantageOracle:
    return AdvantageOracle(tmp_path_factory.mktemp("trl-advantages"), groups=4, size=3)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    estimator=st.sampled_from(sorted(SCALES)),
    rewards=st.lists(
        st.lists(st.one_of(st.none(), st.integers(0, 8).map(lambda k: k / 8)), min_size=3, max_size=3),
        min_size=4,
        max_size=4,
    ),
)
def test_advantages_of_any_graded_rewards(
    scorer: AdvantageOracle, estimator: str, rewards: list[list[float | None]]
) -> None:
    """Eighths are exact in float32, so that TRL's rounding of rewards has no part in the comparison."""
    peer = scorer.advantages(rewards, scale=SCALES[estimator])
    mine = advantages(rewards, estimator=estimator, delta=1e-4)
    for value, other in zip([a for row in mine for a in row], [a for row in peer for a in row], strict=True):
        assert other == pytest.approx(value or 0.0, rel=1e-6, abs=1e-6)
