"""The held-out evaluation that a configuration describes, of the policy that an engine holds.

The trainer asks for it between two rounds, and `standalone_evaluation` for a checkpoint or any model: the same problems
in the same words with the same draws, so that their numbers can be put side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from spark_kernel.errors import StopCheck
from spark_kernel.evaluate.cases import Candidate
from spark_kernel.evaluate.held_out import HeldOutEvaluation, evaluate_held_out
from spark_kernel.evaluate.parts import EvaluationParts
from spark_kernel.problems.images import adopt_images
from spark_kernel.runs.bundles import EvaluationRecords


def evaluate_policy(
    parts: EvaluationParts,
    *,
    round: int,
    frozen: Sequence[Candidate],
    images_root: Path,
    on_progress: Callable[[str, int, int], None] = lambda _line, _finished, _total: None,
    check_stop: StopCheck = lambda: None,
) -> tuple[HeldOutEvaluation, EvaluationRecords]:
    """Ask the policy everything that a held-out evaluation asks.

    Args:
        parts: engine, policy, problems and configuration.
        round: the round that the weights come after.
        frozen: candidates for the frozen lines; those of problems that are not evaluated are left out, and the parts'
            remarks say so.
        images_root: the folder that the problems' images are copied to.
        on_progress: receives the line, the number of its outputs that are finished, and how many it will have; 0 where
            that is not known.
        check_stop: raises `Stopped` to abandon the evaluation.

    Returns:
        What was found, and the records of it for a run folder.

    Raises:
        InputError: no problem is held out, or one cannot be used.
    """
    config = parts.config
    chosen = parts.stream.held_out(config.evaluation.problems, seed=config.seed)
    problems = tuple(adopt_images(problem, images_root) for problem in chosen)
    evaluated, finished = {problem.id for problem in problems}, Counter[str]()
    asked = {candidate.problem_id for candidate in frozen}
    if asked - evaluated:
        parts.remarks.add(
            f"The frozen lines hold {len(asked & evaluated)} of the {len(asked)} problems of the first evaluation: the "
            "others are not evaluated."
        )

    def progress(line: str, count: int, total: int) -> None:
        finished[line] += count
        on_progress(line, finished[line], total)

    evaluation = evaluate_held_out(
        parts.engine,
        parts.pool,
        problems,
        config.rollout,
        config.evaluation,
        seed=config.seed,
        round=round,
        loop=config.loop,
        context_length=parts.model.context_length,
        frozen=[candidate for candidate in frozen if candidate.problem_id in evaluated],
        encode=parts.model.encoder.output_ids,
        image_root=images_root,
        on_progress=progress,
        check_stop=check_stop,
    )
    return evaluation, EvaluationRecords(round, problems, evaluation.groups, evaluation.exclusions)
