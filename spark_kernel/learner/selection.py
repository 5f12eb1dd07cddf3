"""Which rollouts enter the loss, and how a period's groups are cut into optimizer steps and micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_kernel.config.sections import ObjectiveSection
from spark_kernel.keyed_random import keyed_random
from spark_kernel.objective.advantages import has_zero_variance
from spark_kernel.prompts.prompt import Prompt, task_prompts
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Parse, Rollout


@dataclass(frozen=True, slots=True)
class TrainingGroup:
    """The rollouts of one group that enter the loss: one prompt and its outputs [S].

    `index` is the group's place in the period, `size` the rollouts it had before any were left out.
    """

    index: int
    size: int
    kind: Kind
    prompt: Prompt
    rollouts: tuple[Rollout, ...]

    @property
    def loss_tokens(self) -> int:
        """Output tokens, the end-of-sequence tokens included."""
        return sum(len(rollout.token_ids) for rollout in self.rollouts)


def select(
    groups: Sequence[Group], objective: ObjectiveSection, *, round: int, images_root: Path
) -> tuple[list[TrainingGroup], list[Exclusion]]:
    """The training groups of a period, one per group, some of them empty; every rollout left out has its reason.

    Raises:
        ValueError: a rollout was not verified.
    """
    selected: list[TrainingGroup] = []
    exclusions: list[Exclusion] = []
    for index, group in enumerate(groups):
        kept: list[Rollout] = []
        flat = objective.mask_zero_variance and has_zero_variance(group.rewards)
        for rollout in group.rollouts:
            reason = _reason_to_mask(rollout, flat, objective)
            if reason is None:
                kept.append(rollout)
            else:
                exclusions.append(Exclusion(round, "update", reason, rollout.id, group.task.kind))
        prompt = task_prompts([group.task], images_root)[0]
        selected.append(TrainingGroup(index, len(group.rollouts), group.task.kind, prompt, tuple(kept)))
    return selected, exclusions


def minibatches(
    groups: Sequence[TrainingGroup], sequences: int | None, *, epochs: int, seed: int, period: str, round: int
) -> list[list[TrainingGroup]]:
    """The groups of each optimizer step, epoch after epoch, in a keyed order.

    A step holds whole groups: as many as reach `sequences` rollouts (counted before any were left out, so that the
    number of steps does not depend on the rewards), or all of them for None. Steps without any loss token vanish.
    """
    steps: list[list[TrainingGroup]] = []
    for epoch in range(epochs):
        order = list(groups)
        keyed_random(seed, "minibatch-order", round, period, epoch).shuffle(order)
        current: list[TrainingGroup] = []
        rows = 0
        for group in order:
            if current and sequences is not None and rows + group.size > sequences:
                steps.append(current)
                current, rows = [], 0
            current.append(group)
            rows += group.size
        steps.append(current)
    trained = [[group for group in step if group.rollouts] for step in steps]
    return [step for step in trained if step]


def planned_steps(groups: int, group_size: int, sequences: int | None, epochs: int) -> int:
    """Optimizer steps of a full period of `groups` groups."""
    if sequences is None:
        return epochs
    per_step = max(1, sequences // group_size)
    return epochs * -(-groups // per_step)


def micro_batches(
    groups: Sequence[TrainingGroup],
    prompt_lengths: Sequence[int],
    token_budget: int,
    *,
    shared_prefix: bool,
    packed: bool = False,
) -> list[list[TrainingGroup]]:
    """Cut a step's groups into pieces of at most `token_budget` tokens, padding included.

    Groups of like length go together. A group that alone is over the budget is cut into fragments of its rows; a
    single row that is over it stays whole.

    Args:
        groups: the groups of one optimizer step.
        prompt_lengths: tokens of each group's prompt.
        token_budget: most tokens computed side by side.
        shared_prefix: whether the prompt counts once per group or once per row.
        packed: whether rows lie end to end, without padding.
    """
    pieces: list[tuple[int, TrainingGroup]] = []
    for group, length in zip(groups, prompt_lengths, strict=True):
        longest = max(len(rollout.token_ids) for rollout in group.rollouts)
        per_row = longest if shared_prefix else longest + length
        fixed = length if shared_prefix else 0
        rows = max(1, (token_budget - fixed) // per_row)
        for start in range(0, len(group.rollouts), rows):
            part = group.rollouts[start : start + rows]
            pieces.append((length, TrainingGroup(group.index, group.size, group.kind, group.prompt, part)))
    pieces.sort(key=lambda piece: (piece[0], max(len(r.token_ids) for r in piece[1].rollouts), piece[1].index))
    batches: list[list[TrainingGroup]] = []
    current: list[tuple[int, TrainingGroup]] = []
    for piece in pieces:
        if current and _tokens([*current, piece], shared_prefix, packed) > token_budget:
            batches.append([group for _, group in current])
            current = []
        current.append(piece)
    if current:
        batches.append([group for _, group in current])
    return batches


def _tokens(pieces: Sequence[tuple[int, TrainingGroup]], shared_prefix: bool, packed: bool) -> int:
    if packed:
        return sum(length + group.loss_tokens for length, group in pieces)
    prompt = max(length for length, _ in pieces)
    rows = sum(len(group.rollouts) for _, group in pieces)
    output = max(len(rollout.token_ids) for _, group in pieces for rollout in group.rollouts)
    return len(pieces) * prompt + rows * output if shared_prefix else rows * (prompt + output)


def _reason_to_mask(rollout: Rollout, flat: bool, objective: ObjectiveSection) -> ExclusionReason | None:
    if rollout.score is None:
        raise ValueError(f"rollout {rollout.id} was not verified")
    if rollout.score.parse is Parse.TIMEOUT:
        return ExclusionReason.VERIFIER_TIMEOUT
    if rollout.score.parse is Parse.CRASH:
        return ExclusionReason.VERIFIER_CRASH
    if flat:
        return ExclusionReason.ZERO_VARIANCE
    if rollout.truncated and objective.mask_truncated:
        return ExclusionReason.TRUNCATED
    return None
