"""The verification stage: groups of outputs in, the same groups with scores and advantages out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from spark_kernel.objective.advantages import advantages
from spark_kernel.records import Group, Problem, Score
from spark_kernel.verify.verifier import VerifyRequest


class Scorer(Protocol):
    """What scores outputs, such as `verify.pool.VerifierPool`."""

    def score(
        self, requests: Sequence[VerifyRequest], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Score]:
        """One score per request, in order."""
        ...


def score_groups(
    scorer: Scorer,
    groups: Sequence[Group],
    problems: Mapping[str, Problem],
    *,
    estimator: str,
    delta: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Group]:
    """Score every rollout and give it its advantage within the group.

    Args:
        scorer: see `Scorer`.
        groups: as rolled out.
        problems: the problem of every group, by id.
        estimator, delta: see `objective.advantages`.
        on_progress: called with outputs scored and outputs in all.
    """
    requests = [
        VerifyRequest(rollout.text, problems[group.task.problem_id], group.task)
        for group in groups
        for rollout in group.rollouts
    ]
    scores = iter(scorer.score(requests, on_progress=on_progress))
    scored = [group.with_rollouts(tuple(replace(r, score=next(scores)) for r in group.rollouts)) for group in groups]
    return with_advantages(scored, estimator=estimator, delta=delta)


def with_advantages(groups: Sequence[Group], *, estimator: str, delta: float) -> list[Group]:
    """The groups with the advantages that their rewards come to; for rewards that were edited, too.

    Args:
        groups: scored.
        estimator, delta: see `objective.advantages`.

    Raises:
        ValueError: unknown estimator.
    """
    values = advantages([group.rewards for group in groups], estimator=estimator, delta=delta)
    return [
        group.with_rollouts(tuple(replace(r, advantage=a) for r, a in zip(group.rollouts, row, strict=True)))
        for group, row in zip(groups, values, strict=True)
    ]
