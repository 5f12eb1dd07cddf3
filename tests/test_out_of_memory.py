"""Memory that runs out in an update: the step begins again in smaller pieces, and what comes out is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.errors import ModelError
from spark_kernel.learner import torch_learner
from spark_kernel.learner.selection import TrainingGroup
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.records import Period
from tests.helpers.tiny_models import save_tiny_llama
from tests.test_learner import make_learner, some_groups

TOKENS = 4096


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def fresh(folder: Path) -> TorchLearner:
    return make_learner(folder, micro_batch_tokens=TOKENS, minibatch_sequences=None)


def weights(learner: TorchLearner) -> list[torch.Tensor]:
    return [parameter.detach().clone() for _, parameter in learner.policy.trainable]


def holding(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine whose memory holds micro-batches of so many rows; the rows of those that were tried."""
    tried: list[int] = []

    def backward(self: TorchLearner, batch: list[TrainingGroup], *rest: Any) -> Any:
        tried.append(sum(len(group.rollouts) for group in batch))
        found = ORIGINAL(self, batch, *rest)  # gradients are there when memory runs out
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    monkeypatch.setattr(TorchLearner, "_backward", backward)
    monkeypatch.setattr(torch_learner, "LEAST_TOKENS", 16)
    return tried


ORIGINAL = TorchLearner._backward


def test_the_step_begins_again_with_half_of_the_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, learner = fresh(folder), fresh(folder)
    expected, _ = plain.update(some_groups(), period=Period.POLICY, round=1)
    tried = holding(3, monkeypatch)
    stats, _ = learner.update(some_groups(), period=Period.POLICY, round=1)
    assert max(tried) > 3 >= tried[-1]
    assert stats.notes[-1].startswith("Memory ran out at")
    assert str(learner.budget) in stats.notes[-1]
    assert learner.budget < TOKENS
    assert stats.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)  # nothing of the first try is left in it
    assert (stats.loss_tokens, stats.entropy) == (expected.loss_tokens, pytest.approx(expected.entropy))
    for mine, theirs in zip(weights(learner), weights(plain), strict=True):
        assert float((mine - theirs).abs().mean()) < 1e-6  # AdamW makes much of a gradient that is rounding alone


def test_the_smaller_size_stays_and_is_kept_in_a_checkpoint(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, again = fresh(folder), fresh(folder)
    holding(3, monkeypatch)
    learner.update(some_groups(), period=Period.POLICY, round=1)
    learner.save(tmp_path / "checkpoint")
    again.load(tmp_path / "checkpoint")
    assert again.budget == learner.budget < TOKENS
    tried = holding(3, monkeypatch)
    again.update(some_groups(), period=Period.POLICY, round=2)
    assert max(tried) <= 3


def test_where_nothing_smaller_is_left_a_sentence_says_what_to_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = fresh(folder)
    before = weights(learner)
    holding(0, monkeypatch)
    with pytest.raises(ModelError, match=r"Memory ran out in a micro-batch of 16 tokens.*gradient_checkpointing"):
        learner.update(some_groups(), period=Period.POLICY, round=1)
    assert learner.version == 0
    assert all(torch.equal(mine, old) for mine, old in zip(weights(learner), before, strict=True))
