"""Small records for tests of stages that need verified groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from spark_kernel.objective.advantages import advantages
from spark_kernel.records import Group, Kind, Message, Origin, Parse, Rollout, Score, Task


def make_task(name: str, prompt: str, kind: Kind = Kind.SOLVE) -> Task:
    return Task(
        id=name,
        kind=kind,
        origin=Origin.PROBLEM if kind is Kind.SOLVE else Origin.SOLVE,
        problem_id=f"problem-{name}",
        messages=(Message.of("user", prompt),),
        label="1",
        verifier="exact",
        template_id="solve-1",
        round=1,
    )


def make_group(
    name: str,
    prompt: str,
    outputs: list[list[int]],
    rewards: list[float | None],
    *,
    kind: Kind = Kind.SOLVE,
    logprobs: list[list[float]] | None = None,
    truncated: list[bool] | None = None,
) -> Group:
    """A verified group with group-normalised advantages."""
    task = make_task(name, prompt, kind)
    (row,) = advantages([rewards], estimator="group_std_ddof1", delta=1e-4)
    rollouts = tuple(
        Rollout(
            id=f"{name}#{i}",
            task_id=name,
            index=i,
            policy_version=0,
            token_ids=tuple(output),
            logprobs=tuple(logprobs[i]) if logprobs else tuple(-1.0 for _ in output),
            text="",
            truncated=bool(truncated and truncated[i]),
            score=Score(reward, None if reward is None else reward >= 1, Parse.CRASH if reward is None else Parse.OK),
            advantage=row[i],
        )
        for i, (output, reward) in enumerate(zip(outputs, rewards, strict=True))
    )
    return Group(task, rollouts)


def without_seconds(groups: Iterable[Group]) -> list[Group]:
    """The groups with all times set to 0: what two equal runs have in common."""
    return [group.with_rollouts(tuple(replace(r, seconds=0.0) for r in group.rollouts)) for group in groups]
