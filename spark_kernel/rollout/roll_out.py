"""The roll-out stage: tasks in, groups of sampled outputs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from spark_kernel.config.sections import RolloutSection
from spark_kernel.errors import StopCheck
from spark_kernel.keyed_random import derive_seed
from spark_kernel.prompts.prompt import task_prompts
from spark_kernel.records import Group, Kind, Rollout, Task
from spark_kernel.rollout.engine import RolloutEngine, Sampling


def roll_out(
    engine: RolloutEngine,
    tasks: Sequence[Task],
    settings: RolloutSection,
    *,
    seed: int,
    round: int,
    images_root: Path,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    check_stop: StopCheck = lambda: None,
) -> list[Group]:
    """Sample every task; each output's seed is keyed by (seed, purpose, round, task, sample).

    Args:
        engine: stamps its policy version on the rollouts.
        tasks: their order is kept.
        settings: how many outputs, how long, and from which distribution.
        seed: the run's seed.
        round: the round in which they are sampled.
        images_root: the folder that image paths are relative to.
        on_progress: called with outputs finished and outputs in all.
        check_stop: raises `Stopped` to abandon the phase.

    Raises:
        StaleEngineError: the engine's weights are in mid-update or were not synced.
        ModelError: a prompt does not fit (`fitting` finds out before).
    """
    version = engine.version
    prompts = [
        replace(
            prompt, seeds=tuple(derive_seed(seed, "sample", round, prompt.task_id, k) for k in range(settings.samples))
        )
        for prompt in task_prompts(tasks, images_root)
    ]
    total, done = len(tasks) * settings.samples, 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    groups: list[Group | None] = [None] * len(tasks)
    for limit in sorted({settings.limit(task.kind) for task in tasks}):
        chosen = [i for i, task in enumerate(tasks) if settings.limit(task.kind) == limit]
        completions = engine.sample(
            [prompts[i] for i in chosen], _sampling(settings, limit), on_progress=progress, check_stop=check_stop
        )
        for i, outputs in zip(chosen, completions, strict=True):
            groups[i] = Group(
                tasks[i],
                tuple(
                    Rollout(
                        id=f"{tasks[i].id}#{k}",
                        task_id=tasks[i].id,
                        index=k,
                        policy_version=version,
                        token_ids=output.token_ids,
                        logprobs=output.logprobs,
                        text=output.text,
                        truncated=output.truncated,
                        seconds=output.seconds,
                    )
                    for k, output in enumerate(outputs)
                ),
            )
    return [group for group in groups if group is not None]


def fitting(
    engine: RolloutEngine, tasks: Sequence[Task], settings: RolloutSection, *, context_length: int, images_root: Path
) -> list[bool]:
    """Whether each task's prompt fits (`prompt_limit`)."""
    counts = engine.count_tokens(task_prompts(tasks, images_root))
    return [
        count <= prompt_limit(settings, task.kind, context_length) for task, count in zip(tasks, counts, strict=True)
    ]


def prompt_limit(settings: RolloutSection, kind: Kind, context_length: int | None) -> int:
    """The longest prompt of a kind of task, in tokens: the one rule of training, evaluation and the test-time loop.

    It is within the setting and leaves room for the kind's longest output in the context.

    Args:
        context_length: most tokens of prompt and output together; None where there is no bound.
    """
    if context_length is None:
        return settings.max_prompt_tokens
    return min(settings.max_prompt_tokens, context_length - settings.limit(kind))


def _sampling(settings: RolloutSection, limit: int) -> Sampling:
    return Sampling(limit, settings.temperature, settings.top_p, settings.top_k, settings.max_prompt_tokens)
