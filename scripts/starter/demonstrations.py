"""The demonstrations the starter learns from: prompts of `spark_kernel.prompts.build` and careful answers to them.

About chains of arithmetic (`starter.chains`), about puzzles (`starter.puzzles`), and drills (`starter.drills`). Every
demonstration is keyed by (seed, index), and none is made of a held-out problem.
"""

from __future__ import annotations

from collections.abc import Mapping

from spark_kernel.keyed_random import keyed_random
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.held_out import CANONICAL_FORM, is_held_out
from spark_kernel.problems.puzzles.source import PuzzlesSource
from spark_kernel.problems.source import ProblemSource
from spark_kernel.records import Problem
from starter.chains import demonstrate_chain
from starter.drills import compare_drill, facts_drill, sums_drill
from starter.pieces import LARGEST, Demonstration
from starter.puzzles import demonstrate_puzzle

HELD_OUT_FRACTION = 0.1
DRILLS = {"sums": sums_drill, "compare": compare_drill, "facts": facts_drill}
PUZZLE = "puzzle-"
"""What the name of a kind begins with where it is about puzzles and not about chains."""
PUZZLE_OPTIONS = {
    "families": ("equation", "countdown", "number"),
    "min_level": 1,
    "max_level": 2,
    "max_value": LARGEST,
}


class Demonstrations:
    """An endless, indexed sequence of demonstrations.

    Args:
        seed: together with the index it determines a demonstration.
        weights: share of each kind: "solve", "pointwise", "pairwise", "reflection", the same with "puzzle-" before
            them, "sums", "compare", "facts".
        form: of the canonical text: what it holds out is never shown.
        glance: share of the judging and reflecting about puzzles that puts nothing in.
    """

    def __init__(
        self, seed: int, weights: Mapping[str, float], form: int = CANONICAL_FORM, *, glance: float = 0.0
    ) -> None:
        self._form = form
        self._glance = glance
        self._seed = seed
        self._kinds = tuple(weights)
        self._weights = tuple(weights.values())
        self._chains = ArithmeticSource(seed=seed, max_value=LARGEST)
        self._puzzles = PuzzlesSource(seed=seed, **PUZZLE_OPTIONS)

    def demonstration(self, index: int) -> Demonstration:
        """The demonstration at an index."""
        rng = keyed_random(self._seed, "demonstration", index)
        kind = rng.choices(self._kinds, self._weights)[0]
        if kind in DRILLS:
            return DRILLS[kind](rng)
        if kind.startswith(PUZZLE):
            glance = keyed_random(self._seed, "glance", index).random() < self._glance
            kind = kind.removeprefix(PUZZLE)
            return demonstrate_puzzle(kind, self.puzzle(index), rng, self._seed, index, glance=glance)
        return demonstrate_chain(kind, self.problem(index), rng, self._seed, index)

    def problem(self, index: int) -> Problem:
        """The chain at an index: the first of its own run of candidates that is not held out."""
        return self._first_to_train_on(self._chains, index)

    def puzzle(self, index: int) -> Problem:
        """The puzzle at an index, found in the same way."""
        return self._first_to_train_on(self._puzzles, index)

    def _first_to_train_on(self, source: ProblemSource, index: int) -> Problem:
        for attempt in range(1000):
            problem = source.problem(index * 1000 + attempt)
            if not is_held_out(problem, HELD_OUT_FRACTION, self._form):
                return problem
        raise RuntimeError("1000 held-out problems in a row: the held-out rule refuses too much.")
