"""What judges said about an output, in its own round and later ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_kernel.records import Kind
from workbench.views.round_tables import RoundTables, TableCache
from workbench.views.task_rows import source_position

JUDGES = (str(Kind.POINTWISE), str(Kind.PAIRWISE))


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict about one output.

    `round` in which it was given; `position`: "A" or "B" where the output stood in a pair, else empty. `verdict`: what
    was read ("Yes", "No", "A", "B"), None where nothing was. `says_right`: whether it takes the output for right; None
    if it cannot be read. `is_right`: whether the verifier calls the verdict right. `text`: the judge's whole output.
    """

    round: int
    task_id: str
    rollout_id: str
    kind: str
    origin: str
    view: str | None
    position: str
    verdict: str | None
    says_right: bool | None
    is_right: bool | None
    text: str


def verdicts_about(cache: TableCache, round: int, ahead: int = 1) -> Mapping[str, Sequence[Verdict]]:
    """The verdicts about the outputs of a round, by rollout id, as far as they were given up to `ahead` rounds later.

    A judge task waits at most `recycle.max_age` rounds, so that an `ahead` of that (plus 1 for what is made of
    reflections) finds every verdict. Rounds that do not exist yet are passed over.

    Raises:
        RunFolderError: a table is damaged.
    """
    found: dict[str, list[Verdict]] = defaultdict(list)
    for later in range(round, round + ahead + 1):
        if later != round and not cache.has(later):
            break
        for source, verdict in cache.derived(cache.round(later), "verdicts", _of_round):
            found[source].append(verdict)
    return found


def _of_round(tables: RoundTables) -> list[tuple[str, Verdict]]:
    return list(verdicts_in(tables.tasks, tables.rollouts, "period"))


def verdicts_in_evaluation(tasks: pa.Table, rollouts: pa.Table) -> Mapping[str, Sequence[Verdict]]:
    """The verdicts in the tables of an evaluation, by the id of the output judged."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for source, verdict in verdicts_in(tasks, rollouts, "part"):
        found[source].append(verdict)
    return found


def verdicts_in(tasks: pa.Table, rollouts: pa.Table, place: str) -> Iterator[tuple[str, Verdict]]:
    """Each (id of the output judged, verdict) in the tables of a round or, with `place` "part", of an evaluation.

    A verdict about a pair comes twice, once for each candidate.
    """
    judging = tasks.filter(pc.is_in(tasks["kind"], pa.array(JUDGES)))
    owners: dict[tuple[str, int], dict[str, Any]] = {
        (row[place], row["group_index"]): row
        for row in judging.select([place, "group_index", "id", "kind", "origin", "view", "sources"]).to_pylist()
    }
    given = rollouts.filter(pc.is_in(rollouts["kind"], pa.array(JUDGES)))
    columns = ["round", place, "group_index", "id", "parse", "answer", "correct", "text"]
    for row in given.select(columns).to_pylist():
        task = owners.get((row[place], row["group_index"]))
        if task is None:
            continue
        verdict = row["answer"] if row["parse"] == "ok" else None
        for index, source in enumerate(task["sources"]):
            position = source_position(task, index)
            says = None if verdict is None else verdict == (position or "Yes")
            yield (
                source,
                Verdict(
                    round=row["round"],
                    task_id=task["id"],
                    rollout_id=row["id"],
                    kind=task["kind"],
                    origin=task["origin"],
                    view=task["view"],
                    position=position,
                    verdict=verdict,
                    says_right=says,
                    is_right=row["correct"],
                    text=row["text"],
                ),
            )
