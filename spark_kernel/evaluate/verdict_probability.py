"""A judge's probability of "Yes": what it put on the verdict where its box stands, over the allowed verdicts only.

The judge reasons first, so the probability is read behind its own reasoning: the text up to the opening of the box,
followed by each allowed verdict in turn, is scored by the engine, and the two probabilities are made to sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spark_kernel.prompts.prompt import Prompt
from spark_kernel.prompts.verdicts import BOX, read_verdict
from spark_kernel.records import Group, Parse, Task
from spark_kernel.rollout.engine import RolloutEngine

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, without special tokens."""


def yes_probabilities(
    engine: RolloutEngine, encode: Encode, groups: Sequence[Group], image_root: Path | None = None
) -> dict[str, float]:
    """The probability of "Yes" of every pointwise rollout with a readable verdict, by rollout id.

    p = P(yes) / (P(yes) + P(no)); P(v): probability, at temperature 1, of the text up to the box and "v}" behind it.
    What precedes the verdict is common to both and falls out. The text is encoded anew, so a model that sampled an
    unusual split of it into tokens is scored on the usual one.
    """
    prompts: list[Prompt] = []
    outputs: list[list[tuple[int, ...]]] = []
    ids: list[list[str]] = []
    for group in groups:
        yes, no = spellings(group.task)
        rows: list[tuple[int, ...]] = []
        members: list[str] = []
        for rollout in group.rollouts:
            if rollout.score is None or rollout.score.parse is not Parse.OK:
                continue
            opening = verdict_opening(rollout.text, (yes, no))
            if opening is not None:
                members.append(rollout.id)
                rows += [tuple(encode(opening + verdict + "}")) for verdict in (yes, no)]
        if rows:
            root = image_root or Path()
            images = tuple(root / image.path for image in group.task.images)
            prompts.append(Prompt(group.task.id, group.task.messages, (), images))
            outputs.append(rows)
            ids.append(members)
    if not prompts:
        return {}
    found = {}
    for members, scores in zip(ids, engine.score(prompts, outputs), strict=True):
        sums = [math.fsum(row) for row in scores]
        for rollout_id, yes_logprob, no_logprob in zip(members, sums[::2], sums[1::2], strict=True):
            found[rollout_id] = _logistic(yes_logprob - no_logprob)
    return found


def verdict_opening(text: str, allowed: Sequence[str]) -> str | None:
    """The text up to and including the opening of the last box that holds an allowed verdict; None without one."""
    for match in reversed(list(BOX.finditer(text))):
        if read_verdict(text[match.start() :], allowed).parse is not Parse.NONE:
            return text[: match.end()]
    return None


def spellings(task: Task) -> tuple[str, str]:
    """What a pointwise task wants written for "Yes" and for "No": these words, or its letters."""
    written = {meaning: letter for letter, meaning in (task.label_map or {}).items()}
    return written.get("Yes", "Yes"), written.get("No", "No")


def calibration_pairs(groups: Sequence[Group], probabilities: Mapping[str, float]) -> list[tuple[float, bool]]:
    """(probability of "Yes", candidate is correct) of the rollouts that have one."""
    return [
        (probabilities[rollout.id], group.task.label == "Yes")
        for group in groups
        for rollout in group.rollouts
        if rollout.id in probabilities
    ]


def _logistic(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
