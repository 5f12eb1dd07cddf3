"""Answer, judge, reflect: the loop of algorithm.md section 5, batched over problems stage by stage.

    answer = solve(q)
    repeat up to R times:   yes -> stop;   unreadable -> keep the answer;   no -> answer = reflect(q, answer)
    judge the last reflection too; rejected -> back to the first answer

A response without an answer leaves nothing to judge: it goes straight to reflection, which then shows the whole
response (the official code asks the judge about the word "None").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_kernel.errors import StopCheck
from spark_kernel.keyed_random import derive_seed, keyed_random
from spark_kernel.prompts.build import WrittenPrompt, pointwise_prompt, reflection_prompt, solve_prompt
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.prompts.verdicts import VerdictReading, read_answer, read_verdict
from spark_kernel.records import Kind, Parse, Problem, View
from spark_kernel.rollout.engine import Completion, RolloutEngine, Sampling
from spark_kernel.rollout.streaming import stream_one
from spark_kernel.test_time.events import (
    ChainEnded,
    ChainEvent,
    StepFinished,
    StepStarted,
    TextDelta,
    VerdictProbability,
)
from spark_kernel.test_time.steps import Attempt, LoopSettings, Step, Stop
from spark_kernel.test_time.verdict_probability import Encode, Judged, yes_probabilities


def self_correct(
    engine: RolloutEngine,
    problems: Sequence[Problem],
    settings: LoopSettings,
    *,
    seed: int,
    solve_prompts: Mapping[str, WrittenPrompt] | None = None,
    image_root: Path | None = None,
    encode: Encode | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
    check_stop: StopCheck = lambda: None,
) -> tuple[Attempt, ...]:
    """One chain of steps per problem, in order. Needs no gold answer and no verifier.

    Args:
        seed: with the problem's id and the step's index it determines every draw, whatever else is in the batch.
        solve_prompts: how to ask a problem first, by its id; where absent a template is drawn.
        image_root: folder that relative image paths start from.
        encode: text to token ids; where given, every judgement gets its probability of "Yes".
        on_step: receives every step once its batch is sampled; whether it is final is settled later.

    Raises:
        ModelError: a question alone does not fit the context.
    """
    loop = _Loop(
        engine, settings, seed, solve_prompts or {}, image_root, encode, on_step, on_progress, None, check_stop
    )
    return loop.run(problems)


def self_correct_live(
    engine: RolloutEngine,
    problem: Problem,
    settings: LoopSettings,
    on_event: Callable[[ChainEvent], None],
    *,
    seed: int,
    solve_prompt: WrittenPrompt | None = None,
    image_root: Path | None = None,
    encode: Encode | None = None,
    check_stop: StopCheck = lambda: None,
) -> Attempt:
    """The chain of one problem, told as it happens; the same chain as from `self_correct`.

    Events come in the caller's thread: StepStarted, TextDelta any number of times, StepFinished, for a judgement
    VerdictProbability (with `encode`), and so on from step to step; ChainEnded last.

    Args:
        on_event: receives every event; an exception from it ends the chain.
        check_stop: called before every token; what it raises comes out of here, and no further event follows.

    Raises:
        ModelError: the question alone does not fit the context.
    """
    prompts = {} if solve_prompt is None else {problem.id: solve_prompt}
    loop = _Loop(
        engine, settings, seed, prompts, image_root, encode, lambda _: None, lambda _: None, on_event, check_stop
    )
    (attempt,) = loop.run([problem])
    on_event(ChainEnded(attempt))
    return attempt


def image_paths(problem: Problem, root: Path | None) -> tuple[Path, ...]:
    """The files of a problem's images; relative paths start from `root`."""
    return tuple((root or Path()) / image.path for image in problem.images)


def read_pointwise(text: str, label_map: Mapping[str, str] | None) -> VerdictReading:
    """A pointwise verdict as "Yes" or "No", the task's letters applied."""
    reading = read_verdict(text, label_map or ("Yes", "No"))
    if label_map and reading.verdict is not None:
        return VerdictReading(reading.parse, label_map[reading.verdict])
    return reading


@dataclass(slots=True)
class _Chain:
    """A problem's steps while they are being made. `current`: index of the step that holds the current response."""

    problem: Problem
    steps: list[Step] = field(default_factory=list)
    current: int = 0
    final: int = 0
    stop: Stop | None = None
    detail: str = ""

    @property
    def open(self) -> bool:
        return self.stop is None

    @property
    def response(self) -> Step:
        return self.steps[self.current]

    def keep(self, stop: Stop, detail: str) -> None:
        """End with the current response."""
        self.stop, self.final, self.detail = stop, self.current, detail

    def fall_back(self, stop: Stop, detail: str) -> None:
        """End with the first answer; with the current response where the first one has no answer."""
        self.keep(stop, detail)
        if self.steps[0].answer is not None:
            self.final = 0

    def attempt(self) -> Attempt:
        if self.stop is None:
            raise AssertionError(f"the chain of problem {self.problem.id} never ended")
        steps = tuple(replace(step, final=step.index == self.final) for step in self.steps)
        return Attempt(self.problem.id, steps, self.stop, self.detail)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A prompt about to be asked for a chain; `view` is what it shows of the current response."""

    chain: _Chain
    written: WrittenPrompt
    view: View | None
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class _Loop:
    """The engine with everything that stays the same from stage to stage."""

    engine: RolloutEngine
    settings: LoopSettings
    seed: int
    solve_prompts: Mapping[str, WrittenPrompt]
    image_root: Path | None
    encode: Encode | None
    on_step: Callable[[Step], None]
    on_progress: Callable[[int], None]
    on_event: Callable[[ChainEvent], None] | None
    check_stop: StopCheck

    def run(self, problems: Sequence[Problem]) -> tuple[Attempt, ...]:
        chains = [_Chain(problem) for problem in problems]
        self.solve(chains)
        for used in range(self.settings.reflections + 1):
            waiting = [chain for chain in chains if chain.open]
            if used == self.settings.reflections and not self.settings.judge_last:
                for chain in waiting:
                    chain.keep(Stop.UNJUDGED, "The last reflection is returned without a judgement.")
                break
            unanswered = [chain for chain in waiting if chain.response.answer is None]
            rejected = self.judge([chain for chain in waiting if chain.response.answer is not None])
            if used < self.settings.reflections:
                self.reflect([*unanswered, *rejected])
                continue
            for chain in unanswered:
                chain.fall_back(
                    Stop.NO_ANSWER, "The last reflection has no answer: back to the first, if there is one."
                )
            for chain in rejected:
                chain.fall_back(Stop.REJECTED, "The last reflection was rejected: back to the first answer, if any.")
        return tuple(chain.attempt() for chain in chains)

    def solve(self, chains: Sequence[_Chain]) -> None:
        self._ask([self._draft(chain, Kind.SOLVE, None) for chain in chains], Kind.SOLVE)

    def judge(self, chains: Sequence[_Chain]) -> list[_Chain]:
        """Judge the current answers; the chains whose answer is rejected."""
        drafts, too_long = self._fitting(chains, Kind.POINTWISE)
        for chain in too_long:
            chain.keep(Stop.PROMPT_TOO_LONG, "The judge's prompt does not fit: the current answer stays, unjudged.")
        rejected = []
        for chain, step in self._ask(drafts, Kind.POINTWISE):
            if step.verdict == "Yes":
                chain.keep(Stop.ACCEPTED, "The judge accepted the current answer.")
            elif step.verdict == "No" or self.settings.unparseable_is_no:
                rejected.append(chain)
            else:
                chain.keep(Stop.ABSTAINED, "The verdict could not be read: the current answer stays.")
        return rejected

    def reflect(self, chains: Sequence[_Chain]) -> None:
        drafts, too_long = self._fitting(chains, Kind.REFLECTION)
        for chain in too_long:
            detail = "The reflection's prompt does not fit"
            if self.settings.judge_last:
                chain.fall_back(Stop.PROMPT_TOO_LONG, f"{detail}: back to the first answer, if there is one.")
            else:
                chain.keep(Stop.PROMPT_TOO_LONG, f"{detail}: the current answer stays.")
        for chain, step in self._ask(drafts, Kind.REFLECTION):
            chain.current = step.index

    def _fitting(self, chains: Sequence[_Chain], kind: Kind) -> tuple[list[_Draft], list[_Chain]]:
        """Drafts that fit `max_prompt_tokens`, in answer view where only that fits; and the chains without one."""
        wanted = self.settings.judge_view if kind.judges else self.settings.reflection_view
        drafts = [self._draft(c, kind, View.FULL if c.response.answer is None else wanted) for c in chains]
        fits = self._fit(drafts, kind)
        shorter = {
            i: self._draft(draft.chain, kind, View.ANSWER)
            for i, draft in enumerate(drafts)
            if not fits[i] and draft.view is View.FULL and draft.chain.response.answer is not None
        }
        rescued = dict(zip(shorter, self._fit(list(shorter.values()), kind), strict=True))
        good, too_long = [], []
        for i, draft in enumerate(drafts):
            if fits[i]:
                good.append(draft)
            elif rescued.get(i):
                good.append(shorter[i])
            else:
                too_long.append(draft.chain)
        return good, too_long

    def _fit(self, drafts: Sequence[_Draft], kind: Kind) -> list[bool]:
        limit = self._sampling(kind).max_prompt_tokens
        if limit is None or not drafts:
            return [True] * len(drafts)
        return [count <= limit for count in self.engine.count_tokens([draft.prompt for draft in drafts])]

    def _draft(self, chain: _Chain, kind: Kind, view: View | None) -> _Draft:
        problem, index = chain.problem, len(chain.steps)
        rng = keyed_random(self.seed, "test-time-template", problem.id, index)
        if kind is Kind.SOLVE or view is None:
            written = self.solve_prompts.get(problem.id) or solve_prompt(problem, rng)
        elif kind is Kind.POINTWISE:
            written = pointwise_prompt(problem, chain.response.text, view, rng)
        else:
            written = reflection_prompt(problem, chain.response.text, view, rng)
        prompt = Prompt(
            task_id=f"test-time-{problem.id}-{index}",
            messages=written.messages,
            seeds=(derive_seed(self.seed, "test-time-sample", problem.id, index),),
            images=image_paths(problem, self.image_root),
        )
        return _Draft(chain, written, view, prompt)

    def _ask(self, drafts: Sequence[_Draft], kind: Kind) -> list[tuple[_Chain, Step]]:
        if not drafts:
            return []
        completions = self._sample(drafts, kind)
        steps = [_step(draft, kind, completion) for draft, completion in zip(drafts, completions, strict=True)]
        if self.on_event is not None:
            self.on_event(StepFinished(steps[0]))
        if kind.judges and self.encode is not None:
            steps = self._with_probabilities(self.encode, drafts, steps)
            if self.on_event is not None:
                self.on_event(VerdictProbability(steps[0].index, steps[0].yes_probability))
        for draft, step in zip(drafts, steps, strict=True):
            draft.chain.steps.append(step)
            self.on_step(step)
        return [(draft.chain, step) for draft, step in zip(drafts, steps, strict=True)]

    def _sample(self, drafts: Sequence[_Draft], kind: Kind) -> list[Completion]:
        sampling = self._sampling(kind)
        if self.on_event is None:
            outputs = self.engine.sample(
                [draft.prompt for draft in drafts],
                sampling,
                on_progress=self.on_progress,
                check_stop=self.check_stop,
            )
            return [completion for (completion,) in outputs]
        (draft,) = drafts
        on_event, written, index = self.on_event, draft.written, len(draft.chain.steps)
        about = draft.chain.current if index else None
        on_event(StepStarted(index, kind, written.template_id, written.messages, written.label_map, about, draft.view))

        def on_text(text: str, tokens: int) -> None:
            on_event(TextDelta(index, text, tokens))

        return [stream_one(self.engine, draft.prompt, sampling, on_text, check_stop=self.check_stop)]

    def _with_probabilities(self, encode: Encode, drafts: Sequence[_Draft], steps: Sequence[Step]) -> list[Step]:
        self.check_stop()
        judged = [Judged(draft.prompt, step.label_map, (step.text,)) for draft, step in zip(drafts, steps, strict=True)]
        found = yes_probabilities(self.engine, encode, judged)
        return [replace(step, yes_probability=yes) for step, (yes,) in zip(steps, found, strict=True)]

    def _sampling(self, kind: Kind) -> Sampling:
        if kind is Kind.SOLVE:
            return self.settings.solve
        return self.settings.judge if kind.judges else self.settings.reflect


def _step(draft: _Draft, kind: Kind, completion: Completion) -> Step:
    chain, written = draft.chain, draft.written
    if kind.judges:
        reading = read_pointwise(completion.text, written.label_map)
        parse, verdict, answer = reading.parse, reading.verdict, None
    else:
        answer, verdict = read_answer(completion.text), None
        parse = Parse.NONE if answer is None else Parse.OK
    return Step(
        problem_id=chain.problem.id,
        index=len(chain.steps),
        kind=kind,
        template_id=written.template_id,
        messages=written.messages,
        label_map=written.label_map,
        about=chain.current if chain.steps else None,
        view=draft.view,
        completion=completion,
        parse=parse,
        answer=answer,
        verdict=verdict,
        first=not chain.steps,
    )
