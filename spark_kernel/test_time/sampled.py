"""Sampling n answers and judging them, one question or many; and every method at the token cost of the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spark_kernel.errors import InputError, StopCheck
from spark_kernel.prompts.build import WrittenPrompt
from spark_kernel.records import Kind, Problem
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.test_time.asking import Asker
from spark_kernel.test_time.budget import Spending
from spark_kernel.test_time.equality import LabelAnswers, Labels, label_by_text
from spark_kernel.test_time.loop import self_correct
from spark_kernel.test_time.methods import Method, Sampled, choose, spend_on
from spark_kernel.test_time.steps import Attempt, LoopSettings, Step
from spark_kernel.test_time.verdict_probability import Encode
from spark_kernel.test_time.vote import Choice

ANSWERS, JUDGEMENTS = "test-time-answers", "test-time-judgements"
"""The names of the random draws; no draw of the loop is touched, and the first k of n samples do not depend on n."""
MOST_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class EqualCost:
    """The loop and every sampling method on the same questions, for the same number of output tokens.

    `sampled`, `labels`: all samples that were drawn, and which answers are the same; a method sees only the first
    `spending[method].samples` of a question. `choices[method]`: one per question, an index into its samples.
    """

    attempts: tuple[Attempt, ...]
    sampled: tuple[Sampled, ...]
    labels: tuple[Labels, ...]
    spending: Mapping[Method, Spending]
    choices: Mapping[Method, tuple[Choice, ...]]

    def answers(self, method: Method) -> tuple[Step, ...]:
        """The chosen samples, one per question."""
        return tuple(one.answers[c.index] for one, c in zip(self.sampled, self.choices[method], strict=True))


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples answers to questions and judges them. Needs no gold answer and no verifier.

    Args:
        settings: `solve` and `judge` say how, `judge_view` what a judge sees; reflections are not used.
        seed: with a question's id and a sample's number it determines every draw, whatever else is in the batch.
        solve_prompts: how to ask a question, by its id; where absent a template is drawn.
        image_root: folder that relative image paths start from.
        encode: text to token ids; where given, every judgement gets its probability of "Yes".
        on_progress: receives the number of outputs finished since the last call.

    Raises:
        InputError: `solve` is greedy, so that all samples would be the same.
    """

    engine: RolloutEngine
    settings: LoopSettings
    seed: int
    solve_prompts: Mapping[str, WrittenPrompt] | None = None
    image_root: Path | None = None
    encode: Encode | None = None
    on_progress: Callable[[int], None] = lambda _: None
    check_stop: StopCheck = lambda: None

    def __post_init__(self) -> None:
        if self.settings.solve.temperature == 0:
            raise InputError("Sampling several answers at temperature 0 gives the same one each time: use e.g. 1.0.")

    def sample(self, problems: Sequence[Problem], samples: int) -> tuple[Sampled, ...]:
        """The first `samples` answers to each question, not judged.

        Raises:
            InputError: samples is below 1.
            ModelError: a question does not fit the context.
        """
        if samples < 1:
            raise InputError(f"samples = {samples} is refused: at least 1.")
        return self.extend(problems, [Sampled(problem.id, (), ()) for problem in problems], samples)

    def extend(self, problems: Sequence[Problem], sampled: Sequence[Sampled], samples: int) -> tuple[Sampled, ...]:
        """The same with more answers, up to `samples` each; `problems` in the order of `sampled`."""
        asker = self._asker(ANSWERS)
        drafts = [asker.draft(problem, 0, Kind.SOLVE, samples=samples) for problem in problems]
        known = [len(one.answers) for one in sampled]
        missing = [
            replace(draft, index=count, prompt=replace(draft.prompt, seeds=draft.prompt.seeds[count:]))
            for draft, count in zip(drafts, known, strict=True)
        ]
        places = [place for place, draft in enumerate(missing) if draft.prompt.seeds]
        found = dict(zip(places, asker.ask([missing[place] for place in places], Kind.SOLVE), strict=True))
        return tuple(
            replace(
                one,
                answers=(*one.answers, *found.get(place, ())),
                judgements=(*one.judgements, *(None for _ in found.get(place, ()))),
            )
            for place, one in enumerate(sampled)
        )

    def judge(self, problems: Sequence[Problem], sampled: Sequence[Sampled], samples: int) -> tuple[Sampled, ...]:
        """The same with a judgement of each of the first `samples` answers that has none yet and can be judged."""
        asker = self._asker(JUDGEMENTS)
        wanted = [
            (place, answer)
            for place, one in enumerate(sampled)
            for answer, judgement in zip(one.answers[:samples], one.judgements, strict=False)
            if judgement is None and answer.answer is not None
        ]
        drafts = asker.fitting([(problems[place], answer.index, answer) for place, answer in wanted], Kind.POINTWISE)
        fitting = [(key, draft) for key, draft in zip(wanted, drafts, strict=True) if draft is not None]
        asked = asker.ask([draft for _, draft in fitting], Kind.POINTWISE)
        found = {(place, answer.index): step for ((place, answer), _), (step,) in zip(fitting, asked, strict=True)}
        return tuple(
            replace(
                one,
                judgements=tuple(found.get((place, index), old) for index, old in enumerate(one.judgements)),
            )
            for place, one in enumerate(sampled)
        )

    def _asker(self, purpose: str) -> Asker:
        return Asker(
            self.engine,
            self.settings,
            self.seed,
            purpose,
            self.solve_prompts or {},
            self.image_root,
            self.encode,
            self.on_progress,
            None,
            self.check_stop,
        )


def answer_at_equal_cost(
    sampler: Sampler,
    problems: Sequence[Problem],
    loop: LoopSettings,
    *,
    methods: Sequence[Method] = tuple(Method),
    label: LabelAnswers = label_by_text,
    most: int = MOST_SAMPLES,
) -> EqualCost:
    """Run the loop on all questions, then let each method spend as many output tokens as the loop did.

    Args:
        loop: how the loop runs, e.g. greedily; the sampler's own settings say how answers are sampled and judged.
        most: samples of a question at most; a method that would need more has `limited` spending.
    """
    attempts = self_correct(
        sampler.engine,
        problems,
        loop,
        seed=sampler.seed,
        solve_prompts=sampler.solve_prompts,
        image_root=sampler.image_root,
        encode=sampler.encode,
        on_progress=sampler.on_progress,
        check_stop=sampler.check_stop,
    )
    budget = sum(attempt.tokens for attempt in attempts)
    sampled = sampler.sample(problems, 1)
    spending: dict[Method, Spending] = {}
    for method in sorted(methods, key=lambda method: method.judges, reverse=True):
        sampled = _enough(sampler, problems, sampled, method, budget, most)
        spending[method] = spend_on(method, sampled, budget)
    labels = tuple(label([[step.answer for step in one.answers] for one in sampled]))
    choices = {
        method: tuple(
            choose(method, one, own, count)
            for one, own, count in zip(sampled, labels, spending[method].samples, strict=True)
        )
        for method in methods
    }
    return EqualCost(attempts, sampled, labels, {method: spending[method] for method in methods}, choices)


def _enough(
    sampler: Sampler,
    problems: Sequence[Problem],
    sampled: tuple[Sampled, ...],
    method: Method,
    budget: int,
    most: int,
) -> tuple[Sampled, ...]:
    """Samples (judged, where the method judges) until they cost more than the budget, or `most` of each question."""
    samples = max((len(one.answers) for one in sampled), default=0)
    while sampled:
        if method.judges:
            sampled = sampler.judge(problems, sampled, samples)
        spent = sum(sum(one.costs(method)) for one in sampled)
        if spent > budget or samples >= most:
            break
        each = max(1.0, spent / samples)
        samples = min(most, samples + max(1, math.ceil((budget - spent) / each)))
        sampled = sampler.extend(problems, sampled, samples)
    return sampled
