"""Reports and events as Arrow tables, so that a query can use them like the recorded rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import pyarrow as pa

from spark_kernel.records import KindStats, RoundReport, UpdateStats
from spark_kernel.runs.codec import dumps, encode_plain
from spark_kernel.runs.schemas import REPORT_SCHEMAS

Row = dict[str, Any]


def reports_table(reports: Iterable[RoundReport]) -> pa.Table:
    """One row per finished round."""
    rows = []
    for report in reports:
        row = {name: _cell(getattr(report, name)) for name in REPORT_SCHEMAS["reports"].names if name != "seconds"}
        row["seconds"] = float(sum(report.seconds_by_phase.values()))
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=REPORT_SCHEMAS["reports"])


def kind_stats_table(reports: Iterable[RoundReport]) -> pa.Table:
    """One row per round, period, kind and origin."""
    rows = [{"round": report.round} | _row(stats) for report in reports for stats in report.kinds]
    return pa.Table.from_pylist(rows, schema=REPORT_SCHEMAS["kind_stats"])


def updates_table(reports: Iterable[RoundReport]) -> pa.Table:
    """One row per round and update."""
    rows = [{"round": report.round} | _row(stats) for report in reports for stats in report.updates]
    return pa.Table.from_pylist(rows, schema=REPORT_SCHEMAS["updates"])


def evaluations_table(reports: Mapping[tuple[str, int], Mapping[str, Any]]) -> pa.Table:
    """One row per evaluation (suite, round), its report as JSON text."""
    rows = [
        {"round": round, "suite": suite, "report": dumps(encode_plain(report))}
        for (suite, round), report in reports.items()
    ]
    return pa.Table.from_pylist(rows, schema=REPORT_SCHEMAS["evaluations"])


def events_table(events: Iterable[Mapping[str, Any]]) -> pa.Table:
    """One row per event; `body` holds the event's other fields as JSON text."""
    rows = [
        {
            "number": event["number"],
            "time": event.get("time"),
            "event": event.get("event"),
            "body": dumps({key: value for key, value in event.items() if key not in ("number", "time", "event")}),
        }
        for event in events
    ]
    return pa.Table.from_pylist(rows, schema=REPORT_SCHEMAS["events"])


def _row(stats: KindStats | UpdateStats) -> Row:
    return {item.name: _cell(getattr(stats, item.name)) for item in fields(stats)}


def _cell(value: Any) -> Any:
    """A value as Arrow takes it: a mapping as pairs, a tuple as a list."""
    if isinstance(value, Mapping):
        return [(str(key), _cell(item)) for key, item in value.items()]
    if isinstance(value, tuple):
        return [_cell(item) for item in value]
    return value
