"""What happens in one question's chain while it happens, as records: for a page or terminal that shows it live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark_kernel.records import Kind, Message, View
from spark_kernel.test_time.steps import Attempt, Step


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A prompt is about to be sampled from; the fields are those of `Step`."""

    index: int
    kind: Kind
    template_id: str
    messages: tuple[Message, ...]
    label_map: Mapping[str, str] | None
    about: int | None
    view: View | None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that was added to step `index`; `tokens`: of the step so far. A step's deltas add up to its text."""

    index: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The step with everything read out of it; a judgement's probability follows as an event of its own."""

    step: Step


@dataclass(frozen=True, slots=True)
class VerdictProbability:
    """The judge's probability of "Yes" in step `index`; None where its verdict could not be read."""

    index: int
    yes: float | None


@dataclass(frozen=True, slots=True)
class ChainEnded:
    """The chain is complete. Its last event, unless it is stopped or fails: then the exception is all there is."""

    attempt: Attempt


ChainEvent = StepStarted | TextDelta | StepFinished | VerdictProbability | ChainEnded
