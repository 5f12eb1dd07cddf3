"""The lines of a round's report: on-policy figures by kind and origin, and what was left out."""

from __future__ import annotations

from collections import Counter

from spark_kernel.evaluate.kind_stats import exclusion_counts, kind_stats, task_counts
from spark_kernel.evaluate.shortcut import shortcuts
from spark_kernel.records import RoundReport
from spark_kernel.training.state import RoundState


def round_report(flight: RoundState, *, policy_version: int, queue_length: int) -> RoundReport:
    """The report of a round whose stages are all done.

    `policy_version` and `queue_length` (tasks that wait) are those at the end of the round.
    """
    before, after = Counter[str](), Counter[str]()
    for recycled in flight.recycled.values():
        before.update(recycled.balance_before)
        after.update(recycled.balance_after)
    return RoundReport(
        round=flight.round,
        policy_version=policy_version,
        kinds=tuple(stats for period, groups in flight.groups.items() for stats in kind_stats(groups, period)),
        updates=tuple(flight.updates),
        seconds_by_phase=dict(flight.seconds),
        recycled=task_counts(flight.made),
        exclusions=exclusion_counts(flight.exclusions),
        queue_length=queue_length,
        balance_before=dict(before),
        balance_after=dict(after),
        shortcut=shortcuts(group.task for groups in flight.groups.values() for group in groups),
        notes=tuple(flight.notes),
    )
