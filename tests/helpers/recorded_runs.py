"""A small run made without a model: rounds whose records depend on their number only, so that they can be compared."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

from spark_kernel.keyed_random import keyed_random
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.prompts.build import pairwise_task, pointwise_task, reflection_task, solve_task
from spark_kernel.prompts.verdicts import read_answer, read_verdict, write_box
from spark_kernel.records import (
    Exclusion,
    ExclusionReason,
    Group,
    Kind,
    Origin,
    Parse,
    Period,
    Problem,
    Rollout,
    RoundReport,
    Score,
    Task,
    UpdateStats,
    View,
)
from spark_kernel.runs.bundles import HELD_OUT, EvaluationRecords, PhaseRecords, RoundRecords
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.codec import to_json
from spark_kernel.runs.writer import RunWriter

CONFIG = "seed: 0\nrounds: 10\n"
ENVIRONMENT = {"python": "3.11", "packages": {"torch": None}}
PER_ROUND = 5
SAMPLES = 4
Phases = list[tuple[Period, str, PhaseRecords]]


def float32(value: float) -> float:
    """The nearest float32, as a Python float: what a sampler's log-probabilities are."""
    return struct.unpack("f", struct.pack("f", value))[0]


def problems_of(round: int) -> tuple[Problem, ...]:
    source = ArithmeticSource(seed=3)
    return tuple(source.problem(round * PER_ROUND + index) for index in range(PER_ROUND))


def score(task: Task, text: str, rng: Random) -> Score:
    if rng.random() < 0.04:
        return Score(None, None, Parse.TIMEOUT, None, "the verifier ran past its deadline")
    if task.kind.judges:
        allowed = ("Yes", "No") if task.kind is Kind.POINTWISE and not task.label_map else ("A", "B")
        reading = read_verdict(text, allowed)
        verdict = (task.label_map or {}).get(reading.verdict or "", reading.verdict)
        right = verdict == task.label
        return Score(float(right), right, reading.parse, verdict, "")
    answer = read_answer(text)
    if answer is None:
        return Score(0.0, False, Parse.NONE, None, "no box")
    right = answer == task.label
    return Score(float(right), right, Parse.OK, answer, f"{answer} against {task.label}")


def output_text(task: Task, rng: Random) -> str:
    if rng.random() < 0.1:
        return "I cannot say."
    if not task.kind.judges:
        return f"I think it is {write_box(task.label if rng.random() < 0.5 else str(rng.randrange(50)))}."
    letters = task.kind is Kind.PAIRWISE or task.label_map
    first = write_box(rng.choice("AB") if letters else rng.choice(("Yes", "No")))
    return f"Checked: {first}" + (f" or {write_box(rng.choice('AB'))}" if letters and rng.random() < 0.1 else "")


def sample_group(task: Task, round: int, version: int) -> Group:
    """A scored group whose outputs depend on the task and the round."""
    rng = keyed_random(11, "output", round, task.id)
    rollouts = []
    for index in range(SAMPLES):
        length = rng.randrange(1, 9)
        text = output_text(task, rng)
        rollouts.append(
            Rollout(
                id=f"{task.id}-{index}",
                task_id=task.id,
                index=index,
                policy_version=version,
                token_ids=tuple(rng.randrange(150_000) for _ in range(length)),
                logprobs=tuple(float32(-rng.expovariate(1.0)) for _ in range(length)),
                text=text,
                truncated=rng.random() < 0.1,
                seconds=rng.random(),
                score=score(task, text, rng),
                advantage=rng.gauss(0.0, 1.0),
            )
        )
    return Group(task, tuple(rollouts))


def recycle(problems: tuple[Problem, ...], groups: tuple[Group, ...], round: int, origin: Origin) -> tuple[Task, ...]:
    """A pointwise, a pairwise and a reflection task wherever the group allows it."""
    by_id = {problem.id: problem for problem in problems}
    tasks = []
    for index, group in enumerate(groups):
        problem, mixed = by_id[group.task.problem_id], group.is_mixed
        place = {"origin": origin, "mixed": mixed, "seed": 5, "round": round}
        for candidate in (*group.correct[:1], *(r for r in group.wrong[:1] if r.answer)):
            view = View.FULL if index % 2 else View.ANSWER
            tasks.append(pointwise_task(problem, candidate, view=view, **place))
            if origin is Origin.SOLVE:
                tasks.append(reflection_task(problem, candidate, view=View.FULL, **place))
        if mixed:
            tasks.append(pairwise_task(problem, group.correct[0], group.wrong[0], view=View.ANSWER, **place))
    return tuple(tasks)


def update_stats(period: Period, round: int) -> UpdateStats:
    rng = keyed_random(13, "update", round, period)
    return UpdateStats(
        period=period,
        optimizer_steps=1 + round % 3,
        sequences=PER_ROUND * SAMPLES,
        loss_tokens=rng.randrange(100, 200),
        loss=rng.gauss(0, 1),
        kl=rng.random(),
        entropy=rng.random(),
        clip_share=rng.random() / 10,
        ratio_mean=1.0,
        grad_norm=rng.random(),
        learning_rate=1e-6,
        seconds=rng.random(),
        by_kind={"solve": {"loss": rng.gauss(0, 1), "loss_tokens": 100.0}},
        sampler_mismatch={"mean_abs": 1e-6},
        notes=("shared prefix is off",),
    )


def make_round(round: int) -> tuple[RoundRecords, Phases, RoundReport]:
    """The records, journal phases and report of a round."""
    problems = problems_of(round)
    solved = tuple(sample_group(solve_task(p, seed=5, round=round), round, 2 * round - 2) for p in problems)
    made = recycle(problems, solved, round, Origin.SOLVE)
    judged = tuple(sample_group(task, round, 2 * round - 1) for task in made[::2])
    reflections = tuple(group for group in judged if group.task.kind is Kind.REFLECTION)
    again = recycle(problems, reflections, round, Origin.REFLECTION)
    exclusions = (
        Exclusion(round, "recycle", ExclusionReason.NOT_SELECTED, solved[0].task.id, Kind.REFLECTION, "coin"),
        Exclusion(round, "recycle", ExclusionReason.NO_ANSWER, solved[1].task.id, Kind.POINTWISE),
        *(Exclusion(round, "queue", ExclusionReason.TOO_OLD, task.id, task.kind) for task in made[1::4]),
        Exclusion(round, "update", ExclusionReason.ZERO_VARIANCE, solved[2].task.id),
    )
    updates = tuple(update_stats(period, round) for period in (Period.POLICY, Period.REWARD))
    phases: Phases = [
        (Period.POLICY, "roll_out", PhaseRecords(problems=problems, groups=solved)),
        (Period.POLICY, "recycle", PhaseRecords(recycled=made, exclusions=exclusions, tasks=made[:2])),
        (Period.POLICY, "update", PhaseRecords(meta={"stats": to_json(updates[0])})),
        (Period.REWARD, "roll_out", PhaseRecords(groups=judged)),
        (Period.REWARD, "update", PhaseRecords(meta={"stats": to_json(updates[1])})),
    ]
    records = RoundRecords(
        round=round,
        problems=problems,
        groups={Period.POLICY: solved, Period.REWARD: judged},
        recycled=made + again,
        exclusions=exclusions,
        meta={"cursor": round * PER_ROUND},
    )
    report = RoundReport(
        round=round,
        policy_version=2 * round,
        kinds=(),
        updates=updates,
        seconds_by_phase={"policy/roll_out": 1.5, "reward/roll_out": 0.25 * round},
        recycled={"pointwise/solve": len(made)},
        exclusions={"recycle/not_selected": 1},
        queue_length=len(made) - len(judged),
        balance_before={"Yes": 4, "No": 2},
        balance_after={"Yes": 2, "No": 2},
    )
    return records, phases, report


OTHER_SUITE = "other-sums_2"


def make_evaluation(round: int, suite: str = HELD_OUT) -> tuple[EvaluationRecords, dict[str, object]]:
    """An evaluation: sampled answers, judgements of them and reflections; another suite has problems of its own."""
    source = ArithmeticSource(seed=99 if suite == HELD_OUT else 98)
    problems = tuple(source.problem(index) for index in range(4 if suite == HELD_OUT else 5))
    solved = tuple(sample_group(solve_task(problem, seed=6, round=round), round, 2 * round) for problem in problems)
    tasks = recycle(problems, solved, round, Origin.SOLVE)
    groups = tuple(sample_group(task, round, 2 * round) for task in tasks)
    parts = {
        "solve": solved,
        "own/pointwise": tuple(group for group in groups if group.task.kind is Kind.POINTWISE),
        "reflection": tuple(group for group in groups if group.task.kind is Kind.REFLECTION),
    }
    exclusion = Exclusion(round, "evaluation", ExclusionReason.PROMPT_TOO_LONG, "p-1", Kind.SOLVE)
    records = EvaluationRecords(round, problems, parts, (exclusion,), suite)
    correct = [rollout.score.correct for group in solved for rollout in group.scored if rollout.score]
    accuracy = {"value": sum(map(bool, correct)) / len(correct), "low": None, "high": None, "n": len(correct)}
    chosen = [(place + round) % len(group.rollouts) for place, group in enumerate(solved)]
    vote = {"chosen": chosen, "tokens": 70, "budget": 90, "samples_mean": 1.5}
    return records, {"lines": {"solve": {"accuracy": accuracy, "n": len(correct)}, "vote": vote}}


def write_round(writer: RunWriter, round: int, *, journal: bool = False) -> None:
    """Record a round, with its phases first if asked."""
    records, phases, report = make_round(round)
    if journal:
        for index, (period, phase, made) in enumerate(phases):
            writer.record_phase(round, index, period, phase, made)
    writer.finish_round(records, report)


def fill_checkpoint(folder: Path) -> None:
    """Files such as a checkpoint has, in a subfolder too."""
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "state").mkdir()
    (folder / "state" / "trainer.json").write_text('{"completed": 1}')


def run_and_write_forever(path: str, ready: str) -> None:
    """Target of a process that is killed: continues a run, phase by phase, from wherever it stands."""
    run = Path(path)
    writer = RunWriter.open(run) if (run / "run.json").exists() else RunWriter.create(run, CONFIG, ENVIRONMENT)
    Path(ready).touch()
    while True:
        round = writer.last_round + 1
        records, phases, report = make_round(round)
        for index, (period, phase, made) in enumerate(phases):
            if writer.recall_phase(round, index, period, phase) is None:
                writer.record_phase(round, index, period, phase, made)
            if index == 2 and round % 3 == 0:
                writer.write_checkpoint(checkpoint_name(round, in_progress=True), fill_checkpoint)
        writer.finish_round(records, report)
        for suite in (HELD_OUT, OTHER_SUITE):
            writer.write_evaluation(*make_evaluation(round, suite))
        writer.write_checkpoint(checkpoint_name(round), fill_checkpoint)
        writer.prune_checkpoints(2)
        if round % 5 == 0 and not (run / "discarded" / f"{round // 5:04d}").exists():
            writer.drop_rounds_after(round - 2)
