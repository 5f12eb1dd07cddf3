"""A run's figures as labelled rows with intervals, and the sentences that belong to them.

What the terminal's report, the page and the model card show beside each other, and in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_kernel.evaluate.judge_words import one_sided_sentence
from spark_kernel.records import KindStats, RoundReport

Figure = tuple[float | None, float | None, float | None, int]
"""A value, its 95 % interval and its number of observations."""
Row = tuple[str, list[Figure | None]]
"""A label, and its figure in each column."""

JUDGE_ROWS = (
    ("Judges its own answers, balanced accuracy", "own/pointwise/answer", "balanced_accuracy"),
    ("  the same, shown the whole response", "own/pointwise/full", "balanced_accuracy"),
    ("Chooses between two of its answers, accuracy", "own/pairwise/answer", "accuracy"),
    ("  the same, shown the whole responses", "own/pairwise/full", "accuracy"),
)
METHOD_ROWS = (
    ("  majority vote at the loop's token cost", "vote"),
    ("  best of n by its verdicts, same cost", "best_of"),
    ("  vote weighted by its judge, same cost", "weighted_vote"),
)


def evaluation_name(round: int, summary: Mapping[str, Any]) -> str:
    """An evaluation as the head of a column."""
    start = "before training" if round == 0 else f"after round {round}"
    return f"{start}, {summary.get('problems')} problems"


def held_out_rows(summaries: Mapping[int, Mapping[str, Any]]) -> list[Row]:
    """The figures of evaluations, side by side; rows that none of them has are left out."""
    lines = [summary.get("lines", {}) for summary in summaries.values()]
    rows: list[Row] = [
        ("Accuracy, greedy", [_estimate(x, "greedy", "accuracy") for x in lines]),
        ("Accuracy, sampled", [_estimate(x, "solve", "accuracy") for x in lines]),
        *((label, [_flat(x, line, figure) for x in lines]) for label, line, figure in JUDGE_ROWS),
        ("Reflection on a wrong answer ends right", [_estimate(x, "reflection", "from_wrong") for x in lines]),
        ("Reflection on a right answer stays right", [_estimate(x, "reflection", "from_correct") for x in lines]),
        ("Test-time loop: first answer right", [_estimate(x, "loop", "before") for x in lines]),
        ("Test-time loop: final answer right", [_estimate(x, "loop", "after") for x in lines]),
        *((label, [_estimate(x, line, "accuracy") for x in lines]) for label, line in METHOD_ROWS),
    ]
    return [(label, figures) for label, figures in rows if any(figure is not None for figure in figures)]


def one_sided_notes(summaries: Mapping[int, Mapping[str, Any]], model: str | None = None) -> list[str]:
    """A sentence for each judge that gives nearly always the same verdict."""
    return [
        f"{model or f'Round {round}'}, {name}, one-sided judge: {told}"
        for round, summary in summaries.items()
        for name, values in summary.get("lines", {}).items()
        if name.startswith("own/") and (told := one_sided_sentence(values)) is not None
    ]


def loop_notes(summaries: Mapping[int, Mapping[str, Any]], model: str | None = None) -> list[str]:
    """What the test-time loop changed, with McNemar's exact p; and where a method had fewer tokens than the loop."""
    notes = []
    for round, summary in summaries.items():
        lines, subject = summary.get("lines", {}), model or f"Round {round}"
        loop = lines.get("loop", {})
        if loop.get("mcnemar_p") is not None:
            table = loop["transitions"]
            notes.append(
                f"{subject}, test-time loop: {table['wrong_right']} wrong answers became right, "
                f"{table['right_wrong']} right ones wrong; McNemar's exact p {loop['mcnemar_p']:.2g}."
            )
        short = [label.split(",")[0].split(" at ")[0].strip() for label, line in METHOD_ROWS if _limited(lines, line)]
        if short:
            notes.append(
                f"{subject}, {' and '.join(short)}: all samples together cost less than the loop; for equal cost "
                "raise evaluation.samples."
            )
    return notes


def on_policy_rows(reports: Sequence[RoundReport]) -> list[Row]:
    """The share of correct rollouts by kind and what it was made from, rounds side by side."""
    keys = dict.fromkeys((line.kind, line.origin) for report in reports for line in report.kinds)
    rows: list[Row] = []
    for kind, origin in keys:
        found = [
            next((line for line in report.kinds if (line.kind, line.origin) == (kind, origin)), None)
            for report in reports
        ]
        rows.append((f"{kind}, {origin}", [share_correct(line) for line in found]))
    return rows


def first_and_last(reports: Sequence[RoundReport]) -> list[RoundReport]:
    """Two reports, one, or none."""
    return [reports[0], reports[-1]] if len(reports) > 1 else list(reports)


def show_figure(figure: Figure | None) -> str:
    """62.5% [50.1, 73.4] n 64."""
    value, low, high, n = figure or (None, None, None, 0)
    if value is None:
        return "-"
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}%{interval} n {n}"


def percent(value: float | None) -> str:
    """A share in whole percent."""
    return "-" if value is None else f"{100 * value:.0f}%"


def share_correct(line: KindStats | None) -> Figure | None:
    """The share of correct outputs of a line of a report, with its interval where the reward is that share."""
    if line is None:
        return None
    exact = line.accuracy == line.reward_mean  # graded rewards have an interval of their own, not that of the share
    return line.accuracy, line.reward_low if exact else None, line.reward_high if exact else None, line.n


def _estimate(lines: Mapping[str, Any], line: str, figure: str) -> Figure | None:
    found = lines.get(line, {}).get(figure)
    return None if found is None else (found["value"], found["low"], found["high"], found["n"])


def _flat(lines: Mapping[str, Any], line: str, figure: str) -> Figure | None:
    found = lines.get(line)
    return None if found is None else (found[figure], found[f"{figure}_low"], found[f"{figure}_high"], found["n"])


def _limited(lines: Mapping[str, Any], line: str) -> bool:
    return bool(lines.get(line, {}).get("limited"))
