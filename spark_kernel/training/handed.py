"""Groups that a person hands a phase in place of the trainer's own: what may differ, and how it is put in words.

Editing rewards or advantages in a cell is an experiment like any other: the phase works on what it is handed, and the
run folder holds what was used, with a note, and an exclusion for every rollout that was taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from spark_kernel.errors import PhaseError
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Period, Rollout
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.training.state import Phase, Stage


def compare_handed(
    stage: Stage, known: Set[str], own: Sequence[Group], given: Sequence[Group], *, round: int
) -> PhaseRecords:
    """The given groups as records: with an exclusion for every rollout of the own ones that is missing, and a note.

    Args:
        stage: the phase that is handed them.
        known: the ids of the tasks that the period rolled out.
        own: the groups that the trainer holds.
        given: groups of these tasks, edited or not.
        round: the round in flight.

    Raises:
        PhaseError: a group of another task or one twice, a rollout of another task or one twice, or one that was not
            verified where that is needed.
    """
    ids = [group.task.id for group in given]
    for task_id in ids:
        if task_id not in known:
            raise PhaseError(
                f"{stage} was handed a group of task {task_id}, which is none of the {len(known)} groups of this "
                "period: hand it the groups of the phase before, edited or fewer, or nothing."
            )
    if twice := _repeated(ids):
        raise PhaseError(f"{stage} was handed the group of task {twice} twice: hand it each group once.")
    for group in given:
        _check_group(stage, group)
    rollouts = {rollout.id: rollout for group in given for rollout in group.rollouts}
    if twice := _repeated([rollout.id for group in given for rollout in group.rollouts]):
        raise PhaseError(f"{stage} was handed rollout {twice} twice: give each rollout an id of its own.")
    left_out = tuple(
        Exclusion(round, str(stage.phase), ExclusionReason.BY_HAND, rollout.id, group.task.kind)
        for group in own
        for rollout in group.rollouts
        if rollout.id not in rollouts
    )
    return PhaseRecords(
        groups=tuple(given), exclusions=left_out, meta={"notes": [_in_words(stage, own, rollouts, len(left_out))]}
    )


def by_period(stage: Stage, groups: Sequence[Group]) -> Mapping[Period, tuple[Group, ...]]:
    """Groups by the period that sampled them; a joint update is handed those of both."""
    if stage.period is not Period.JOINT:
        return {stage.period: tuple(groups)}
    solved = tuple(group for group in groups if group.task.kind is Kind.SOLVE)
    return {Period.POLICY: solved, Period.REWARD: tuple(g for g in groups if g.task.kind is not Kind.SOLVE)}


def _check_group(stage: Stage, group: Group) -> None:
    for rollout in group.rollouts:
        if rollout.task_id != group.task.id:
            raise PhaseError(
                f"{stage} was handed rollout {rollout.id} of task {rollout.task_id} in the group of task "
                f"{group.task.id}: a group holds answers to its own task."
            )
        if not rollout.token_ids or len(rollout.token_ids) != len(rollout.logprobs):
            raise PhaseError(
                f"{stage} was handed rollout {rollout.id} with {len(rollout.token_ids)} token ids and "
                f"{len(rollout.logprobs)} log-probabilities: it needs one of each for every token, and at least one."
            )
        if stage.phase is Phase.VERIFY:
            continue
        if rollout.score is None:
            raise PhaseError(f"{stage} was handed rollout {rollout.id} without a score: call verify first.")
        if stage.phase is Phase.UPDATE and rollout.score.reward is not None and rollout.advantage is None:
            raise PhaseError(f"{stage} was handed rollout {rollout.id} with a reward but no advantage: set one.")


def _in_words(stage: Stage, own: Sequence[Group], given: Mapping[str, Rollout], left_out: int) -> str:
    before = {rollout.id: rollout for group in own for rollout in group.rollouts}
    changed = sum(1 for name, rollout in given.items() if name in before and rollout != before[name])
    added = sum(1 for name in given if name not in before)
    counts = {"changed": changed, "taken out": left_out, "added": added}
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "groups in another order"
    return f"By hand before {stage}: of {len(before)} rollouts {listed}."


def _repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
