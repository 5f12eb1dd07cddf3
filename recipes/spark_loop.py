"""SPARK's round in one file: read this first.

    roll out -> score -> recycle -> update        on problems, by the policy as it is
    roll out -> score -> recycle -> update        on the tasks that were made of them, by the updated policy

Every stage is a function of the library, from records to records (`spark_kernel/records.py`). What `Trainer` adds and
this leaves out: a run folder with a journal (kill it at any time and resume bit for bit), checkpoints, going back and
forking, held-out evaluation, phases by hand, events and progress, prompts checked against the context before training,
a plan of memory, the number of threads. What only `Trainer` follows, `ONLY_TRAINER`, is refused. It also keeps every
problem and rollout in memory. Groups, tasks and weights are the same: a test compares two rounds with `Trainer`'s.

    python recipes/spark_loop.py --rounds 2 --problems 16
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from spark_kernel.config import RunConfig, load_config
from spark_kernel.errors import InputError
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.problems.checked_stream import make_stream
from spark_kernel.prompts.build import solve_task
from spark_kernel.records import Group, Period, Problem, Recycled, Rollout, Task, UpdateStats
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.recycle.recycle import re_evaluate, recycle
from spark_kernel.rollout.roll_out import fitting, roll_out
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.training.assembly import make_learner
from spark_kernel.verify.pool import VerifierPool
from spark_kernel.verify.score_groups import score_groups

PERIOD = ("period.order", "period.train_policy", "period.train_reward", "period.schedule")
ONLY_TRAINER = (*PERIOD, "verify.flip_share", "rollout.engine", "rollout.refill", "problems.difficulty")
ONLY_TRAINER += ("model.gradient_checkpointing",)


@dataclass(frozen=True)
class HalfRound:
    """What one period made: scored groups, the tasks recycled from them, and the update's figures."""

    round: int
    period: Period
    groups: tuple[Group, ...]
    recycled: Recycled
    update: UpdateStats


def spark_loop(config: RunConfig, policy: Policy, images_root: Path = Path()) -> Iterator[HalfRound]:
    """Train the policy by SPARK, one half round at a time.

    Args:
        config: a run's configuration; batch sizes that it leaves open are 256 rows and the learner's own.
        policy: the model at its initial weights; it is policy, judge and corrector.
        images_root: the folder that image paths are relative to.

    Raises:
        InputError: a setting that only `Trainer` follows.
    """
    if ignored := [name for name in ONLY_TRAINER if attrgetter(name)(config) != attrgetter(name)(RunConfig())]:
        raise InputError(f"This loop does not follow {', '.join(ignored)}: leave it at its default or use start_run.")
    engine = TransformersEngine(policy, batch_size=config.rollout.batch_size or 256)
    learner = make_learner(config, policy, images_root)
    pool = VerifierPool(config.verify.workers, config.verify.deadline_seconds, config.verify.correct_threshold)
    problems: dict[str, Problem] = {}
    sources: dict[str, Rollout] = {}
    queue, cursor = TaskQueue(), 0

    def sample_and_score(tasks: Sequence[Task], round: int) -> list[Group]:
        """n outputs per task, each with its verifier's score r and its advantage, (r - group mean) / (std + delta)."""
        groups = roll_out(engine, tasks, config.rollout, seed=config.seed, round=round, images_root=images_root)
        objective = config.objective
        return score_groups(pool, groups, problems, estimator=objective.advantage, delta=objective.delta)

    def update(groups: Sequence[Group], period: Period, round: int) -> UpdateStats:
        """Move the policy; from here on its version is one higher, and the engine samples with it."""
        # The loss: for each token of an output with advantage A, and rho its probability now over that when sampled,
        #     -min(rho * A, clip(rho, 1 - eps_low, 1 + eps_high) * A)  +  beta * KL to the initial policy,
        # summed and divided by the optimizer step's tokens of that kind. So what scored above its group becomes
        # likelier, be it an answer, a verdict or a correction: all are trained by the same rule.
        # docs/algorithm.md, section 3; spark_kernel/objective/policy_loss.py.
        stats, _left_out = learner.update(groups, period=period, round=round)
        engine.take(learner.publish(engine.wanted))  # the new weights, in the form that this engine wants them in
        return stats

    def fits(tasks: Sequence[Task]) -> list[bool]:
        """Whether a task's prompt, with an output behind it, fits the model's context."""
        longest = policy.description.context_length
        return fitting(engine, tasks, config.rollout, context_length=longest, images_root=images_root)

    try:
        stream = make_stream(config, pool)
        for round in range(1, config.rounds + 1):
            keyed = {"seed": config.seed, "round": round}
            remake = partial(recycle, settings=config.recycle, quotas=config.quotas, fits=fits, **keyed)
            rejudge = partial(re_evaluate, settings=config.recycle, quotas=config.quotas, fits=fits, **keyed)

            # The policy period: new problems. Before the update each group becomes "is this answer correct?" (a mixed
            # one perhaps "which of the two is?") with the verifier's finding for a label, and "look again", with gold.
            taken = stream.take(cursor, config.problems.per_round, round=round)
            cursor = taken.cursor
            problems |= {problem.id: problem for problem in taken.problems}
            solved = sample_and_score([solve_task(problem, **keyed) for problem in taken.problems], round)
            sources |= {rollout.id: rollout for group in solved for rollout in group.rollouts}
            recycled = remake(solved, problems)
            queue = queue.add(recycled.tasks)
            stats = update(solved, Period.POLICY, round)
            yield HalfRound(round, Period.POLICY, tuple(solved), recycled, stats)

            # The reward period, by the updated policy: J judge and R reflection tasks (quotas), mixed groups' first. A
            # scored reflection is judged in turn, alone and against the answer it started from: hence `sources`.
            queue, _too_old = queue.drop_old(round, config.recycle.max_age)
            tasks, queue = queue.take(config.recycle, config.quotas, round)
            if not tasks:
                continue
            judged = sample_and_score(tasks, round)
            again = rejudge(judged, problems, sources) if config.recycle.re_evaluation else Recycled()
            queue = queue.add(again.tasks)
            stats = update(judged, Period.REWARD, round)
            yield HalfRound(round, Period.REWARD, tuple(judged), again, stats)
    finally:
        pool.close()


def report(half: HalfRound) -> str:
    """One line for each kind of task, and one for the update."""
    lines = [f"round {half.round}, {half.period} period"]
    for kind in dict.fromkeys(group.task.kind for group in half.groups):
        scored = [r for group in half.groups if group.task.kind is kind for r in group.scored]
        right = sum(1 for rollout in scored if rollout.score is not None and rollout.score.correct)
        lines.append(f"  {kind:<10} {right / max(1, len(scored)):6.1%} right of {len(scored)}")
    update = half.update
    lines.append(
        f"  {len(half.recycled.tasks)} tasks recycled; loss {update.loss:+.4f}, {update.optimizer_steps} steps"
    )
    return "\n".join(lines)


def main() -> None:
    """Train the built-in starter model for some rounds and print what each period did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--problems", type=int, default=64, help="problems in a round")
    arguments = parser.parse_args()
    problems = arguments.problems
    quotas = {"recycle__judge_quota": -(-problems * 3 // 2), "recycle__reflection_quota": -(-problems // 2)}  # 96, 32
    config = load_config("quickstart", rounds=arguments.rounds, problems__per_round=problems, **quotas)
    for half in spark_loop(config, load_policy(config.model, seed=config.seed)):
        print(report(half), flush=True)


if __name__ == "__main__":
    main()
