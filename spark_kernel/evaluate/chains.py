"""The steps of the test-time loop as scored groups: what only the verifier knows, added after the fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from spark_kernel.records import Group, Origin, Problem, Rollout, Score, Task
from spark_kernel.test_time.steps import Attempt, Step
from spark_kernel.verify.verifier import VerifyRequest


def chain_groups(
    attempts: Sequence[Attempt],
    problems: Mapping[str, Problem],
    score: Callable[[Sequence[VerifyRequest]], list[Score]],
    *,
    round: int,
    policy_version: int,
) -> tuple[Group, ...]:
    """One group of one scored rollout per step, in order of attempts and steps.

    Answers are scored first, for a judgement's label is whether the answer it is about was right. A judgement about
    an answer that has no finding (timeout, crash) has no label: its rollout has no score.
    """
    answers = [step for attempt in attempts for step in attempt.steps if not step.kind.judges]
    found = _scored(answers, problems, score, {}, round)
    verdicts = [
        step
        for attempt in attempts
        for step in attempt.steps
        if step.kind.judges and found[_about(step)].correct is not None
    ]
    found |= _scored(verdicts, problems, score, found, round)
    return tuple(
        _group(step, problems[step.problem_id], found, round, policy_version)
        for attempt in attempts
        for step in attempt.steps
    )


def chain_rollout_id(round: int, problem_id: str, index: int) -> str:
    """The id of the rollout that holds a step of an evaluation's loop."""
    return f"{_task_id(round, problem_id, index)}-0"


def _scored(
    steps: Sequence[Step],
    problems: Mapping[str, Problem],
    score: Callable[[Sequence[VerifyRequest]], list[Score]],
    found: Mapping[tuple[str, int], Score],
    round: int,
) -> dict[tuple[str, int], Score]:
    requests = []
    for step in steps:
        problem = problems[step.problem_id]
        requests.append(VerifyRequest(step.text, problem, _task(step, problem, found, round, None)))
    return {(step.problem_id, step.index): s for step, s in zip(steps, score(requests), strict=True)} if steps else {}


def _group(
    step: Step, problem: Problem, found: Mapping[tuple[str, int], Score], round: int, policy_version: int
) -> Group:
    task = _task(step, problem, found, round, policy_version)
    rollout = Rollout(
        id=chain_rollout_id(round, step.problem_id, step.index),
        task_id=task.id,
        index=0,
        policy_version=policy_version,
        token_ids=step.completion.token_ids,
        logprobs=step.completion.logprobs,
        text=step.text,
        truncated=step.completion.truncated,
        seconds=step.completion.seconds,
        score=found.get((step.problem_id, step.index)),
    )
    return Group(task, (rollout,))


def _task(
    step: Step,
    problem: Problem,
    found: Mapping[tuple[str, int], Score],
    round: int,
    policy_version: int | None,
) -> Task:
    source = found.get(_about(step)) if step.about is not None else None
    correct = source.correct if source else None
    label = problem.gold
    if step.kind.judges:
        label = "" if correct is None else "Yes" if correct else "No"
    return Task(
        id=_task_id(round, problem.id, step.index),
        kind=step.kind,
        origin=Origin.PROBLEM if step.about is None else Origin.SOLVE if step.about == 0 else Origin.REFLECTION,
        problem_id=problem.id,
        messages=step.messages,
        images=problem.images,
        label=label,
        label_map=step.label_map,
        verifier="verdict" if step.kind.judges else problem.verifier,
        template_id=step.template_id,
        round=round,
        view=step.view,
        sources=() if step.about is None else (chain_rollout_id(round, problem.id, step.about),),
        source_policy_version=None if step.about is None else policy_version,
        source_correct=() if correct is None else (correct,),
    )


def _task_id(round: int, problem_id: str, index: int) -> str:
    return f"{round:06d}-evaluation-loop-{problem_id}-{index}"


def _about(step: Step) -> tuple[str, int]:
    if step.about is None:
        raise AssertionError(f"step {step.index} of problem {step.problem_id} is about nothing")
    return step.problem_id, step.about
