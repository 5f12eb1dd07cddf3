"""What scored groups, exclusions and tasks amount to: the lines of a report by kind and origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from spark_kernel.evaluate.intervals import Estimate, clustered_mean, clustered_proportion
from spark_kernel.evaluate.judge_metrics import judge_metrics
from spark_kernel.objective.advantages import has_zero_variance
from spark_kernel.records import Exclusion, Group, Kind, KindStats, Origin, Parse, Period, Task


def exclusion_counts(exclusions: Iterable[Exclusion]) -> dict[str, int]:
    """Exclusions by "stage/reason", as a round's report gives them."""
    counts = Counter(f"{exclusion.stage}/{exclusion.reason}" for exclusion in exclusions)
    return dict(sorted(counts.items()))


def kind_stats(groups: Sequence[Group], period: Period) -> tuple[KindStats, ...]:
    """One line per kind and origin that occurs, in the order of `Kind` and `Origin`."""
    lines: dict[tuple[Kind, Origin], list[Group]] = {}
    for group in groups:
        lines.setdefault((group.task.kind, group.task.origin), []).append(group)
    order = [(kind, origin) for kind in Kind for origin in Origin if (kind, origin) in lines]
    return tuple(_line(period, kind, origin, lines[kind, origin]) for kind, origin in order)


def task_counts(tasks: Iterable[Task]) -> dict[str, int]:
    """Tasks by "kind/origin", as a round's report gives the recycled ones."""
    return dict(sorted(Counter(f"{task.kind}/{task.origin}" for task in tasks).items()))


def reward_estimate(groups: Sequence[Group]) -> Estimate:
    """Mean reward with its 95 % interval clustered by problem; kept inside [0, 1] where all rewards are."""
    rewards = [(group.task.problem_id, r) for group in groups for r in group.rewards if r is not None]
    inside = all(0 <= reward <= 1 for _, reward in rewards)
    return clustered_proportion(rewards) if inside else clustered_mean(rewards)


def _line(period: Period, kind: Kind, origin: Origin, groups: Sequence[Group]) -> KindStats:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    scores = [r.score for r in rollouts if r.score is not None and r.score.reward is not None]
    judged = [group for group in groups if group.scored]
    reward = reward_estimate(groups)
    return KindStats(
        period=period,
        kind=kind,
        origin=origin,
        n=len(scores),
        groups=len(groups),
        missing=len(rollouts) - len(scores),
        reward_mean=reward.value,
        reward_low=reward.low,
        reward_high=reward.high,
        accuracy=_share(score.correct is True for score in scores),
        unparseable=_share(score.parse in (Parse.NONE, Parse.AMBIGUOUS) for score in scores),
        truncated=_share(rollout.truncated for rollout in rollouts),
        length_mean=sum(len(r.token_ids) for r in rollouts) / len(rollouts) if rollouts else None,
        all_correct=_share(len(group.correct) == len(group.scored) for group in judged),
        mixed=_share(group.is_mixed for group in judged),
        all_wrong=_share(len(group.wrong) == len(group.scored) for group in judged),
        zero_variance=_share(has_zero_variance(group.rewards) for group in judged),
        judge=judge_metrics(groups, kind).defined() if kind.judges else None,
    )


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None
