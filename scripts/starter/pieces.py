"""What every demonstration is made of: a prompt, weighted pieces of a response, and the lines that all kinds share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from spark_kernel.prompts import build
from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Kind, Parse, Problem, Rollout, Score, Task

LARGEST = 60
DECISIVE = 5.0
"""Weight of a comparison's outcome and of a verdict: one token each in a long output, learnt last without it."""

Piece = tuple[str, float]
"""A piece of a response and its weight in the loss."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and its response in pieces, each with its weight in the loss. `task` is None for drills."""

    user: str
    pieces: tuple[Piece, ...]
    task: Task | None = None

    @property
    def response(self) -> str:
        """The whole response."""
        return "".join(text for text, _ in self.pieces)


def answered(task: Task, *pieces: Piece) -> Demonstration:
    """The demonstration of a task."""
    return Demonstration(task.messages[0].text, pieces, task)


def compare(mine: object, theirs: object, gap: object) -> tuple[Piece, ...]:
    """The line that compares two values, in weighted pieces."""
    return (f"{mine} vs {theirs} off by ", 1.0), (f"{gap}", DECISIVE), ("\n", 1.0)


def boxed(content: str, weight: float) -> tuple[Piece, ...]:
    """A box in pieces, its content of this weight."""
    before, after = write_box("|").split("|")
    return (before, 1.0), (content, weight), (after, 1.0)


def verdict(word: str) -> tuple[Piece, ...]:
    """The boxed verdict, in weighted pieces."""
    return boxed(word, DECISIVE)


def judged(task: Task) -> tuple[Piece, ...]:
    """The verdict that a judge task's label asks for; where it asks for letters, what the letter means comes first."""
    if not task.label_map:
        return verdict(task.label)
    letter = next(letter for letter, means in task.label_map.items() if means == task.label)
    if task.kind is Kind.PAIRWISE:
        return verdict(letter)
    return (build.MEANING[task.label] + "\n", DECISIVE), *verdict(letter)


def candidate(problem: Problem, name: str, text: str, answer: str, *, correct: bool) -> Rollout:
    """A scored answer to be judged: its working, then the answer in a box."""
    return Rollout(
        id=name,
        task_id=problem.id,
        index=0,
        policy_version=0,
        token_ids=(),
        logprobs=(),
        text=text + write_box(answer),
        truncated=False,
        score=Score(reward=float(correct), correct=correct, parse=Parse.OK, answer=answer),
    )


def slip(value: int, rng: Random) -> int:
    """Another value, close to this one as a rule."""
    while True:
        other = value + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10)) if rng.random() < 0.7 else rng.randint(0, LARGEST)
        if other != value and 0 <= other <= LARGEST:
            return other
