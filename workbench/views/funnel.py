"""From opportunities to the update: how many tasks and outputs went on at each step, and why others did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.views.fates import Fates, rounds_from
from workbench.views.round_tables import RoundTables, TableCache

OFFERED, QUEUED, SCORED, TRAINED = "offered", "queued", "scored", "trained"
GOES_ON = ""


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of the way from opportunities to the update. `entered` = `remained` + the sum of `left`.

    `left`: reason -> count of what did not go on. `unit`: what is counted.
    """

    name: str
    unit: str
    entered: int
    left: Mapping[str, int]
    remained: int


@dataclass(frozen=True, slots=True)
class Funnel:
    """The steps for tasks made in `rounds`, and the same for each kind. `waiting` tasks count as left at the queue."""

    rounds: tuple[int, ...]
    steps: tuple[FunnelStep, ...]
    by_kind: Mapping[str, tuple[FunnelStep, ...]]


def funnel(cache: TableCache, rounds: Sequence[int], *, ahead: int = 3) -> Funnel:
    """From opportunities to the update, for the tasks made in `rounds`; counts add up at every step.

    Raises:
        RunFolderError: no such round.
    """
    parts = [_funnel_counts(rounds_from(cache, round, ahead)) for round in rounds]
    total: Counter[tuple[str, str, str]] = Counter()
    for part in parts:
        total.update(part)
    kinds = sorted({kind for _, kind, _ in total})
    return Funnel(tuple(rounds), _steps(total, None), {kind: _steps(total, kind) for kind in kinds})


def _funnel_counts(seen: Sequence[RoundTables]) -> Counter[tuple[str, str, str]]:
    """(step, kind, reason or GOES_ON) -> count."""
    counts: Counter[tuple[str, str, str]] = Counter()
    made = seen[0].recycled.select(["id", "kind"]).to_pylist()
    fates = Fates(seen)
    for row in seen[0].exclusions.to_pylist():
        if row["stage"] == "recycle":
            counts[OFFERED, row["kind"] or "?", row["reason"]] += 1
    sampled = set()
    for row in made:
        counts[OFFERED, row["kind"], GOES_ON] += 1
        fate, _, reason = fates.of(row["id"])
        if fate == "sampled":
            sampled.add(row["id"])
        counts[
            QUEUED, row["kind"], {"sampled": GOES_ON, "excluded": reason.partition("/")[2], "waiting": "waiting"}[fate]
        ] += 1
    for tables in seen:
        left_out = {r["subject_id"]: r["reason"] for r in tables.exclusions.to_pylist() if r["stage"] == "update"}
        for row in tables.rollouts.select(["id", "task_id", "kind", "reward", "parse"]).to_pylist():
            if row["task_id"] not in sampled:
                continue
            if row["reward"] is None:
                counts[SCORED, row["kind"], row["parse"] or "not verified"] += 1
                continue
            counts[SCORED, row["kind"], GOES_ON] += 1
            reason = "update not done" if tables.in_flight else left_out.get(row["id"], GOES_ON)
            counts[TRAINED, row["kind"], reason] += 1
    return counts


def _steps(counts: Mapping[tuple[str, str, str], int], kind: str | None) -> tuple[FunnelStep, ...]:
    found = []
    for step, name, unit in (
        (OFFERED, "opportunities made into tasks", "tasks"),
        (QUEUED, "tasks sampled", "tasks"),
        (SCORED, "outputs with a reward", "outputs"),
        (TRAINED, "outputs in the update", "outputs"),
    ):
        left: Counter[str] = Counter()
        remained = 0
        for (at, of, reason), n in counts.items():
            if at != step or (kind is not None and of != kind):
                continue
            if reason == GOES_ON:
                remained += n
            else:
                left[reason] += n
        found.append(FunnelStep(name, unit, remained + sum(left.values()), dict(sorted(left.items())), remained))
    return tuple(found)
