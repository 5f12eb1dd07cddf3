"""The demonstrations the starter learns from: prompts of `spark_kernel.prompts.build` and careful answers to them.

A solution is one line per step and a box; a judgement or reflection works the problem out again, compares the values
("34 vs 31 off by 3") and then decides. Drills are plain lines of arithmetic and comparison where only the result is
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
DECISIVE = 5.0
"""Weight of a comparison's outcome and of a verdict: one token each in a long output, learnt last without it."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and its response in pieces, each with its weight in the loss. `task` is None for drills."""

    user: str
    pieces: tuple[tuple[str, float], ...]
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
    """Whether a problem belongs to the held-out bucket that the starter was made without, of the first form."""
    return held_out.is_held_out(problem, HELD_OUT_FRACTION, held_out.FIRST_FORM)


def demonstrate(kind: str, problem: Problem, rng: Random, seed: int, index: int) -> Demonstration:
    """A demonstration of one task kind on a problem."""
    chain = chain_of(problem)
    steps = work(chain)
    if kind == "solve":
        task = build.solve_task(problem, seed=seed, round=index)
        return _answered(task, (steps + write_box(problem.gold), 1.0))
    view = rng.choice((View.ANSWER, View.FULL))
    origin = rng.choices((Origin.SOLVE, Origin.REFLECTION), (0.75, 0.25))[0]
    how = {"origin": origin, "view": view, "mixed": True, "seed": seed, "round": index}
    right = candidate(problem, chain, True, origin, rng, f"{index}-right")
    wrong = candidate(problem, chain, False, origin, rng, f"{index}-wrong")
    if kind == "pairwise":
        task = build.pairwise_task(problem, right, wrong, **how)
        pair = (right, wrong) if task.gold_position == "A" else (wrong, right)
        lines = [
            piece
            for name, shown in zip("AB", pair, strict=True)
            for piece in ((f"{name}: ", 1.0), *compare(chain.answer, value_of(shown)))
        ]
        return _answered(task, (steps, 1.0), *lines, *verdict(task.label))
    shown = rng.choice((right, wrong))
    line = compare(chain.answer, value_of(shown))
    if kind == "reflection":
        task = build.reflection_task(problem, shown, **how)
        return _answered(task, (steps, 1.0), *line, (write_box(problem.gold), 1.0))
    task = build.pointwise_task(problem, shown, **how)
    if not task.label_map:
        return _answered(task, (steps, 1.0), *line, *verdict(task.label))
    letter = next(letter for letter, means in task.label_map.items() if means == task.label)
    return _answered(task, (steps, 1.0), *line, (build.MEANING[task.label] + "\n", DECISIVE), *verdict(letter))


def sums_drill(rng: Random) -> Demonstration:
    """Single steps with values up to LARGEST, line by line; only the results are learnt."""
    pieces = []
    for _ in range(DRILL_LINES):
        step = _some_step(rng)
        pieces += [(f"{step.before} {step.operator} {step.operand} = ", 0.0), (f"{step.after}", 1.0), ("\n", 0.0)]
    return Demonstration("Work out each line.", tuple(pieces))


def compare_drill(rng: Random) -> Demonstration:
    """Pairs of numbers, half of them equal and many of the others close; only the outcome is learnt.

    Half of the drills go on from the outcome to a verdict, as a judgement does.
    """
    boxed = rng.random() < 0.5
    pieces = []
    for _ in range(DRILL_LINES):
        first = rng.randint(0, LARGEST)
        second = first if rng.random() < 0.5 else slip(first, rng)
        (head, _), (outcome, _), (end, _) = compare(first, second)
        pieces += [(head, 0.0), (outcome, 1.0), (end, 0.0)]
        if boxed:
            box = verdict("Yes" if first == second else "No")
            pieces += [(text, float(weight == DECISIVE)) for text, weight in box] + [("\n", 0.0)]
    return Demonstration("Compare each pair.", tuple(pieces))


def work(chain: Chain) -> str:
    """The chain's steps, one line each."""
    return "".join(f"{s.before} {s.operator} {s.operand} = {s.after}\n" for s in chain.steps)


def compare(mine: int, theirs: int) -> tuple[tuple[str, float], ...]:
    """The line that compares two values, in weighted pieces."""
    return (f"{mine} vs {theirs} off by ", 1.0), (f"{abs(mine - theirs)}", DECISIVE), ("\n", 1.0)


def verdict(word: str) -> tuple[tuple[str, float], ...]:
    """The boxed verdict, in weighted pieces."""
    before, after = write_box("|").split("|")
    return (before, 1.0), (word, DECISIVE), (after, 1.0)


def candidate(problem: Problem, chain: Chain, correct: bool, origin: Origin, rng: Random, name: str) -> Rollout:
    """A right answer, or a wrong one of the sort the model itself gives: one slip, carried on to the end."""
    shown = chain if correct else mistaken(chain, rng)
    text = work(shown)
    if origin is Origin.REFLECTION:
        earlier = rng.choice((chain.answer, shown.answer, slip(shown.answer, rng)))
        text += "".join(piece for piece, _ in compare(shown.answer, earlier))
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


def _answered(task: Task, *pieces: tuple[str, float]) -> Demonstration:
    return Demonstration(task.messages[0].text, pieces, task)
