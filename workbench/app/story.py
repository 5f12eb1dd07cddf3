"""A chain in one line: its answers, what the model said of each, and how it ended ("39, rejected, 31: corrected")."""

from __future__ import annotations

from dataclasses import dataclass

from spark_kernel.records import Kind
from spark_kernel.test_time.steps import Stop
from workbench.app.live import LiveChain, StepCard

ACCEPTED, REJECTED, UNREADABLE = "accepted", "rejected", "verdict unreadable"


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer and what the model said of it.

    `step`: its index; `answer`: None where none could be read; `said`: "accepted", "rejected", "verdict unreadable",
    or None where it was not judged (yet); `writing`: it is not finished.
    """

    step: int
    answer: str | None
    said: str | None
    writing: bool = False


def turns(chain: LiveChain) -> tuple[Turn, ...]:
    """The answers of a chain so far, in order."""
    said = {
        card.about: {"Yes": ACCEPTED, "No": REJECTED, None: UNREADABLE}[card.step.verdict]
        for card in chain.steps
        if card.kind.judges and card.step is not None
    }
    return tuple(
        Turn(card.index, None if card.step is None else card.step.answer, said.get(card.index), card.step is None)
        for card in chain.steps
        if card.kind in (Kind.SOLVE, Kind.REFLECTION)
    )


def ending(chain: LiveChain) -> str | None:
    """How a finished chain ended, in a few words; None before.

    With a gold answer it says what the verifier found; without one only what the model itself said and did.
    """
    attempt = chain.attempt
    if attempt is None or chain.state != "done":
        return None
    first, final = attempt.first, attempt.final
    back = attempt.stop in (Stop.REJECTED, Stop.NO_ANSWER, Stop.PROMPT_TOO_LONG) and final.first
    returned = f"back to {first.answer}, " if back and len(attempt.steps) > 1 and first.answer is not None else ""
    found = _found(chain.steps[first.index]), _found(chain.steps[final.index])
    if None not in found:
        return returned + _by_the_gold(found == (True, True), *found, stop=attempt.stop)
    if final.answer is None:
        return "no answer"
    if returned:
        return f"back to {first.answer}"
    if final.first:
        return "accepted at once" if attempt.stop is Stop.ACCEPTED else "kept"
    same = final.answer == first.answer
    return "looked at again, and kept" if same else "changed"


def _by_the_gold(kept: bool, first: bool | None, final: bool | None, *, stop: Stop) -> str:
    if kept:
        return "right"
    if final:
        return "corrected"
    if first:
        return "spoilt"
    return "wrong, and not noticed" if stop is Stop.ACCEPTED else "wrong, and not corrected"


def _found(card: StepCard) -> bool | None:
    """The verifier's finding, where it has one."""
    return card.correct if card.verified else None
