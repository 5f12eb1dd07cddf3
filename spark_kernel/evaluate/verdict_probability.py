"""Judges' probabilities of "Yes" by rollout, and what their calibration is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Group, Parse
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.test_time.verdict_probability import Encode, Judged
from spark_kernel.test_time.verdict_probability import yes_probabilities as probabilities_of_texts


def yes_probabilities(
    engine: RolloutEngine, encode: Encode, groups: Sequence[Group], image_root: Path | None = None
) -> dict[str, float]:
    """The probability of "Yes" of every pointwise rollout with a readable verdict, by rollout id."""
    root = image_root or Path()
    judged: list[Judged] = []
    ids: list[list[str]] = []
    for group in groups:
        read = [r for r in group.rollouts if r.score is not None and r.score.parse is Parse.OK]
        images = tuple(root / image.path for image in group.task.images)
        prompt = Prompt(group.task.id, group.task.messages, (), images)
        judged.append(Judged(prompt, group.task.label_map, tuple(rollout.text for rollout in read)))
        ids.append([rollout.id for rollout in read])
    found = probabilities_of_texts(engine, encode, judged)
    return {
        rollout_id: probability
        for members, row in zip(ids, found, strict=True)
        for rollout_id, probability in zip(members, row, strict=True)
        if probability is not None
    }


def calibration_pairs(groups: Sequence[Group], probabilities: Mapping[str, float]) -> list[tuple[float, bool]]:
    """(probability of "Yes", candidate is correct) of the rollouts that have one."""
    return [
        (probabilities[rollout.id], group.task.label == "Yes")
        for group in groups
        for rollout in group.rollouts
        if rollout.id in probabilities
    ]
