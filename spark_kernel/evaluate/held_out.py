"""Held-out evaluation: solving, judging, reflecting and the test-time loop on problems that training never sees.

It draws from its own keys, so it disturbs no training draw and may be repeated or left out. The model judges its
*own* fresh answers (self-judgement) and, where given, a frozen pool of candidates: the initial model's answers. Judges
see the natural distribution of candidates, not the balanced one of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from spark_kernel.config.sections import EvaluationSection, LoopSection, RolloutSection
from spark_kernel.errors import InputError, StopCheck
from spark_kernel.evaluate.cases import STAGE, Candidate, Case, CaseMaker, by_problem, candidates_of, too_long
from spark_kernel.evaluate.chains import chain_groups
from spark_kernel.evaluate.kind_stats import exclusion_counts
from spark_kernel.evaluate.method_lines import method_lines
from spark_kernel.evaluate.summaries import (
    answer_summary,
    final_correct,
    judge_summary,
    loop_summary,
    reflection_summary,
)
from spark_kernel.evaluate.tournament import hold_tournament, tournament_lines
from spark_kernel.keyed_random import derive_seed
from spark_kernel.prompts.build import WrittenPrompt
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Problem, Rollout, Score, View
from spark_kernel.rollout.engine import RolloutEngine, Sampling
from spark_kernel.rollout.roll_out import prompt_limit
from spark_kernel.test_time.asking import image_paths
from spark_kernel.test_time.equality import label_by_mathematics, label_by_text
from spark_kernel.test_time.loop import self_correct
from spark_kernel.test_time.steps import Attempt, LoopSettings
from spark_kernel.test_time.verdict_probability import Encode, yes_by_rollout
from spark_kernel.verify.verifier import VerifyRequest

OWN_JUDGEMENTS = f"own/{Kind.POINTWISE}/{View.ANSWER}"
"""The line whose verdicts choose among sampled answers: the loop's judge sees the answer alone, too."""

GREEDY_LOOP = LoopSection()


class Scorer(Protocol):
    """What scores outputs, such as `verify.VerifierPool`."""

    def score(self, requests: Sequence[VerifyRequest]) -> list[Score]:
        """One score per request, in order."""
        ...


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """What an evaluation found.

    `groups`: every task with its scored rollouts, by line ("solve", "own/pointwise/answer", "own/pairwise/full",
    "reflection", "loop/solve", "loop/pointwise", "loop/reflection", "frozen/..."), for the run folder. `candidates`:
    the model's own answers that may be judged; stored at round 0 they are the frozen pool of later rounds.
    `summary`: the numbers of each line (docs/measures.md), JSON-ready, None where undefined.
    """

    round: int
    policy_version: int
    groups: Mapping[str, tuple[Group, ...]]
    attempts: tuple[Attempt, ...]
    candidates: tuple[Candidate, ...]
    exclusions: tuple[Exclusion, ...]
    summary: Mapping[str, Any]


def evaluate_held_out(
    engine: RolloutEngine,
    pool: Scorer,
    problems: Sequence[Problem],
    rollout: RolloutSection,
    evaluation: EvaluationSection,
    *,
    seed: int,
    round: int,
    loop: LoopSection = GREEDY_LOOP,
    context_length: int | None = None,
    frozen: Sequence[Candidate] = (),
    encode: Encode | None = None,
    image_root: Path | None = None,
    on_progress: Callable[[str, int, int], None] = lambda _line, _count, _total: None,
    check_stop: StopCheck = lambda: None,
) -> HeldOutEvaluation:
    """Evaluate the policy the engine holds.

    Sampling is at temperature 1, the loop decodes as `loop` says. Lengths are the rollouts' own. Every candidate is
    judged in both views, a pair in both orders, and per problem the first right and the first wrong answer are
    reflected on.

    Args:
        rollout: how long prompts and outputs may be.
        evaluation: how much is asked.
        seed: the run's seed; rounds share all draws, so that they differ by the weights alone.
        loop: rules and sampling of the test-time loop.
        context_length: most tokens of prompt and output together; prompts that do not fit become exclusions, as in
            training (`roll_out.prompt_limit`). None: no bound.
        frozen: candidates for the frozen lines, of these problems (`HeldOutEvaluation.candidates` of round 0).
        encode: text to token ids; where given, judges' probabilities of "Yes" are computed and their calibration too.
        on_progress: receives the line, the number of its outputs finished since the last call, and how many it will
            have in all; 0 for the loop, whose chains end when the judge accepts.
        check_stop: called between and inside the stages; raises `Stopped` to abandon the evaluation.

    Raises:
        InputError: no problems, a problem twice, or a frozen candidate of another problem.
    """
    known = _by_id(problems)
    if strangers := sorted({c.problem_id for c in frozen} - set(known)):
        raise InputError(
            f"The frozen pool holds candidates of {len(strangers)} problem(s) that are not evaluated, the first is "
            f"{strangers[0]}: evaluate the same problems in every round."
        )
    asker = _Asker(
        engine,
        pool,
        rollout,
        evaluation,
        loop,
        context_length,
        seed,
        image_root,
        encode,
        on_progress,
        check_stop,
    )
    own = CaseMaker(known, seed, round, "own")
    solved, left_out = asker.ask("solve", [own.solve(problem) for problem in problems], evaluation.samples)
    candidates, unusable = candidates_of(solved)
    groups: dict[str, tuple[Group, ...]] = {"solve": solved}
    lines: dict[str, Any] = {"solve": answer_summary(solved)}
    exclusions = [*left_out, *unusable]
    pools = {"own": (own, candidates)}
    if frozen:
        pools["frozen"] = (CaseMaker(known, seed, round, "frozen"), tuple(frozen))
    own_yes: Mapping[str, float] | None = None
    for name, (maker, members) in pools.items():
        asked, left_out = _judge_cases(maker, members)
        exclusions += left_out
        for line, cases in asked.items():
            judged, left_out = asker.ask(f"{name}/{line}", cases, 1)
            groups[f"{name}/{line}"] = judged
            yes = asker.probabilities(judged)
            lines[f"{name}/{line}"] = judge_summary(judged, cases[0].task.kind, yes)
            if f"{name}/{line}" == OWN_JUDGEMENTS:
                own_yes = yes
            exclusions += left_out
    if cases := _reflection_cases(own, candidates):
        groups["reflection"], left_out = asker.ask("reflection", cases, 1)
        lines["reflection"] = reflection_summary(groups["reflection"])
        exclusions += left_out
    if evaluation.tournament:
        asker.check_stop()
        held = hold_tournament(CaseMaker(known, seed, round, "tournament"), candidates, asker.ask)
        groups["tournament/pairwise"] = tuple(held.groups)
        lines |= tournament_lines(held, solved, groups.get(OWN_JUDGEMENTS, ()))
        exclusions += held.exclusions
    attempts: tuple[Attempt, ...] = ()
    if evaluation.reflections:
        attempts = asker.loop(known, solved)
        chains = chain_groups(attempts, known, pool.score, round=round, policy_version=engine.version)
        groups |= {f"loop/{kind}": tuple(g for g in chains if g.task.kind is kind) for kind in _kinds(chains)}
        lines["greedy"] = answer_summary(groups.get("loop/solve", ()))
        lines["loop"] = loop_summary(attempts, chains)
        if evaluation.methods:
            by_mathematics = evaluation.same_answers == "mathematics"
            label = label_by_mathematics(pool.score) if by_mathematics else label_by_text
            judged = groups.get(OWN_JUDGEMENTS, ())
            lines |= method_lines(solved, judged, own_yes, attempts, final_correct(attempts, chains), label)
    summary = {
        "problems": len(problems),
        "policy_version": engine.version,
        "lines": lines,
        "exclusions": exclusion_counts(exclusions),
    }
    return HeldOutEvaluation(round, engine.version, groups, attempts, candidates, tuple(exclusions), summary)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Engine and scorer with everything that stays the same from line to line."""

    engine: RolloutEngine
    pool: Scorer
    rollout: RolloutSection
    evaluation: EvaluationSection
    loop_section: LoopSection
    context_length: int | None
    seed: int
    image_root: Path | None
    encode: Encode | None
    on_progress: Callable[[str, int, int], None]
    check_stop: StopCheck

    def ask(self, line: str, cases: Sequence[Case], samples: int) -> tuple[tuple[Group, ...], list[Exclusion]]:
        """Sample and score the cases whose prompts fit; the others come back as exclusions."""
        self.check_stop()
        prompts = [self._prompt(case, samples) for case in cases]
        counts = self.engine.count_tokens(prompts)
        limits = [prompt_limit(self.rollout, case.task.kind, self.context_length) for case in cases]
        measured = list(zip(cases, prompts, counts, limits, strict=True))
        good = [(case, prompt) for case, prompt, count, limit in measured if count <= limit]
        left_out = [too_long(case, count, limit) for case, _, count, limit in measured if count > limit]
        if not good:
            return (), left_out
        version = self.engine.version
        completions = self.engine.sample(
            [prompt for _, prompt in good],
            self._sampling(good[0][0].task.kind, temperature=1.0),
            on_progress=lambda count: self.on_progress(line, count, len(good) * samples),
            check_stop=self.check_stop,
        )
        requests = [
            VerifyRequest(completion.text, case.problem, case.task)
            for (case, _), outputs in zip(good, completions, strict=True)
            for completion in outputs
        ]
        scores = iter(self.pool.score(requests))
        groups = []
        for (case, _), outputs in zip(good, completions, strict=True):
            rollouts = tuple(
                Rollout(
                    id=f"{case.task.id}-{index}",
                    task_id=case.task.id,
                    index=index,
                    policy_version=version,
                    token_ids=completion.token_ids,
                    logprobs=completion.logprobs,
                    text=completion.text,
                    truncated=completion.truncated,
                    seconds=completion.seconds,
                    score=next(scores),
                )
                for index, completion in enumerate(outputs)
            )
            groups.append(Group(case.task, rollouts))
        return tuple(groups), left_out

    def loop(self, problems: Mapping[str, Problem], solved: Sequence[Group]) -> tuple[Attempt, ...]:
        """The test-time loop, one chain per problem that was solved, begun in the same words."""
        self.check_stop()
        tasks = [group.task for group in solved]
        return self_correct(
            self.engine,
            [problems[task.problem_id] for task in tasks],
            self._loop_settings,
            seed=derive_seed(self.seed, STAGE),
            solve_prompts={task.problem_id: WrittenPrompt(task.template_id, task.messages) for task in tasks},
            image_root=self.image_root,
            on_progress=lambda count: self.on_progress("loop", count, 0),
            check_stop=self.check_stop,
        )

    @property
    def _loop_settings(self) -> LoopSettings:
        """Greedy but for reflections where the run says so; by our rules or, where it asks for it, the authors'."""
        solve, judge = (self._sampling(kind, temperature=0.0) for kind in (Kind.SOLVE, Kind.POINTWISE))
        again = replace(solve, temperature=self.loop_section.reflection_temperature)
        usual = LoopSettings(solve, judge, again, reflections=self.evaluation.reflections)
        return usual.by_rule(faithful=self.loop_section.faithful)

    def _sampling(self, kind: Kind, *, temperature: float) -> Sampling:
        longest = prompt_limit(self.rollout, kind, self.context_length)
        return Sampling(self.rollout.limit(kind), temperature, max_prompt_tokens=longest)

    def probabilities(self, groups: Sequence[Group]) -> Mapping[str, float] | None:
        """Each pointwise rollout's probability of "Yes", by rollout id; None without an encoder or for pairs."""
        if self.encode is None or not groups or groups[0].task.kind is not Kind.POINTWISE:
            return None
        self.check_stop()
        return yes_by_rollout(self.engine, self.encode, groups, self.image_root)

    def _prompt(self, case: Case, samples: int) -> Prompt:
        seeds = tuple(derive_seed(self.seed, STAGE, case.key, index) for index in range(samples))
        return Prompt(case.task.id, case.task.messages, seeds, image_paths(case.problem, self.image_root))


def _judge_cases(maker: CaseMaker, candidates: Sequence[Candidate]) -> tuple[dict[str, list[Case]], list[Exclusion]]:
    """The judging cases by line, pointwise and pairwise in every view; and the problems whose pairs are equal."""
    lines: dict[str, list[Case]] = {}
    left_out = []
    for problem_id, members in by_problem(candidates).items():
        pair = maker.draw_pair(members)
        if pair is None and len({candidate.correct for candidate in members}) == 2:
            reason = ExclusionReason.EQUAL_ANSWERS
            left_out.append(Exclusion(maker.round, STAGE, reason, problem_id, Kind.PAIRWISE, f"{maker.line} answers"))
        for view in View:
            for candidate in members:
                lines.setdefault(f"{Kind.POINTWISE}/{view}", []).append(maker.pointwise(candidate, view))
            if pair:
                lines.setdefault(f"{Kind.PAIRWISE}/{view}", []).extend(maker.pair(*pair, view))
    return lines, left_out


def _reflection_cases(maker: CaseMaker, candidates: Sequence[Candidate]) -> list[Case]:
    """Per problem the first correct and the first wrong candidate."""
    cases = []
    for members in by_problem(candidates).values():
        for correct in (True, False):
            chosen = [candidate for candidate in members if candidate.correct is correct][:1]
            cases += [maker.reflection(candidate, View.FULL) for candidate in chosen]
    return cases


def _by_id(problems: Sequence[Problem]) -> dict[str, Problem]:
    known = {problem.id: problem for problem in problems}
    if not problems or len(known) < len(problems):
        raise InputError("A held-out evaluation needs at least one problem, and each problem only once.")
    return known


def _kinds(groups: Iterable[Group]) -> list[Kind]:
    present = {group.task.kind for group in groups}
    return [kind for kind in Kind if kind in present]
