"""What training changed in runs of the quickstart: from the start to the end, seed by seed and over seeds.

    python scripts/measure_start_to_end.py runs/experiment-gap/runs/spark-*

Own judgements (balanced accuracy, both views), pairs, sampled answers, and the final answers of the test-time loop
against the greedy answers at the start, on the same held-out problems; the figures of docs/results/quickstart.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from spark_kernel.evaluate.compare import Cells, paired_bootstrap
from spark_kernel.evaluate.over_seeds import over_seeds
from spark_kernel.runs.reader import RunReader
from workbench.experiment.measures import measured

ROWS = {
    "judges its own answers, balanced": ("own", "own"),
    "chooses between two of its answers": ("pairs", "pairs"),
    "solved, sampled": ("sampled", "sampled"),
    "solved, greedy": ("greedy", "greedy"),
    "reflections that end right": ("reflection", "reflection"),
    "after the loop, against the loop at the start": ("loop", "loop"),
    "after the loop, against greedy at the start": ("greedy", "loop"),
}
"""A row's name, its measure at the start and at the end."""
OWN = ("own/pointwise/answer", "own/pointwise/full")
PUT_IN = ("=", " yes", " no", "vs", "<", ">")
"""One of these stands in the working of a verdict that puts the answer in (`starter.puzzles.check`)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, each of another seed")
    readers = [RunReader(run) for run in parser.parse_args().runs]
    ends = [_ends(reader) for reader in readers]
    print("| measure | over seeds: start | end | change, points (95 %) | each seed |")
    print("| --- | --- | --- | --- | --- |")
    for name, (before, after) in ROWS.items():
        first = {seed: start[before] for seed, (start, _) in enumerate(ends)}
        second = {seed: end[after] for seed, (_, end) in enumerate(ends)}
        found = over_seeds(first, second)
        seeds = []
        for seed in first:
            one = paired_bootstrap(first[seed], second[seed], seed=0, measure=name)
            seeds.append(
                f"{100 * (one.difference or 0):+.1f} ({100 * (one.low or 0):+.1f} to {100 * (one.high or 0):+.1f})"
            )
        print(
            f"| {name} | {100 * (found.first or 0):.1f} % | {100 * (found.second or 0):.1f} % | "
            f"{100 * (found.difference or 0):+.1f} ({100 * (found.low or 0):+.1f} to {100 * (found.high or 0):+.1f}) | "
            f"{'; '.join(seeds)} |"
        )
    _print_habits(readers)


def _print_habits(readers: Sequence[RunReader]) -> None:
    """How many own verdicts put the answer in, and how many of those and of the others are right, start and end."""
    for place, name in ((0, "start"), (-1, "end")):
        right: dict[bool, list[bool]] = {True: [], False: []}
        for reader in readers:
            groups = reader.read_evaluation(reader.evaluations[place]).groups
            for rollout in (r for line in OWN for group in groups[line] for r in group.rollouts):
                working = rollout.text.split("\\boxed")[0]
                put_in = any(sign in working for sign in PUT_IN)
                right[put_in].append(rollout.score is not None and rollout.score.correct is True)
        put, glance = right[True], right[False]
        print(
            f"\n{name}: {len(put) / max(1, len(put) + len(glance)):.1%} of own verdicts put the answer in, "
            f"{sum(put) / max(1, len(put)):.1%} of them right; of the others {sum(glance) / max(1, len(glance)):.1%}"
        )


def _ends(reader: RunReader) -> tuple[Mapping[str, Cells], Mapping[str, Cells]]:
    """The measures of a run's first and of its last evaluation."""
    return measured(reader, reader.evaluations[0]), measured(reader, reader.evaluations[-1])


if __name__ == "__main__":
    main()
