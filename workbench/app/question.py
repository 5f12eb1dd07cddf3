"""A question to a model: what the page sends, checked before anything is done with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.keyed_random import content_hash
from spark_kernel.records import ImageRef, Problem, View
from workbench.app.limits import Limits

VERIFIERS = ("math", "numeric", "integer", "exact", "choice", "property")
"""What may compare an answer with a gold answer. A name that would import code is none of these."""
HOTTEST = 2.0
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Question:
    """A checked question. `gold` of the problem is empty where none was given; then no verifier is asked.

    `new_tokens`: longest output of a step, None for what fits. `faithful`: the loop by the authors' rules.
    """

    problem: Problem
    temperature: float
    new_tokens: int | None
    reflections: int
    view: View
    seed: int
    faithful: bool = False

    @property
    def has_gold(self) -> bool:
        """Whether a verifier can say anything."""
        return bool(self.problem.gold)


def make_question(
    text: Any,
    limits: Limits,
    *,
    image: ImageRef | None = None,
    gold: Any = "",
    verifier: Any = "math",
    temperature: Any = 0.0,
    new_tokens: Any = None,
    reflections: Any = 2,
    view: Any = "answer",
    seed: Any = 0,
    faithful: Any = False,
) -> Question:
    """The question that a page sent.

    Args:
        image: an upload that was checked (`Uploads.image`).

    Raises:
        InputError: something is missing, too long, or out of range; one sentence for the page.
    """
    question = _text(text, "The question", limits.prompt_chars)
    if not question:
        raise InputError("Ask something: the question is empty.")
    wanted = _text(gold or "", "The gold answer", limits.gold_chars)
    if verifier not in VERIFIERS:
        raise InputError(f"The verifier is one of {', '.join(VERIFIERS)}.")
    if view not in (View.ANSWER, View.FULL):
        raise InputError("The judge sees the answer or the full response.")
    if not isinstance(faithful, bool):
        raise InputError("The loop's rules are ours or the authors'.")
    images = () if image is None else (image,)
    name = content_hash(question, *(ref.sha256 for ref in images))
    return Question(
        problem=Problem(f"prompt-{name}", question, wanted, str(verifier), images),
        temperature=_number(temperature, "The temperature", 0.0, HOTTEST),
        new_tokens=None if not new_tokens else int(_number(new_tokens, "The longest output", 1, limits.new_tokens)),
        reflections=int(_number(reflections, "The number of reflections", 1, limits.reflections)),
        view=View(view),
        seed=int(_number(seed, "The seed", 0, LARGEST_SEED)),
        faithful=faithful,
    )


def _text(value: Any, what: str, most: int) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} must be text.")
    if len(value) > most:
        raise InputError(f"{what} has {len(value)} characters: at most {most} are taken.")
    return value.encode("utf-8", "replace").decode("utf-8").strip()


def _number(value: Any, what: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{what} must be a number.")
    if not low <= value <= high:
        raise InputError(f"{what} is {value:g}: allowed is {low:g} to {high:g}.")
    return float(value)
