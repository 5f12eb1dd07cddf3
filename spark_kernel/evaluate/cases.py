"""What a held-out evaluation asks about candidate responses: judging and reflecting cases, each keyed by content.

Keys hold neither round nor policy version: every evaluation of a run asks the same question in the same words and
with the same sampling seeds, so that two evaluations differ by the weights alone (common random numbers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from spark_kernel.keyed_random import content_hash, keyed_random
from spark_kernel.prompts.build import (
    WrittenPrompt,
    answers_like_verdicts,
    pairwise_prompt,
    pointwise_prompt,
    reflection_prompt,
    solve_prompt,
)
from spark_kernel.prompts.templates import templates_of
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Origin, Problem, Rollout, Task, View
from spark_kernel.recycle.sources import normalise_answer, unusable

STAGE = "evaluation"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A verified response to a held-out problem. `index`: its place among the problem's sampled answers.

    `mixed`: whether these answers were right as well as wrong. A tuple of them, stored at round 0, is the frozen pool.
    """

    problem_id: str
    index: int
    rollout_id: str
    policy_version: int
    text: str
    answer: str
    correct: bool
    mixed: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A task of the evaluation, its problem, and the key of its draws."""

    task: Task
    problem: Problem
    key: str


@dataclass(frozen=True, slots=True)
class CaseMaker:
    """Makes the cases of one evaluation. `line` names what they measure, e.g. "own" or "frozen"."""

    problems: Mapping[str, Problem]
    seed: int
    round: int
    line: str

    def solve(self, problem: Problem) -> Case:
        """The problem itself."""
        key = self._key(Kind.SOLVE, None, problem.id)
        written = solve_prompt(problem, self._rng("template", Kind.SOLVE, problem.id))
        return self._case(Kind.SOLVE, problem, key, written, problem.gold)

    def pointwise(self, candidate: Candidate, view: View) -> Case:
        """ "Is this answer correct?"; both views of a candidate share template and letters."""
        problem = self.problems[candidate.problem_id]
        rng = self._rng("template", Kind.POINTWISE, problem.id, candidate.index)
        written = pointwise_prompt(problem, candidate.text, view, rng)
        key = self._key(Kind.POINTWISE, view, problem.id, candidate.index)
        return self._case(
            Kind.POINTWISE, problem, key, written, "Yes" if candidate.correct else "No", (candidate,), view
        )

    def pair(self, one: Candidate, two: Candidate, view: View) -> tuple[Case, Case]:
        """ "Which of the two is correct?" in both orders, in the same words."""
        problem = self.problems[one.problem_id]
        choices = templates_of(Kind.PAIRWISE, apart=answers_like_verdicts(problem))
        template = self._rng("template", Kind.PAIRWISE, problem.id).choice(choices)
        cases = []
        for first, second in ((one, two), (two, one)):
            written = pairwise_prompt(problem, template, first.text, second.text, view)
            key = self._key(Kind.PAIRWISE, view, problem.id, first.index, second.index)
            label = "A" if first.correct else "B"
            cases.append(self._case(Kind.PAIRWISE, problem, key, written, label, (first, second), view))
        return cases[0], cases[1]

    def reflection(self, candidate: Candidate, view: View) -> Case:
        """ "Check this earlier answer"."""
        problem = self.problems[candidate.problem_id]
        rng = self._rng("template", Kind.REFLECTION, problem.id, candidate.index)
        written = reflection_prompt(problem, candidate.text, view, rng)
        key = self._key(Kind.REFLECTION, view, problem.id, candidate.index)
        return self._case(Kind.REFLECTION, problem, key, written, problem.gold, (candidate,), view)

    def draw_pair(self, candidates: Sequence[Candidate]) -> tuple[Candidate, Candidate] | None:
        """A random correct and a random wrong candidate of one problem, answers different; None if there is none."""
        rng = self._rng("pair", candidates[0].problem_id)
        correct = [candidate for candidate in candidates if candidate.correct]
        for one in rng.sample(correct, len(correct)):
            answer = normalise_answer(one.answer)
            others = [c for c in candidates if not c.correct and normalise_answer(c.answer) != answer]
            if others:
                return one, rng.choice(others)
        return None

    def _rng(self, purpose: str, *key: int | str) -> Random:
        return keyed_random(self.seed, f"evaluation-{purpose}", self.line, *key)

    def _key(self, kind: Kind, view: View | None, *parts: int | str) -> str:
        return "-".join((self.line, kind, *([view] if view else []), content_hash(*parts)))

    def _case(
        self,
        kind: Kind,
        problem: Problem,
        key: str,
        written: WrittenPrompt,
        label: str,
        sources: tuple[Candidate, ...] = (),
        view: View | None = None,
    ) -> Case:
        task = Task(
            id=f"{self.round:06d}-evaluation-{key}",
            kind=kind,
            origin=Origin.SOLVE if sources else Origin.PROBLEM,
            problem_id=problem.id,
            messages=written.messages,
            images=problem.images,
            label=label,
            label_map=written.label_map,
            verifier="verdict" if kind.judges else problem.verifier,
            template_id=written.template_id,
            round=self.round,
            view=view,
            sources=tuple(source.rollout_id for source in sources),
            source_policy_version=sources[0].policy_version if sources else None,
            source_correct=tuple(source.correct for source in sources),
            source_group_mixed=sources[0].mixed if sources else None,
            gold_position=label if kind is Kind.PAIRWISE else None,
        )
        return Case(task, problem, key)


def candidates_of(groups: Iterable[Group]) -> tuple[tuple[Candidate, ...], tuple[Exclusion, ...]]:
    """The outputs of solve groups that may be judged (the rule of recycling), and the others with the reason.

    Neither balanced nor filtered by correctness: the model's natural distribution.
    """
    found: list[Candidate] = []
    left_out: list[Exclusion] = []
    for group in groups:
        for rollout in group.rollouts:
            reason = unusable(rollout)
            if reason is not None:
                left_out.append(Exclusion(group.task.round, STAGE, reason, rollout.id, Kind.POINTWISE, "no candidate"))
            else:
                found.append(_candidate(group, rollout))
    return tuple(found), tuple(left_out)


def by_problem(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """The candidates of each problem, in order."""
    grouped: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        grouped.setdefault(candidate.problem_id, []).append(candidate)
    return grouped


def too_long(case: Case, tokens: int, limit: int) -> Exclusion:
    """The exclusion of a case whose prompt does not fit."""
    task, detail = case.task, f"{tokens} tokens, {limit} fit"
    return Exclusion(task.round, STAGE, ExclusionReason.PROMPT_TOO_LONG, task.id, task.kind, detail)


def _candidate(group: Group, rollout: Rollout) -> Candidate:
    if rollout.score is None or rollout.score.correct is None or rollout.score.answer is None:
        raise AssertionError(f"rollout {rollout.id} is no source")
    return Candidate(
        problem_id=group.task.problem_id,
        index=rollout.index,
        rollout_id=rollout.id,
        policy_version=rollout.policy_version,
        text=rollout.text,
        answer=rollout.score.answer,
        correct=rollout.score.correct,
        mixed=group.is_mixed,
    )
