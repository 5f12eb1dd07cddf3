"""The scores that every verifier gives in the same words."""

from __future__ import annotations

from spark_kernel.errors import ProblemError
from spark_kernel.prompts.verdicts import read_answer, write_box
from spark_kernel.records import Parse, Problem, Score


def right(answer: str, reason: str = "") -> Score:
    """Reward 1."""
    return Score(1.0, True, Parse.OK, answer, reason)


def wrong(answer: str, reason: str = "") -> Score:
    """Reward 0 for an answer that was read."""
    return Score(0.0, False, Parse.OK, answer, reason)


def no_box() -> Score:
    """Reward 0: the output has no answer."""
    return Score(0.0, False, Parse.NONE, None, "There is no closed \\boxed{} outside the thinking.")


def unreadable(answer: str, wanted: str) -> Score:
    """Reward 0: the last box does not hold what was asked for. Such an output has no answer."""
    return Score(0.0, False, Parse.NONE, None, f'The last box, "{shorten(answer)}", does not hold {wanted}.')


def bad_gold(problem: Problem, why: str) -> ProblemError:
    """A gold that its verifier cannot use, as a sentence."""
    return ProblemError(
        f'Problem {problem.id}: the gold "{shorten(problem.gold)}" is no use to the verifier "{problem.verifier}": '
        f"{why}."
    )


def check_boxable(problem: Problem, gold: str) -> None:
    """Refuse a gold that no output could state.

    Raises:
        ProblemError: empty, or its braces do not balance.
    """
    if not gold.strip():
        raise bad_gold(problem, "it is empty")
    if read_answer(write_box(gold)) != gold.strip():
        raise bad_gold(problem, "it cannot be written in \\boxed{} because its braces do not balance")


def shorten(text: str, limit: int = 60) -> str:
    """The text on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
