"""What the test-time loop does to a problem, step by step: the records it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from spark_kernel.errors import InputError
from spark_kernel.records import Kind, Message, Parse, View
from spark_kernel.rollout.engine import Completion, Sampling


class Stop(StrEnum):
    """Why a chain of steps ended."""

    ACCEPTED = "accepted"
    """The judge said "Yes" to the current answer."""
    ABSTAINED = "abstained"
    """The verdict could not be read: the current answer stays."""
    REJECTED = "rejected"
    """No reflection is left and the judge rejected the last one: back to the first answer, if there is one."""
    NO_ANSWER = "no_answer"
    """No reflection is left and the last one has no answer: back to the first answer, if there is one."""
    UNJUDGED = "unjudged"
    """The last reflection is returned without a judgement (faithful)."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """The next prompt does not fit; settled as if the loop had ended here."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop runs. The sampling of each step says its temperature and lengths.

    `reflections`: R, most reflections. `unparseable_is_no`: an unreadable verdict forces a reflection instead of
    keeping the answer. `judge_last`: also judge the last reflection, and go back to the first answer if it is
    rejected. `judge_view`, `reflection_view`: what the prompts show of the current response.
    """

    solve: Sampling
    judge: Sampling
    reflect: Sampling
    reflections: int = 2
    unparseable_is_no: bool = False
    judge_last: bool = True
    judge_view: View = View.ANSWER
    reflection_view: View = View.FULL

    def __post_init__(self) -> None:
        if self.reflections < 1:
            raise InputError(f"reflections = {self.reflections} is refused: the loop needs at least 1.")

    @classmethod
    def faithful(cls, solve: Sampling, judge: Sampling, reflect: Sampling, *, reflections: int = 2) -> LoopSettings:
        """What the official code does: an unreadable verdict is a "no", the last reflection is returned unjudged."""
        return cls(solve, judge, reflect, reflections=reflections).by_rule(faithful=True)

    def by_rule(self, *, faithful: bool) -> LoopSettings:
        """These settings under the official code's rules, or, with `faithful` off, as they are."""
        return replace(self, unparseable_is_no=True, judge_last=False) if faithful else self


@dataclass(frozen=True, slots=True)
class Step:
    """One prompt and its one output.

    `kind`: SOLVE, POINTWISE (the judgement) or REFLECTION. `about`: index of the step whose response the prompt
    shows, None for the first step. `view`: what it shows of it. `answer`: of a solve or reflection step, as a prompt
    would show it; `verdict`: "Yes" or "No" of a judgement; `yes_probability`: the judge's probability of "Yes", None
    where it was not asked for or no verdict could be read. `parse`: NONE where there is neither, AMBIGUOUS where
    verdicts disagree. `first`: the first answer; `final`: the answer the loop returned (False until the chain ended).
    """

    problem_id: str
    index: int
    kind: Kind
    template_id: str
    messages: tuple[Message, ...]
    label_map: Mapping[str, str] | None
    about: int | None
    view: View | None
    completion: Completion
    parse: Parse
    answer: str | None = None
    verdict: str | None = None
    yes_probability: float | None = None
    first: bool = False
    final: bool = False

    @property
    def text(self) -> str:
        """The output."""
        return self.completion.text

    @property
    def tokens(self) -> int:
        """Tokens of the output, the end-of-sequence token included."""
        return len(self.completion.token_ids)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A problem's chain of steps, from the first answer to the one returned, and why it ended.

    `detail` is one sentence for a person.
    """

    problem_id: str
    steps: tuple[Step, ...]
    stop: Stop
    detail: str

    @property
    def first(self) -> Step:
        """The first answer's step."""
        return self.steps[0]

    @property
    def final(self) -> Step:
        """The step whose answer is returned."""
        return next(step for step in self.steps if step.final)

    @property
    def tokens(self) -> int:
        """Output tokens of all steps."""
        return sum(step.tokens for step in self.steps)
