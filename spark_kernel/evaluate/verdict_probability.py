"""A judge's probability of "Yes": what it put on the verdict where its box stands, over the allowed verdicts only.

The judge reasons first, so the probability is read behind its own reasoning: the text up to the opening of the box,
followed by each allowed verdict in turn, is scored by the engine, and the two probabilities are made to sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from spark_kernel.prompts.verdicts import BOX, read_verdict
from spark_kernel.records import Group, Parse, Task
from spark_kernel.rollout.engine import Prompt, RolloutEngine

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, without special tokens."""


def yes_probabilities(
    engine: RolloutEngine, encode: Encode, groups: Sequence[Group], image_root: Path | None = None
) -> dict[str, float]:
    """The probability of "Yes" of every pointwise rollout with a readable verdict, by rollout id.

    p = P(yes) / (P(yes) + P(no)); P(v): probability, at temperature 1, of the tokens of "v}" after the shared start.
    The text is encoded anew, so a model that sampled an unusual split of it is scored on the usual one.
    """
    prompts: list[Prompt] = []
    outputs: list[list[tuple[int, ...]]] = []
    places: list[list[tuple[str, int]]] = []
    for group in groups:
        yes, no = spellings(group.task)
        rows: list[tuple[int, ...]] = []
        where: list[tuple[str, int]] = []
        for rollout in group.rollouts:
            if rollout.score is None or rollout.score.parse is not Parse.OK:
                continue
            opening = verdict_opening(rollout.text, (yes, no))
            if opening is None:
                continue
            pair = [tuple(encode(opening + verdict + "}")) for verdict in (yes, no)]
            shared = sum(1 for _ in takewhile(lambda ab: ab[0] == ab[1], zip(*pair, strict=False)))
            where.append((rollout.id, shared))
            rows += pair
        if rows:
            root = image_root or Path()
            images = tuple(root / image.path for image in group.task.images)
            prompts.append(Prompt(group.task.id, group.task.messages, (), images))
            outputs.append(rows)
            places.append(where)
    if not prompts:
        return {}
    found = {}
    for where, scores in zip(places, engine.score(prompts, outputs), strict=True):
        for index, (rollout_id, shared) in enumerate(where):
            yes_logprob, no_logprob = (math.fsum(row[shared:]) for row in scores[2 * index : 2 * index + 2])
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
