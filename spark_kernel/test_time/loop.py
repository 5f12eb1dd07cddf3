"""Answer, judge, reflect: the loop of algorithm.md section 5, batched over problems stage by stage.

    answer = solve(q)
    repeat up to `reflections` times:  yes -> stop;   unreadable -> keep the answer;   no -> answer = reflect(q, answer)
    judge the last reflection too; rejected -> back to the first answer

A response without an answer leaves nothing to judge: it goes straight to reflection, which then shows the whole
response (the official code asks the judge about the word "None").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_kernel.errors import StopCheck
from spark_kernel.prompts.build import WrittenPrompt
from spark_kernel.records import Kind, Problem
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.test_time.asking import Asker, Draft
from spark_kernel.test_time.events import ChainEnded, ChainEvent
from spark_kernel.test_time.steps import Attempt, LoopSettings, Step, Stop
from spark_kernel.test_time.verdict_probability import Encode

PURPOSE = "test-time"
"""The name of the loop's random draws."""


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
    asker = Asker(
        engine, settings, seed, PURPOSE, solve_prompts or {}, image_root, encode, on_progress, None, check_stop
    )
    return _Loop(asker, settings, on_step).run(problems)


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
    asker = Asker(
        engine, settings, seed, PURPOSE, prompts, image_root, encode, on_event=on_event, check_stop=check_stop
    )
    (attempt,) = _Loop(asker, settings, lambda _: None).run([problem])
    on_event(ChainEnded(attempt))
    return attempt


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
class _Loop:
    """The rules of the loop over whatever asks."""

    asker: Asker
    settings: LoopSettings
    on_step: Callable[[Step], None]

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
        self._ask(chains, [self.asker.draft(chain.problem, 0, Kind.SOLVE) for chain in chains], Kind.SOLVE)

    def judge(self, chains: Sequence[_Chain]) -> list[_Chain]:
        """Judge the current answers; the chains whose answer is rejected."""
        fitting, drafts, too_long = self._fitting(chains, Kind.POINTWISE)
        for chain in too_long:
            chain.keep(Stop.PROMPT_TOO_LONG, "The judge's prompt does not fit: the current answer stays, unjudged.")
        rejected = []
        for chain, step in self._ask(fitting, drafts, Kind.POINTWISE):
            if step.verdict == "Yes":
                chain.keep(Stop.ACCEPTED, "The judge accepted the current answer.")
            elif step.verdict == "No" or self.settings.unparseable_is_no:
                rejected.append(chain)
            else:
                chain.keep(Stop.ABSTAINED, "The verdict could not be read: the current answer stays.")
        return rejected

    def reflect(self, chains: Sequence[_Chain]) -> None:
        fitting, drafts, too_long = self._fitting(chains, Kind.REFLECTION)
        for chain in too_long:
            detail = "The reflection's prompt does not fit"
            if self.settings.judge_last:
                chain.fall_back(Stop.PROMPT_TOO_LONG, f"{detail}: back to the first answer, if there is one.")
            else:
                chain.keep(Stop.PROMPT_TOO_LONG, f"{detail}: the current answer stays.")
        for chain, step in self._ask(fitting, drafts, Kind.REFLECTION):
            chain.current = step.index

    def _fitting(self, chains: Sequence[_Chain], kind: Kind) -> tuple[list[_Chain], list[Draft], list[_Chain]]:
        """The chains whose prompt fits, their drafts, and the chains whose prompt is too long."""
        found = self.asker.fitting([(chain.problem, len(chain.steps), chain.response) for chain in chains], kind)
        pairs = [(chain, draft) for chain, draft in zip(chains, found, strict=True) if draft is not None]
        too_long = [chain for chain, draft in zip(chains, found, strict=True) if draft is None]
        return [chain for chain, _ in pairs], [draft for _, draft in pairs], too_long

    def _ask(self, chains: Sequence[_Chain], drafts: Sequence[Draft], kind: Kind) -> list[tuple[_Chain, Step]]:
        asked = []
        for chain, (step,) in zip(chains, self.asker.ask(drafts, kind), strict=True):
            chain.steps.append(step)
            self.on_step(step)
            asked.append((chain, step))
        return asked
