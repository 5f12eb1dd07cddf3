"""What `workbench reflect` prints: the steps of a chain while they come, sampled answers, and the choice among them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TextIO

from spark_kernel.records import Kind
from spark_kernel.test_time.budget import Spending
from spark_kernel.test_time.equality import Labels
from spark_kernel.test_time.events import ChainEvent, StepFinished, StepStarted, TextDelta, VerdictProbability
from spark_kernel.test_time.methods import Method, Sampled
from spark_kernel.test_time.steps import Attempt, Step
from spark_kernel.test_time.vote import Choice

NAMES = {Kind.SOLVE: "Answer", Kind.POINTWISE: "Judgement", Kind.REFLECTION: "Reflection"}
CHOSEN_BY = {
    Method.VOTE: "the commonest answer",
    Method.BEST_OF: "the first answer with the best verdict",
    Method.WEIGHTED: "the answer with the greatest sum of the judge's probabilities of Yes",
}


@dataclass
class ChainPrinter:
    """Receives a chain's events: on a terminal text appears as it is sampled, elsewhere step by step."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    _waiting: Step | None = None

    def __call__(self, event: ChainEvent) -> None:
        """Print an event."""
        live = self.out.isatty()
        if self._waiting is not None:
            yes = event.yes if isinstance(event, VerdictProbability) else None
            self._finish(self._waiting, yes)
            self._waiting = None
        if isinstance(event, StepStarted) and live:
            self._say(f"--- step {event.index + 1}: {NAMES[event.kind]}{_about(event.about)}\n")
        elif isinstance(event, TextDelta) and live:
            self._say(printable(event.text))
        elif isinstance(event, StepFinished):
            if not live:
                self._say(f"{_head(event.step)}\n{printable(event.step.text).strip()}")
            if event.step.kind.judges:
                self._waiting = event.step
            else:
                self._finish(event.step, None)

    def _finish(self, step: Step, yes: float | None) -> None:
        size = f"; {step.tokens} tokens{_cut(step)}" if self.out.isatty() else ""
        self._say(f"\n[{what_was_read(step, yes)}{size}]\n\n")

    def _say(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def what_was_read(step: Step, yes: float | None) -> str:
    """The answer, or the verdict with the probability of "Yes"."""
    if not step.kind.judges:
        return f"answer: {printable(step.answer)}" if step.answer is not None else "no answer could be read"
    if step.verdict is None:
        return f"no verdict could be read ({step.parse})"
    return f"verdict: {step.verdict}" + ("" if yes is None else f", probability of Yes {show_probability(yes)}")


def print_outcome(attempt: Attempt, seconds: float) -> None:
    """How the loop ended, and what it cost."""
    final = attempt.final
    judged = any(step.kind.judges and step.about == final.index for step in attempt.steps)
    print(f"Final answer: {_answer(final)}, from step {final.index + 1}.")
    print(attempt.detail)
    if not judged:
        print("This answer was never judged.")
    if final.first and len(attempt.steps) > 1 and attempt.stop in ("rejected", "no_answer"):
        print("The loop fell back to the first answer.")
    print(f"Self-judged, not verified. {len(attempt.steps)} steps, {attempt.tokens} tokens, {seconds:.1f} s.")


def print_samples(sampled: Sampled, labels: Labels, method: Method, count: int) -> None:
    """The first `count` sampled answers, one a line, with what the method chooses by."""
    for answer, label, judgement in list(zip(sampled.answers, labels, sampled.judgements, strict=True))[:count]:
        same = "" if label is None else f"   (answer {label + 1})"
        line = f"sample {answer.index + 1}: {_answer(answer)}{same}, {answer.tokens} tokens{_cut(answer)}"
        if method.judges and judgement is not None:
            line += f"; {what_was_read(judgement, judgement.yes_probability)}, {judgement.tokens} tokens"
        print(line)


def print_choice(chosen: Step, choice: Choice, method: Method, spent: Spending, seconds: float, loop: bool) -> None:
    """What was chosen, how, and what it cost; `loop`: whether the budget is that of the test-time loop."""
    print(f"\nFinal answer: {_answer(chosen)}, from sample {chosen.index + 1}: {CHOSEN_BY[method]}.")
    if choice.support == 0 and chosen.answer is None:
        print("No sample has an answer.")
    elif method is not Method.BEST_OF:
        print(f"It got {choice.support:.3g} of {choice.of:.3g}.")
    if choice.tied > 1:
        print(f"{choice.tied} answers were equally good; the one that was sampled first was taken.")
    judged = "Self-judged, not verified" if method.judges else "Not verified"
    count = spent.samples[0]
    print(f"{judged}. {count} sample{'' if count == 1 else 's'}, {spent.tokens} tokens, {seconds:.1f} s.")
    if loop:
        print(f"The loop spent {spent.budget} tokens on this question: that is the budget.")
        if spent.limited:
            print("More samples than are drawn at most would have been needed to spend it.")
        elif spent.tokens > spent.budget:
            print("One sample is the least there is, and costs more than that.")


def show_probability(value: float) -> str:
    """Three digits, and never a 0 or 1 that is none."""
    if 0 < value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3f}"


def printable(text: str) -> str:
    """Model text for a terminal: control characters, which could move the cursor or rename the window, as marks."""
    return "".join(
        character
        if character in "\n\t" or character.isprintable() or (character.isspace() and character > "\x7f")
        else "\N{REPLACEMENT CHARACTER}"
        for character in text.replace("\r\n", "\n")
    )


def _head(step: Step) -> str:
    return f"--- step {step.index + 1}: {NAMES[step.kind]}{_about(step.about)}, {step.tokens} tokens{_cut(step)}"


def _about(about: int | None) -> str:
    return "" if about is None else f" (about step {about + 1})"


def _cut(step: Step) -> str:
    return ", cut off at the limit" if step.completion.truncated else ""


def _answer(step: Step) -> str:
    return "(none)" if step.answer is None else printable(step.answer)
