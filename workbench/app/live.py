"""What a live comparison shows, event by event: a chain of steps as it grows. Pure functions over frozen records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spark_kernel.records import Kind
from spark_kernel.test_time.events import (
    ChainEnded,
    ChainEvent,
    StepFinished,
    StepStarted,
    TextDelta,
    VerdictProbability,
)
from spark_kernel.test_time.steps import Attempt, Step
from workbench.app.desk import Ended, Finding, Loading, Manner


@dataclass(frozen=True, slots=True)
class StepCard:
    """A step on the page.

    `text`, `tokens` so far; `step` once it is finished; `yes`: the judge's probability of "Yes" once it is known.
    `correct` and `reason`: the verifier's finding, `verified` False where there is none.
    """

    index: int
    kind: Kind
    about: int | None
    text: str = ""
    tokens: int = 0
    step: Step | None = None
    yes: float | None = None
    verified: bool = False
    correct: bool | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LiveChain:
    """One model's side of the comparison.

    `state`: "waiting", "loading", "running", "done", "stopped" or "failed". `gold`: whether a gold answer was given.
    `seconds`: of the whole chain once it has ended. `examples`: whether worked examples stand before every prompt.
    """

    model: str
    gold: bool = False
    state: str = "waiting"
    steps: tuple[StepCard, ...] = ()
    attempt: Attempt | None = None
    problem: str = ""
    seconds: float | None = None
    examples: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "stopped", "failed")

    @property
    def tokens(self) -> int:
        """Output tokens so far."""
        return sum(card.tokens for card in self.steps)

    @property
    def final_judged(self) -> bool:
        """Whether any judgement is about the answer that was returned."""
        if self.attempt is None:
            return False
        final = self.attempt.final.index
        return any(step.kind.judges and step.about == final for step in self.attempt.steps)


def tell(chain: LiveChain, event: ChainEvent | Loading | Manner | Finding | Ended) -> LiveChain:
    """The chain after an event."""
    match event:
        case Loading():
            return replace(chain, state="loading")
        case Manner():
            return replace(chain, examples=event.examples)
        case StepStarted():
            card = StepCard(event.index, event.kind, event.about)
            return replace(chain, state="running", steps=(*chain.steps, card))
        case TextDelta():
            card = chain.steps[event.index]
            return _with(chain, replace(card, text=card.text + event.text, tokens=event.tokens))
        case StepFinished():
            card = chain.steps[event.step.index]
            return _with(chain, replace(card, text=event.step.text, tokens=event.step.tokens, step=event.step))
        case VerdictProbability():
            return _with(chain, replace(chain.steps[event.index], yes=event.yes))
        case Finding():
            card = chain.steps[event.index]
            return _with(chain, replace(card, verified=True, correct=event.correct, reason=event.reason))
        case ChainEnded():
            return replace(chain, attempt=event.attempt)
        case Ended():
            state = "stopped" if event.stopped else "failed" if event.problem else "done"
            return replace(chain, state=state, problem=event.problem, seconds=event.seconds)
    raise AssertionError(f"an event of an unknown kind: {event}")


def tell_all(chain: LiveChain, events: Sequence[ChainEvent | Loading | Manner | Finding | Ended]) -> LiveChain:
    """The chain after several events, in order."""
    for event in events:
        chain = tell(chain, event)
    return chain


def _with(chain: LiveChain, card: StepCard) -> LiveChain:
    return replace(chain, steps=(*chain.steps[: card.index], card, *chain.steps[card.index + 1 :]))
