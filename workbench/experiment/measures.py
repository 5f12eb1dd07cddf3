"""The measures of an experiment: which held-out figures of a run they are, problem by problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spark_kernel.evaluate.compare import Cells, problem_cells
from spark_kernel.records import Group
from spark_kernel.runs.reader import RunReader
from workbench.views.chains import self_correction

Groups = Mapping[str, Sequence[Group]]


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure by its name for a person. `lines` of an evaluation go together; `balanced`: balanced accuracy."""

    label: str
    lines: tuple[str, ...]
    balanced: bool = False


MEASURES: dict[str, Measure] = {
    "own": Measure("judges its own answers, balanced accuracy", ("own/pointwise/answer", "own/pointwise/full"), True),
    "frozen": Measure(
        "judges the initial model's answers, balanced accuracy",
        ("frozen/pointwise/answer", "frozen/pointwise/full"),
        True,
    ),
    "pairs": Measure("chooses between two of its answers, accuracy", ("own/pairwise/answer", "own/pairwise/full")),
    "sampled": Measure("sampled answers, accuracy", ("solve",)),
    "greedy": Measure("greedy answers, accuracy", ("loop/solve",)),
    "loop": Measure("after the test-time loop, accuracy", ()),
    "reflection": Measure("reflections, accuracy", ("reflection",)),
    "vote": Measure("majority vote at the loop's tokens, accuracy", ()),
    "best_of": Measure("best of n by its verdicts at the loop's tokens, accuracy", ()),
    "tournament": Measure("pairwise tournament among its samples, accuracy", ()),
    "best_of_all": Measure("best of all its samples by its verdicts, accuracy", ()),
}
"""By name. An unreadable verdict counts as wrong; own judgements and pairs are of both views together."""
CHOSEN = {"vote": "vote", "best_of": "best_of", "tournament": "tournament", "best_of_all": "best_of_all"}
"""Measures that choose among the sampled answers, and the line of the summary that says which."""


def measured(reader: RunReader, round: int) -> dict[str, Cells]:
    """The cells of every measure that an evaluation has."""
    groups = reader.read_evaluation(round).groups
    found: dict[str, Cells] = {}
    for name, measure in MEASURES.items():
        members = [group for line in measure.lines for group in groups.get(line, ())]
        if members:
            found[name] = problem_cells(members, balanced=measure.balanced)
    lines = reader.evaluation(round).get("lines", {})
    if (loop := self_correction(reader, round)) is not None:
        ends = {chain.problem_id: chain.final_step.correct for chain in loop.chains}
        found["loop"] = _one_each(ends)
    for name, line in CHOSEN.items():
        if line in lines and "chosen" in lines[line]:
            found[name] = _one_each(_chosen(groups.get("solve", ()), lines[line]["chosen"]))
    return found


def _chosen(solved: Sequence[Group], chosen: Sequence[int]) -> dict[str, bool | None]:
    ends = {}
    for group, index in zip(solved, chosen, strict=True):
        score = group.rollouts[index].score
        ends[group.task.problem_id] = None if score is None else score.correct
    return ends


def _one_each(ends: Mapping[str, bool | None]) -> Cells:
    """Cells of one outcome a problem; a problem without a finding is in none."""
    return {problem: {"all": (float(correct), 1)} for problem, correct in ends.items() if correct is not None}
