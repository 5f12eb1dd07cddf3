"""Judge outputs: is the verdict the label?"""

from __future__ import annotations

from spark_kernel.errors import ProblemError
from spark_kernel.prompts.verdicts import read_verdict
from spark_kernel.records import Kind, Parse, Problem, Score, Task
from spark_kernel.verify.findings import right, wrong
from spark_kernel.verify.verifier import VerifyRequest


class VerdictVerifier:
    """Reward 1 exactly when the output's verdict means `task.label`; the gold of the problem plays no part."""

    def score(self, request: VerifyRequest) -> Score:
        """OK with the verdict's meaning, NONE without a verdict, AMBIGUOUS where boxed verdicts disagree.

        Of verdicts that disagree the last one holds all the same where the output ends with it (`read_verdict`).

        Raises:
            ValueError: the task is no judge task, or its label is not among its verdicts.
        """
        task = request.task
        meanings = verdict_meanings(task)
        reading = read_verdict(request.output, meanings)
        allowed = " or ".join(meanings)
        if reading.verdict is None:
            said = "no verdict" if reading.parse is Parse.NONE else "verdicts that disagree"
            return Score(0.0, False, reading.parse, None, f"The output holds {said} ({allowed} in \\boxed{{}}).")
        meaning = meanings[reading.verdict]
        return right(meaning) if meaning == task.label else wrong(meaning, f"The label is {task.label}.")

    def check_gold(self, problem: Problem) -> None:
        """No problem can have this verifier: judge tasks are made by recycling.

        Raises:
            ProblemError: always.
        """
        raise ProblemError(
            f'Problem {problem.id}: the verifier "verdict" scores judge tasks, which recycling makes; '
            "give the problem one that reads answers, such as math, integer or exact."
        )


def verdict_meanings(task: Task) -> dict[str, str]:
    """What each allowed verdict of a judge task means, in the order in which they are offered.

    Raises:
        ValueError: the task is no judge task, or its label is not among the meanings.
    """
    if task.kind is Kind.PAIRWISE:
        meanings = dict(task.label_map) if task.label_map else {"A": "A", "B": "B"}
    elif task.kind is Kind.POINTWISE:
        meanings = dict(task.label_map) if task.label_map else {"Yes": "Yes", "No": "No"}
    else:
        raise ValueError(f"task {task.id} is a {task.kind} task: it has no verdict")
    if task.label not in meanings.values():
        raise ValueError(f'task {task.id} has the label "{task.label}", which is none of its verdicts')
    return meanings
