"""What lies in a run folder, for tests that compare before and after, and whether it is a prefix of the run."""

from __future__ import annotations

from pathlib import Path

from spark_kernel.runs.checkpoints import verify_checkpoint
from spark_kernel.runs.reader import RunReader
from tests.helpers.recorded_runs import make_evaluation, make_round


def listing(root: Path) -> dict[str, bytes]:
    """Every file below with its content, but the log and the lock."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name not in ("lock", "events.jsonl"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def event_names(run: Path) -> list[str]:
    """The events of a run, in order."""
    return [event["event"] for event in RunReader(run).events()]


def check_prefix(run: Path) -> int:
    """Everything a reader sees is a prefix of the run, and equal to what was recorded; returns the last round."""
    reader = RunReader(run)
    last = len(reader.rounds)
    assert reader.rounds == list(range(1, last + 1))
    for round in reader.rounds:
        records, _, report = make_round(round)
        assert reader.read_round(round) == records
        assert reader.report(round) == report
    expected = make_round(last + 1)[1]
    infos = reader.phases()
    assert [info.index for info in infos] == list(range(len(infos)))
    for info in infos:
        assert (info.period, info.phase) == expected[info.index][:2]
        assert reader.phase(info) == expected[info.index][2]
    assert all(round <= last for suite in reader.suites for round in reader.evaluated(suite))
    for suite in reader.suites:
        for round in reader.evaluated(suite):
            assert (reader.read_evaluation(round, suite), reader.evaluation(round, suite)) == make_evaluation(
                round, suite
            )
    for info in reader.checkpoints:
        assert info.round <= last + info.in_progress
        assert verify_checkpoint(info.path).round == info.round
    assert [event["number"] for event in reader.events()] == list(range(1, len(list(reader.events())) + 1))
    reader.status()
    return last
