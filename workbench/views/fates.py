"""What became of recycled tasks, from the tables of the round that made them and of the rounds after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workbench.views.round_tables import RoundTables, TableCache


class Fates:
    """Where each task went, from the tables of the round that made it and the rounds after."""

    def __init__(self, seen: Sequence[RoundTables]) -> None:
        self.sampled: dict[str, int] = {}
        self.outputs: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.excluded: dict[str, tuple[int, str]] = {}
        for tables in seen:
            for task_id in tables.tasks["id"].to_pylist():
                self.sampled[task_id] = tables.round
            for row in tables.rollouts.select(["task_id", "correct"]).to_pylist():
                self.outputs[row["task_id"]] += 1
                self.right[row["task_id"]] += row["correct"] is True
            for row in tables.exclusions.to_pylist():
                self.excluded.setdefault(row["subject_id"], (row["round"], f"{row['stage']}/{row['reason']}"))

    def of(self, task_id: str) -> tuple[str, int | None, str]:
        """Fate, its round, and the reason of an exclusion."""
        if task_id in self.sampled:
            return "sampled", self.sampled[task_id], ""
        if task_id in self.excluded:
            round, reason = self.excluded[task_id]
            return "excluded", round, reason
        return "waiting", None, ""


def rounds_from(cache: TableCache, round: int, ahead: int) -> list[RoundTables]:
    """The tables of a round and of up to `ahead` rounds after it, as far as they are there.

    Raises:
        RunFolderError: no such round.
    """
    found = [cache.round(round)]
    for later in range(round + 1, round + ahead + 1):
        if not cache.has(later):
            break
        found.append(cache.round(later))
    return found
