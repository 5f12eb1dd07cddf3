"""The test-time loop of a held-out evaluation: first answer -> verdict -> reflection, and what it was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_kernel.evaluate.intervals import mcnemar_exact
from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.reader import RunReader
from workbench.views.task_rows import label_letters, prompt_messages

ALTERNATIVES = ("vote", "best_of", "weighted_vote")
TRANSITIONS = ("right_right", "wrong_right", "right_wrong", "wrong_wrong")


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One prompt and its output. `kind`: solve, pointwise (a verdict about step `about`) or reflection (on it).

    `answer`: what was read: an answer or a verdict, None where nothing was. `correct`: of an answer, whether the
    verifier calls it right; of a verdict, whether the verdict is. `tokens` of the output.
    """

    index: int
    kind: str
    about: int | None
    answer: str | None
    correct: bool | None
    parse: str | None
    tokens: int
    text: str
    messages: tuple[tuple[str, str], ...]
    label_map: Mapping[str, str] | None
    rollout_id: str


@dataclass(frozen=True, slots=True)
class Chain:
    """One problem's steps, and the step whose answer the loop returned.

    `stop`: "accepted", "abstained", "rejected", "no_answer" or "cut short" (`test_time.steps.Stop`). `transition`: one
    of `TRANSITIONS` (before_after), None where the first or the final answer has no finding.
    """

    problem_id: str
    question: str
    gold: str
    steps: tuple[ChainStep, ...]
    final: int
    stop: str
    transition: str | None
    tokens: int

    @property
    def first(self) -> ChainStep:
        """The first answer."""
        return self.steps[0]

    @property
    def final_step(self) -> ChainStep:
        """The step whose answer was returned."""
        return self.steps[self.final]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another use of about as many tokens: a choice among sampled answers (docs/measures.md).

    `name`: "vote", "best_of" or "weighted_vote". `accuracy` with its 95 % interval as (value, low, high); `tokens`
    spent of `budget`; `samples`: mean number of answers; `mcnemar_p` of the loop against it, exact.
    """

    name: str
    accuracy: tuple[float | None, float | None, float | None]
    n: int
    samples: float | None
    tokens: int
    budget: int
    mcnemar_p: float | None


@dataclass(frozen=True, slots=True)
class SelfCorrection:
    """An evaluation's loop.

    `transitions`: counts by `TRANSITIONS`. `before`, `after`: shares right with 95 % intervals as (value, low, high);
    `difference` after minus before, likewise. `mcnemar_p`: exact. `tokens_first`: of the first answers, `tokens`: of
    all steps. `stops`: how chains ended. `summary`: the line "loop" as the evaluation wrote it.
    `alternatives`: what else so many tokens buy.
    """

    round: int
    chains: tuple[Chain, ...]
    n: int
    transitions: Mapping[str, int]
    before: tuple[float | None, float | None, float | None]
    after: tuple[float | None, float | None, float | None]
    difference: tuple[float | None, float | None, float | None]
    mcnemar_p: float | None
    tokens_first: int
    tokens: int
    stops: Mapping[str, int]
    summary: Mapping[str, Any]
    alternatives: tuple[Alternative, ...] = ()

    def with_transition(self, transition: str) -> tuple[Chain, ...]:
        """The chains of one cell of the transition table, e.g. "right_wrong"."""
        return tuple(chain for chain in self.chains if chain.transition == transition)


def self_correction(reader: RunReader, round: int, suite: str = HELD_OUT) -> SelfCorrection | None:
    """The loop of the evaluation of a suite after a round; None where the evaluation had none.

    Raises:
        RunFolderError: there is no such evaluation.
    """
    lines = reader.evaluation(round, suite).get("lines", {})
    loop = lines.get("loop")
    if loop is None:
        return None
    problems = {row["id"]: row for row in reader.table("eval_problems", [round], suite).to_pylist()}
    chains = _chains(reader, round, suite, problems)
    counted = {name: sum(chain.transition == name for chain in chains) for name in TRANSITIONS}
    n = sum(counted.values())
    return SelfCorrection(
        round=round,
        chains=chains,
        n=n,
        transitions=counted,
        before=_estimate(loop.get("before")),
        after=_estimate(loop.get("after")),
        difference=(loop.get("difference"), loop.get("difference_low"), loop.get("difference_high")),
        mcnemar_p=mcnemar_exact(counted["wrong_right"], counted["right_wrong"]) if n else None,
        tokens_first=sum(chain.first.tokens for chain in chains),
        tokens=sum(chain.tokens for chain in chains),
        stops=dict(loop.get("stops", {})),
        summary=loop,
        alternatives=_alternatives(lines),
    )


def _alternatives(lines: Mapping[str, Any]) -> tuple[Alternative, ...]:
    return tuple(
        Alternative(
            name=name,
            accuracy=_estimate(line.get("accuracy")),
            n=line["n"],
            samples=line.get("samples_mean"),
            tokens=line["tokens"],
            budget=line["budget"],
            mcnemar_p=(line.get("loop") or {}).get("mcnemar_p"),
        )
        for name in ALTERNATIVES
        if (line := lines.get(name)) is not None
    )


def _chains(reader: RunReader, round: int, suite: str, problems: Mapping[str, Mapping[str, Any]]) -> tuple[Chain, ...]:
    tasks = {
        (row["part"], row["group_index"]): row
        for row in reader.table("eval_tasks", [round], suite).to_pylist()
        if row["part"].startswith("loop/")
    }
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row in reader.table("eval_rollouts", [round], suite).to_pylist():
        if row["part"].startswith("loop/"):
            found.setdefault(row["problem_id"], []).append((tasks[row["part"], row["group_index"]], row))
    chains = []
    for problem_id, members in found.items():
        members.sort(key=lambda member: _index(member[0]["id"]))
        places = {row["id"]: index for index, (_, row) in enumerate(members)}
        steps = tuple(
            ChainStep(
                index=index,
                kind=task["kind"],
                about=places.get(task["sources"][0]) if task["sources"] else None,
                answer=row["answer"],
                correct=row["correct"],
                parse=row["parse"],
                tokens=len(row["token_ids"]),
                text=row["text"],
                messages=prompt_messages(task),
                label_map=label_letters(task),
                rollout_id=row["id"],
            )
            for index, (task, row) in enumerate(members)
        )
        final, stop = _ending(steps)
        problem = problems.get(problem_id, {})
        chains.append(
            Chain(
                problem_id=problem_id,
                question=problem.get("question", ""),
                gold=problem.get("gold", ""),
                steps=steps,
                final=final,
                stop=stop,
                transition=_transition(steps[0].correct, steps[final].correct),
                tokens=sum(step.tokens for step in steps),
            )
        )
    return tuple(chains)


def _ending(steps: Sequence[ChainStep]) -> tuple[int, str]:
    """The step that was returned and why, by the rules of docs/measures.md, "The test-time loop" (default settings)."""
    last = steps[-1]
    has_first = steps[0].answer is not None
    if last.kind == "pointwise" and last.about is not None:
        verdict = last.answer if last.parse == "ok" else None
        if verdict == "Yes":
            return last.about, "accepted"
        if verdict is None:
            return last.about, "abstained"
        return (0, "rejected") if has_first else (last.about, "rejected")
    if last.answer is None:
        return (0, "no_answer") if has_first else (len(steps) - 1, "no_answer")
    return len(steps) - 1, "cut short"


def _index(task_id: str) -> int:
    """A step's number: the end of its task's id."""
    tail = task_id.rpartition("-")[2]
    return int(tail) if tail.isdigit() else 0


def _transition(before: bool | None, after: bool | None) -> str | None:
    if before is None or after is None:
        return None
    return f"{'right' if before else 'wrong'}_{'right' if after else 'wrong'}"


def _estimate(value: Mapping[str, Any] | None) -> tuple[float | None, float | None, float | None]:
    return (value["value"], value["low"], value["high"]) if value else (None, None, None)
