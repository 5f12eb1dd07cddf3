"""The scores that every verifier gives in the same words."""

from __future__ import annotations

from spark_kernel.errors import ProblemError
from spark_kernel.prompts.verdicts import read_answer, write_box
from spark_kernel.records import Kind, Origin, Parse, Problem, Score, Task
from spark_kernel.verify.verifier import Verifier, VerifyRequest


def right(answer: str, reason: str = "") -> Score:
    """Reward 1."""
    return Score(1.0, True, Parse.OK, answer, reason)


def wrong(answer: str, reason: str = "") -> Score:
    """Reward 0 for an answer that was read."""
    return Score(0.0, False, Parse.OK, answer, reason)


def no_box() -> Score:
    """Reward 0: the output has no answer."""
    return Score(
        0.0, False, Parse.NONE, None, "There is no closed \\boxed{} outside the thinking, or the last one is cut off."
    )


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
        raise bad_gold(
            problem, "it cannot be written in \\boxed{}: its braces do not balance, or it holds a tag of thinking"
        )


def check_own_answer(verifier: Verifier, problem: Problem) -> None:
    """Refuse a gold that does not score right when an output states it.

    Raises:
        ProblemError: the reward is below 1.
    """
    task = Task("gold", Kind.SOLVE, Origin.PROBLEM, problem.id, (), problem.gold, problem.verifier, "none", 0)
    score = verifier.score(VerifyRequest(write_box(problem.gold), problem, task))
    if not score.correct:
        why = score.reason or "it is not equal to itself"
        raise bad_gold(problem, f"its own answer does not score right ({why.rstrip('.')})")


def shorten(text: str, limit: int = 60) -> str:
    """The text on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
