"""Further problems in place of flat groups: how many a policy period still wants, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spark_kernel.objective.advantages import has_zero_variance
from spark_kernel.records import Exclusion, Group
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.training.state import RoundState


@dataclass(slots=True)
class Refill:
    """Counts what was taken. A flat group has the same reward for every answer, so that nothing is learned from it.

    Flat groups stay on record and may be recycled; the loss leaves them out with a reason of its own. Every further
    problem stays too, flat or not, so that figures are of problems as they come.

    Args:
        most: further problems at most.
        had: how many problems the round had before.
    """

    most: int
    had: int
    taken: int = 0
    turns: int = 0
    flat: list[int] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wanted(self, batch: Sequence[Group]) -> int:
        """How many problems are to be taken for the flat groups of the batch that was scored last."""
        flat = sum(has_zero_variance(group.rewards) for group in batch)
        self.flat.append(flat)
        return min(flat, self.most - self.taken)

    def add(self, count: int, scored: PhaseRecords, left_out: Sequence[Exclusion]) -> list[Group]:
        """Note what was taken; its groups are the next batch."""
        self.taken += count
        self.turns += 1
        self.groups += scored.groups
        self.exclusions += left_out
        self.notes += scored.meta.get("notes", ())
        return list(scored.groups)

    def completed(self, records: PhaseRecords, flight: RoundState) -> PhaseRecords:
        """The records of the whole phase, with the further problems, the cursor behind them, and a note."""
        if not self.turns:
            return records
        end = " (the bound is reached)." if self.taken == self.most and self.flat[-1] else "."
        note = (
            f"rollout.refill: {self.flat[0]} of {len(records.groups)} groups were flat; {self.taken} further problems "
            f"in {self.turns} turns, {sum(self.flat[1:])} of them flat{end}"
        )
        groups = (*records.groups, *self.groups)
        return replace(
            records,
            problems=flight.problems[self.had :],
            groups=groups,
            exclusions=(*records.exclusions, *self.exclusions),
            meta={
                **records.meta,
                "notes": [*records.meta.get("notes", ()), *self.notes, note],
                "cursor": flight.cursor_after,
            },
        )
