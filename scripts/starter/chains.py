"""Demonstrations about chains of arithmetic: every task works the chain out, and judging compares the outcomes."""

from __future__ import annotations

from random import Random

from spark_kernel.problems.arithmetic import Chain, Step, apply, chain_of
from spark_kernel.prompts import build
from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Origin, Problem, Rollout, View
from starter.pieces import LARGEST, Demonstration, Piece, answered, candidate, compare, judged, slip


def demonstrate_chain(kind: str, problem: Problem, rng: Random, seed: int, index: int) -> Demonstration:
    """A demonstration of one task kind on a chain."""
    chain = chain_of(problem)
    steps = work(chain)
    if kind == "solve":
        task = build.solve_task(problem, seed=seed, round=index)
        return answered(task, (steps + write_box(problem.gold), 1.0))
    view = rng.choice((View.ANSWER, View.FULL))
    origin = rng.choices((Origin.SOLVE, Origin.REFLECTION), (0.75, 0.25))[0]
    how = {"origin": origin, "view": view, "mixed": True, "seed": seed, "round": index}
    right = chain_candidate(problem, chain, True, origin, rng, f"{index}-right")
    wrong = chain_candidate(problem, chain, False, origin, rng, f"{index}-wrong")
    if kind == "pairwise":
        task = build.pairwise_task(problem, right, wrong, **how)
        pair = (right, wrong) if task.gold_position == "A" else (wrong, right)
        lines = [
            piece for name, shown in zip("AB", pair, strict=True) for piece in ((f"{name}: ", 1.0), *gap(chain, shown))
        ]
        return answered(task, (steps, 1.0), *lines, *judged(task))
    shown = rng.choice((right, wrong))
    if kind == "reflection":
        task = build.reflection_task(problem, shown, **how)
        return answered(task, (steps, 1.0), *gap(chain, shown), (write_box(problem.gold), 1.0))
    task = build.pointwise_task(problem, shown, **how)
    return answered(task, (steps, 1.0), *gap(chain, shown), *judged(task))


def work(chain: Chain) -> str:
    """The chain's steps, one line each."""
    return "".join(f"{s.before} {s.operator} {s.operand} = {s.after}\n" for s in chain.steps)


def gap(chain: Chain, shown: Rollout) -> tuple[Piece, ...]:
    """The line that compares a chain's answer with a shown one."""
    assert shown.answer is not None
    return compare(chain.answer, shown.answer, abs(chain.answer - int(shown.answer)))


def chain_candidate(problem: Problem, chain: Chain, correct: bool, origin: Origin, rng: Random, name: str) -> Rollout:
    """A right answer, or a wrong one of the sort the model itself gives: one slip, carried on to the end."""
    shown = chain if correct else mistaken(chain, rng)
    text = work(shown)
    if origin is Origin.REFLECTION:
        earlier = rng.choice((chain.answer, shown.answer, slip(shown.answer, rng)))
        text += "".join(piece for piece, _ in compare(shown.answer, earlier, abs(shown.answer - earlier)))
    return candidate(problem, name, text, str(shown.answer), correct=correct)


def mistaken(chain: Chain, rng: Random) -> Chain:
    """The chain with one wrong step, the following ones worked from there, and another answer than the right one."""
    while True:
        position = rng.randrange(len(chain.steps))
        steps = list(chain.steps[:position])
        steps.append(_broken_step(chain.steps[position], rng))
        for step in chain.steps[position + 1 :]:
            before = steps[-1].after
            steps.append(Step(before, step.operator, step.operand, apply(before, step.operator, step.operand)))
        values = [step.after for step in steps]
        if values[-1] != chain.answer and min(values) >= 0 and max(values) <= LARGEST:
            return Chain(chain.start, tuple(steps))


def _broken_step(step: Step, rng: Random) -> Step:
    """A wrong result, or now and then a misread sign worked out correctly."""
    if rng.random() < 0.15:
        operator = rng.choice([o for o in "+-*" if o != step.operator])
        return Step(step.before, operator, step.operand, apply(step.before, operator, step.operand))
    return Step(step.before, step.operator, step.operand, slip(step.after, rng))
