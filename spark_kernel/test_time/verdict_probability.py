"""A judge's probability of "Yes": what it put on the verdict where its box stands, over the allowed verdicts only.

The judge reasons first, so the probability is read behind its own reasoning: the text up to the opening of the box,
followed by each allowed verdict in turn, is scored by the engine, and the two probabilities are made to sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_kernel.prompts.prompt import Prompt
from spark_kernel.prompts.thinking import final_part
from spark_kernel.prompts.verdicts import BOX, read_verdict
from spark_kernel.records import Group, Parse
from spark_kernel.rollout.engine import RolloutEngine

Encode = Callable[[str], Sequence[int]]
"""The beginning of a recorded output to its token ids behind the prompt (`PromptEncoder.output_ids`)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A pointwise judge's prompt, its letters' meaning (None where it writes Yes or No), and what it wrote."""

    prompt: Prompt
    label_map: Mapping[str, str] | None
    texts: tuple[str, ...]


def yes_probabilities(
    engine: RolloutEngine, encode: Encode, judged: Sequence[Judged]
) -> tuple[tuple[float | None, ...], ...]:
    """The probability of "Yes" of every text, [prompt][text]; None where it has no single readable verdict.

    p = P(yes) / (P(yes) + P(no)); P(v): probability, at temperature 1, of the text up to the box and "v}" behind it.
    What precedes the verdict is common to both and falls out. The text is encoded anew, so a model that sampled an
    unusual split of it into tokens is scored on the usual one.
    """
    found: list[list[float | None]] = [[None] * len(one.texts) for one in judged]
    asked: list[tuple[int, list[int], list[tuple[int, ...]]]] = []
    for index, one in enumerate(judged):
        allowed = spellings(one.label_map)
        openings = [verdict_opening(text, allowed) for text in one.texts]
        places = [place for place, opening in enumerate(openings) if opening is not None]
        rows = [tuple(encode(f"{openings[place]}{verdict}}}")) for place in places for verdict in allowed]
        if rows:
            asked.append((index, places, rows))
    if asked:
        scores = engine.score([judged[index].prompt for index, _, _ in asked], [rows for _, _, rows in asked])
        for (index, places, _), rows_scores in zip(asked, scores, strict=True):
            sums = [math.fsum(row) for row in rows_scores]
            for place, yes_logprob, no_logprob in zip(places, sums[::2], sums[1::2], strict=True):
                found[index][place] = _logistic(yes_logprob - no_logprob)
    return tuple(tuple(row) for row in found)


def yes_by_rollout(
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
    return {
        rollout_id: probability
        for members, row in zip(ids, yes_probabilities(engine, encode, judged), strict=True)
        for rollout_id, probability in zip(members, row, strict=True)
        if probability is not None
    }


def verdict_opening(text: str, allowed: Sequence[str]) -> str | None:
    """The text up to and including the opening of the last box that holds an allowed verdict.

    None where there is none, or where such boxes disagree.
    """
    if read_verdict(text, allowed).parse is not Parse.OK:
        return None
    for match in reversed(list(BOX.finditer(text))):
        if not final_part(text[: match.end()]).endswith(match[0]):
            continue  # inside a thought
        if read_verdict(text[match.start() :], allowed).parse is not Parse.NONE:
            return text[: match.end()]
    return None


def spellings(label_map: Mapping[str, str] | None) -> tuple[str, str]:
    """What a pointwise task wants written for "Yes" and for "No": these words, or its letters."""
    written = {meaning: letter for letter, meaning in (label_map or {}).items()}
    return written.get("Yes", "Yes"), written.get("No", "No")


def _logistic(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
