"""A finished run of three rounds with its on-policy lines, and the groups it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from spark_kernel.evaluate.kind_stats import kind_stats
from spark_kernel.records import Group, Period, RoundReport
from spark_kernel.runs.bundles import RoundRecords
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import (
    CONFIG,
    ENVIRONMENT,
    OTHER_SUITE,
    fill_checkpoint,
    make_evaluation,
    make_round,
)

ROUNDS = (1, 2, 3)


def with_kinds(records: RoundRecords, report: RoundReport) -> RoundReport:
    """The report with the on-policy lines that the trainer would put there."""
    return replace(
        report, kinds=tuple(s for period, groups in records.groups.items() for s in kind_stats(groups, period))
    )


def groups_of(round: int) -> Iterator[tuple[Period, Group]]:
    """Period and group of everything that a round recorded."""
    for period, groups in make_round(round)[0].groups.items():
        for group in groups:
            yield period, group


def record_run(run: Path) -> Path:
    """Write the run, with evaluations of two suites and a checkpoint; returns its folder."""
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        for round in ROUNDS:
            records, _, report = make_round(round)
            writer.finish_round(records, with_kinds(records, report))
        for round in (0, 3):
            writer.write_evaluation(*make_evaluation(round))
            writer.write_evaluation(*make_evaluation(round, OTHER_SUITE))
        writer.write_evaluation(*make_evaluation(2, OTHER_SUITE))
        writer.write_checkpoint(checkpoint_name(3), fill_checkpoint)
        writer.close("finished")
    return run
