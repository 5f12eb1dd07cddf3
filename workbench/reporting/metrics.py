"""The numbers of a round under stable names, for experiment trackers and the terminal (docs/reporting.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from spark_kernel.records import Kind, KindStats, RoundReport


def round_metrics(report: RoundReport) -> dict[str, float]:
    """Every number of a round's report, flat. Undefined figures are left out.

    Names: train/KIND/ORIGIN/..., update/PERIOD/..., seconds/PERIOD/PHASE, recycled/KIND/ORIGIN,
    exclusions/STAGE/REASON, queue/length, balance/before/LABEL, balance/after/LABEL, policy_version.
    """
    found: dict[str, float] = {
        "policy_version": float(report.policy_version),
        "queue/length": float(report.queue_length),
    }
    for stats in report.kinds:
        found |= _numbers(f"train/{stats.kind}/{stats.origin}", _without(asdict(stats), "period", "kind", "origin"))
    for update in report.updates:
        found |= _numbers(f"update/{update.period}", _without(asdict(update), "period", "notes"))
    for prefix, counts in (
        ("seconds", report.seconds_by_phase),
        ("recycled", report.recycled),
        ("exclusions", report.exclusions),
        ("balance/before", report.balance_before),
        ("balance/after", report.balance_after),
        ("shortcut", report.shortcut),
    ):
        found |= _numbers(prefix, counts)
    found["seconds/total"] = float(sum(report.seconds_by_phase.values()))
    return found


def evaluation_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a held-out evaluation's summary, flat: held_out/LINE/FIGURE. Undefined figures are left out."""
    return _numbers("held_out", _without(summary, "lines") | dict(summary.get("lines", {})))


def kind_accuracy(report: RoundReport, kind: Kind) -> float | None:
    """Share of correct on-policy outputs of a kind, all origins and periods together; None without any."""
    lines = [line for line in report.kinds if line.kind is kind]
    return _weighted(lines)


def judge_accuracy(report: RoundReport) -> float | None:
    """Share of correct on-policy verdicts, pointwise and pairwise together; None without any."""
    return _weighted(line for line in report.kinds if line.kind.judges)


def _weighted(lines: Iterable[KindStats]) -> float | None:
    rows = [(line.accuracy, line.n) for line in lines if line.accuracy is not None and line.n]
    total = sum(n for _, n in rows)
    return sum(accuracy * n for accuracy, n in rows) / total if total else None


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _numbers(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers below a prefix, nested mappings joined with "/"; text, lists and None are passed over."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(f"{prefix}/{name}", value)
        elif isinstance(value, int | float):
            found[f"{prefix}/{name}"] = float(value)
    return found
