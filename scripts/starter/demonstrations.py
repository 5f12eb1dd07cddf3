"""The demonstrations the starter learns from: prompts of `spark_kernel.prompts.build` and careful answers to them.

A solution is one line per step and a box; a judgement or reflection works the problem out again, compares the values
("34 vs 31 differ") and then decides. Drills are plain lines of arithmetic and comparison where only the result is
learnt. Every demonstration is keyed by (seed, index), and none is made of a held-out problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from spark_kernel.keyed_random import keyed_random
from spark_kernel.problems import held_out
from spark_kernel.problems.arithmetic import ArithmeticSource, Chain, Step, apply, chain_of, draw_chain
from spark_kernel.prompts import build
from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Origin, Parse, Problem, Rollout, Score, Task, View

LARGEST = 60
HELD_OUT_FRACTION = 0.1
DRILL_LINES = 14


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and its response in pieces; only pieces marked True count in the loss. `task` is None for drills."""

    user: str
    pieces: tuple[tuple[str, bool], ...]
    task: Task | None = None

    @property
    def response(self) -> str:
        """The whole response."""
        return "".join(text for text, _ in self.pieces)


class Demonstrations:
    """An endless, indexed sequence of demonstrations.

    Args:
        seed: together with the index it determines a demonstration.
        weights: share of each kind: "solve", "pointwise", "pairwise", "reflection", "sums", "compare".
    """

    def __init__(self, seed: int, weights: Mapping[str, float]) -> None:
        self._seed = seed
        self._kinds = tuple(weights)
        self._weights = tuple(weights.values())
        self._source = ArithmeticSource(seed=seed, max_value=LARGEST)

    def demonstration(self, index: int) -> Demonstration:
        """The demonstration at an index."""
        rng = keyed_random(self._seed, "demonstration", index)
        kind = rng.choices(self._kinds, self._weights)[0]
        if kind == "sums":
            return sums_drill(rng)
        if kind == "compare":
            return compare_drill(rng)
        return demonstrate(kind, self.problem(index), rng, self._seed, index)

    def problem(self, index: int) -> Problem:
        """The problem at an index: the first of its own run of candidates that is not held out."""
        for attempt in range(1000):
            problem = self._source.problem(index * 1000 + attempt)
            if not is_held_out(problem):
                return problem
        raise RuntimeError("1000 held-out problems in a row: the held-out rule refuses too much.")


def is_held_out(problem: Problem) -> bool:
    """Whether a problem belongs to the held-out bucket of the default configuration."""
    return held_out.is_held_out(problem, HELD_OUT_FRACTION)


def demonstrate(kind: str, problem: Problem, rng: Random, seed: int, index: int) -> Demonstration:
    """A demonstration of one task kind on a problem."""
    chain = chain_of(problem)
    steps = work(chain)
    if kind == "solve":
        task = build.solve_task(problem, seed=seed, round=index)
        return _answered(task, steps + write_box(problem.gold))
    view = rng.choice((View.ANSWER, View.FULL))
    origin = rng.choices((Origin.SOLVE, Origin.REFLECTION), (0.75, 0.25))[0]
    how = {"origin": origin, "view": view, "mixed": True, "seed": seed, "round": index}
    right = candidate(problem, chain, True, origin, rng, f"{index}-right")
    wrong = candidate(problem, chain, False, origin, rng, f"{index}-wrong")
    shown = rng.choice((right, wrong))
    if kind == "pairwise":
        task = build.pairwise_task(problem, right, wrong, **how)
        pair = (right, wrong) if task.gold_position == "A" else (wrong, right)
        lines = "".join(f"{name}: {compare(chain.answer, value_of(c))}" for name, c in zip("AB", pair, strict=True))
        return _answered(task, steps + lines + write_box(task.label))
    if kind == "reflection":
        task = build.reflection_task(problem, shown, **how)
        return _answered(task, steps + compare(chain.answer, value_of(shown)) + write_box(problem.gold))
    task = build.pointwise_task(problem, shown, **how)
    verdict = task.label
    meaning = ""
    if task.label_map:
        verdict = next(letter for letter, means in task.label_map.items() if means == task.label)
        meaning = build.MEANING[task.label] + "\n"
    return _answered(task, steps + compare(chain.answer, value_of(shown)) + meaning + write_box(verdict))


def sums_drill(rng: Random) -> Demonstration:
    """Single steps with values up to LARGEST, line by line; only the results are learnt."""
    pieces = []
    for _ in range(DRILL_LINES):
        step = _some_step(rng)
        pieces += [(f"{step.before} {step.operator} {step.operand} = ", False), (f"{step.after}", True), ("\n", False)]
    return Demonstration("Work out each line.", tuple(pieces))


def compare_drill(rng: Random) -> Demonstration:
    """Pairs of numbers, half of them equal and many of the others close; only "same" or "differ" is learnt."""
    pieces = []
    for _ in range(DRILL_LINES):
        first = rng.randint(0, LARGEST)
        second = first if rng.random() < 0.5 else slip(first, rng)
        head, word = f"{first} vs {second}", " same" if first == second else " differ"
        pieces += [(head, False), (word, True), ("\n", False)]
    return Demonstration("Compare each pair.", tuple(pieces))


def work(chain: Chain) -> str:
    """The chain's steps, one line each."""
    return "".join(f"{s.before} {s.operator} {s.operand} = {s.after}\n" for s in chain.steps)


def compare(mine: int, theirs: int) -> str:
    """The line that compares two values."""
    return f"{mine} vs {theirs} {'same' if mine == theirs else 'differ'}\n"


def candidate(problem: Problem, chain: Chain, correct: bool, origin: Origin, rng: Random, name: str) -> Rollout:
    """A right answer, or a wrong one of the sort the model itself gives: one slip, carried on to the end."""
    shown = chain if correct else mistaken(chain, rng)
    text = work(shown)
    if origin is Origin.REFLECTION:
        earlier = rng.choice((chain.answer, shown.answer, slip(shown.answer, rng)))
        text += compare(shown.answer, earlier)
    answer = str(shown.answer)
    return Rollout(
        id=name,
        task_id=problem.id,
        index=0,
        policy_version=0,
        token_ids=(),
        logprobs=(),
        text=text + write_box(answer),
        truncated=False,
        score=Score(reward=float(correct), correct=correct, parse=Parse.OK, answer=answer),
    )


def value_of(rollout: Rollout) -> int:
    """The number a candidate answers with."""
    assert rollout.answer is not None
    return int(rollout.answer)


def mistaken(chain: Chain, rng: Random) -> Chain:
    """The chain with one wrong step, the following ones worked from there, and another answer than the right one."""
    while True:
        position = rng.randrange(len(chain.steps))
        steps = list(chain.steps[:position])
        broken = chain.steps[position]
        steps.append(_broken_step(broken, rng))
        for step in chain.steps[position + 1 :]:
            before = steps[-1].after
            steps.append(Step(before, step.operator, step.operand, apply(before, step.operator, step.operand)))
        values = [step.after for step in steps]
        if values[-1] != chain.answer and min(values) >= 0 and max(values) <= LARGEST:
            return Chain(chain.start, tuple(steps))


def slip(value: int, rng: Random) -> int:
    """Another value, close to this one as a rule."""
    while True:
        other = value + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10)) if rng.random() < 0.7 else rng.randint(0, LARGEST)
        if other != value and 0 <= other <= LARGEST:
            return other


def _broken_step(step: Step, rng: Random) -> Step:
    """A wrong result, or now and then a misread sign worked out correctly."""
    if rng.random() < 0.15:
        operator = rng.choice([o for o in "+-*" if o != step.operator])
        return Step(step.before, operator, step.operand, apply(step.before, operator, step.operand))
    return Step(step.before, step.operator, step.operand, slip(step.after, rng))


def _some_step(rng: Random) -> Step:
    """One step of the source's own distribution."""
    return rng.choice(draw_chain(rng, 3, LARGEST).steps)


def _answered(task: Task, response: str) -> Demonstration:
    return Demonstration(task.messages[0].text, ((response, True),), task)
