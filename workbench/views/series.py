"""A run's figures over rounds, for the dashboard: on-policy, held-out, updates and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.judge_words import one_sided_sentence
from spark_kernel.records import KindStats, RoundReport, UpdateStats
from spark_kernel.runs.reader import RunReader
from workbench.views.lines import Line, Value, make_lines, thin

MOST_POINTS = 400
"""Rounds of one curve that are read and drawn, unless a caller asks for more."""
MOST_EVALUATIONS = 60
"""The same for held-out curves, whose points are markers with error bars."""
LINE_FIELDS = tuple(f.name for f in fields(KindStats) if f.name not in ("period", "kind", "origin", "judge"))
UPDATE_FIELDS = tuple(
    f.name for f in fields(UpdateStats) if f.name not in ("period", "by_kind", "sampler_mismatch", "notes")
)


@dataclass(frozen=True, slots=True)
class RoundSeries:
    """Everything that the dashboard draws.

    `rounds`: the rounds that are shown, ascending; `total_rounds` are on disk. `thinned`: a sentence where some are
    left out, else empty.

    Lines, each a `Line` with a `name`:

    - `on_policy`: name (period, kind, origin); figures are the fields of `KindStats` and, of judges, the judge figures
      of docs/measures.md (`balanced_accuracy`, `base_rate`, `chance`, `yes_rate`, `a_rate`, `one_sided`, ...).
      `accuracy_low` and `accuracy_high` are its 95 % interval clustered by problem; `n` counts rollouts.
    - `held_out`: name (line,) as docs/measures.md names them ("solve", "greedy", "own/pointwise/answer", "frozen/...",
      "reflection", "loop"); rounds are those after which an evaluation stands, 0 before the first. An estimate
      `accuracy` has `accuracy_low`, `accuracy_high` and `accuracy_n`; judges' figures are as above, with `n`.
    - `updates`: name (period,): the fields of `UpdateStats`, and those of its sampler mismatch as `mismatch_NAME`.
    - `updates_by_kind`: name (period, kind): loss, kl [nats], entropy [nats], clip_share, loss_tokens.
    - `seconds`: name (period/phase,): figure `seconds`.
    - `whole`: one line, name ("round",): `seconds`, `queue_length` and `policy_version` of the round.

    - `memory`: one line, name ("memory",): `process` and, on a GPU, `device`: peak so far in bytes. Rounds that
      recorded none are not in it.

    `flags`: a sentence for each judge that gives nearly always the same verdict in the newest round or evaluation.
    """

    run: str
    rounds: tuple[int, ...]
    total_rounds: int
    thinned: str
    on_policy: tuple[Line, ...]
    held_out: tuple[Line, ...]
    updates: tuple[Line, ...]
    updates_by_kind: tuple[Line, ...]
    seconds: tuple[Line, ...]
    whole: Line
    flags: tuple[str, ...]
    memory: Line = field(default_factory=lambda: Line(("memory",), (), {}))

    def kind_line(self, kind: str, origin: str) -> Line | None:
        """The on-policy line of a kind and origin; None where there is none."""
        return next((line for line in self.on_policy if line.name[1:] == (kind, origin)), None)

    def held_out_line(self, name: str) -> Line | None:
        """A held-out line by name, e.g. "own/pointwise/answer"; None where there is none."""
        return _named(self.held_out, (name,))

    def update_line(self, period: str) -> Line | None:
        """The update line of a period (policy, reward, joint); None where there is none."""
        return _named(self.updates, (period,))

    def update_kind_line(self, kind: str) -> Line | None:
        """The line of a kind's share of the updates; None where there is none."""
        return next((line for line in self.updates_by_kind if line.name[1] == kind), None)


def round_series(reader: RunReader, most: int = MOST_POINTS) -> RoundSeries:
    """The figures of a run; cheap to call again, because the reader keeps the reports it has read.

    Args:
        most: rounds to show at most; the first, the last and the evaluated ones are kept (`lines.thin`).

    Raises:
        RunFolderError: a report is damaged.
    """
    rounds, evaluated = reader.rounds, reader.evaluations
    reports = _reports(reader, thin(rounds, most, evaluated))
    summaries = _summaries(reader, thin(evaluated, min(most, MOST_EVALUATIONS)))
    shown = tuple(report.round for report in reports)
    on_policy = make_lines(
        ((str(line.period), str(line.kind), str(line.origin)), report.round, _kind_figures(line))
        for report in reports
        for line in report.kinds
    )
    held_out = make_lines(
        ((name,), round, held_out_figures(values))
        for round, summary in summaries.items()
        for name, values in summary.get("lines", {}).items()
    )
    return RoundSeries(
        run=reader.info.name,
        rounds=shown,
        total_rounds=len(rounds),
        thinned=_thinned(len(shown), len(rounds)),
        on_policy=on_policy,
        held_out=held_out,
        updates=make_lines(_updates(reports)),
        updates_by_kind=make_lines(_updates_by_kind(reports)),
        seconds=make_lines(
            ((name,), report.round, {"seconds": value})
            for report in reports
            for name, value in report.seconds_by_phase.items()
        ),
        whole=Line(
            ("round",),
            shown,
            {
                "seconds": tuple(float(sum(report.seconds_by_phase.values())) for report in reports),
                "queue_length": tuple(float(report.queue_length) for report in reports),
                "policy_version": tuple(float(report.policy_version) for report in reports),
            },
        ),
        flags=(*_flags(on_policy, "on-policy"), *_flags(held_out, "held-out")),
        memory=_memory(reader, shown),
    )


def held_out_figures(values: Mapping[str, Any]) -> dict[str, Value]:
    """The figures of one line of an evaluation's summary, flat: numbers, and estimates with interval and n."""
    flat: dict[str, Value] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "value" in value:
            flat |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
            flat[f"{name}_n"] = value["n"]
        elif isinstance(value, bool | int | float) or value is None:
            flat[name] = None if value is None else float(value)
    return flat


def _reports(reader: RunReader, rounds: Iterable[int]) -> list[RoundReport]:
    """The reports of rounds; one that is discarded meanwhile is left out."""
    found = []
    for round in rounds:
        try:
            found.append(reader.report(round))
        except RunFolderError:
            if round in reader.rounds:
                raise
    return found


def _summaries(reader: RunReader, rounds: Iterable[int]) -> dict[int, dict[str, Any]]:
    found = {}
    for round in rounds:
        try:
            found[round] = reader.evaluation(round)
        except RunFolderError:
            if round in reader.evaluations:
                raise
    return found


def _memory(reader: RunReader, rounds: Iterable[int]) -> Line:
    rows = []
    for round in rounds:
        try:
            peak = reader.round_meta(round).get("peak_memory")
        except RunFolderError:
            if round in reader.rounds:
                raise
            continue
        if isinstance(peak, Mapping):
            figures = {str(name): float(value) for name, value in peak.items() if isinstance(value, int)}
            rows.append((("memory",), round, figures))
    return next(iter(make_lines(rows)), Line(("memory",), (), {}))


def _kind_figures(line: KindStats) -> dict[str, Value]:
    figures: dict[str, Value] = {name: getattr(line, name) for name in LINE_FIELDS}
    # Graded rewards have an interval of their own, which is not that of the share of correct ones.
    if line.accuracy == line.reward_mean:
        figures |= {"accuracy_low": line.reward_low, "accuracy_high": line.reward_high}
    return figures | dict(line.judge or {})


def _updates(reports: Iterable[RoundReport]) -> Iterable[tuple[tuple[str, ...], int, dict[str, Value]]]:
    for report in reports:
        for update in report.updates:
            figures: dict[str, Value] = {name: float(getattr(update, name)) for name in UPDATE_FIELDS}
            figures |= {f"mismatch_{name}": value for name, value in update.sampler_mismatch.items()}
            yield (str(update.period),), report.round, figures


def _updates_by_kind(reports: Iterable[RoundReport]) -> Iterable[tuple[tuple[str, ...], int, dict[str, Value]]]:
    for report in reports:
        for update in report.updates:
            for kind, figures in update.by_kind.items():
                yield (str(update.period), kind), report.round, dict(figures)


def _thinned(shown: int, total: int) -> str:
    return f"{shown} of {total} rounds are shown." if shown < total else ""


def _flags(lines: Sequence[Line], where: str) -> list[str]:
    flags = []
    for line in lines:
        told = one_sided_sentence({name: line.last(name) for name in line.figures}) if line.rounds else None
        if told is not None:
            flags.append(
                f"One-sided judge, {'/'.join(line.name[1:] or line.name)}, {where}, round {line.rounds[-1]}: {told}"
            )
    return flags


def _named(lines: Sequence[Line], name: tuple[str, ...]) -> Line | None:
    return next((line for line in lines if line.name == name), None)
