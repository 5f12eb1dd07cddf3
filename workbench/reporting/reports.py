"""A run's report on the terminal: first and last round beside each other with intervals, and where the time went."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from spark_kernel.records import KindStats, RoundReport
from spark_kernel.runs.reader import RunReader
from workbench.console import plain_table

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


def print_report(reader: RunReader, console: Console) -> None:
    """The report of a run: held-out and on-policy figures, first and last, and seconds by phase."""
    evaluated = reader.evaluations
    if evaluated:
        console.print(held_out_table({round: reader.evaluation(round) for round in dict.fromkeys(_ends(evaluated))}))
    reports = reader.reports()
    if reports:
        console.print(on_policy_table(reports))
        console.print(seconds_table(reports, evaluation_seconds(reader)))
        for line in mismatch_lines(reports):
            console.print(line, soft_wrap=True, markup=False)
    for line in hints(reader):
        console.print(line, soft_wrap=True, markup=False)


def held_out_table(
    summaries: Mapping[int, Mapping[str, Any]], model: str | None = None, title: str = "Held-out problems"
) -> RenderableType:
    """Figures of evaluations, one column each, with 95 % intervals clustered by problem.

    Args:
        model: what an evaluation that follows no round is called.
        title: what was asked.
    """
    table = plain_table(f"{title} (95 % intervals)")
    table.add_column("", no_wrap=True)
    for round, summary in summaries.items():
        head = evaluation_name(round, summary) if model is None else f"{model}, {summary.get('problems')} problems"
        table.add_column(head, justify="right")
    for label, figures in held_out_rows(summaries):
        table.add_row(label, *map(show_figure, figures))
    return Group(table, *one_sided_notes(summaries, model), *loop_notes(summaries, model))


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
        f"{model or f'Round {round}'}, {name}: the judge gives nearly always the same verdict."
        for round, summary in summaries.items()
        for name, values in summary.get("lines", {}).items()
        if name.startswith("own/") and values.get("one_sided")
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


def on_policy_table(reports: Sequence[RoundReport]) -> Table:
    """On-policy share of correct outputs by kind, first and last round."""
    chosen = first_and_last(reports)
    table = plain_table("Training rollouts, share correct (95 % intervals)")
    table.add_column("kind, made from", no_wrap=True)
    for report in chosen:
        table.add_column(f"round {report.round}", justify="right")
    for label, figures in on_policy_rows(chosen):
        table.add_row(label, *map(show_figure, figures))
    return table


def on_policy_rows(reports: Sequence[RoundReport]) -> list[Row]:
    """The share of correct rollouts by kind and what it was made from, rounds side by side."""
    keys = dict.fromkeys((line.kind, line.origin) for report in reports for line in report.kinds)
    rows: list[Row] = []
    for kind, origin in keys:
        found = [
            next((line for line in report.kinds if (line.kind, line.origin) == (kind, origin)), None)
            for report in reports
        ]
        rows.append((f"{kind}, {origin}", [_of_kind(line) for line in found]))
    return rows


def first_and_last(reports: Sequence[RoundReport]) -> list[RoundReport]:
    """Two reports, one, or none."""
    return [reports[0], reports[-1]] if len(reports) > 1 else list(reports)


def seconds_table(reports: Sequence[RoundReport], evaluating: float) -> Table:
    """Seconds by phase over all rounds."""
    totals: dict[str, float] = {}
    for report in reports:
        for name, seconds in report.seconds_by_phase.items():
            totals[name] = totals.get(name, 0.0) + seconds
    if evaluating:
        totals["evaluation"] = evaluating
    whole = sum(totals.values())
    table = plain_table(f"Seconds by phase, {len(reports)} round{'s' if len(reports) > 1 else ''}")
    table.add_column("period/phase", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for name, seconds in totals.items():
        table.add_row(name, f"{seconds:.1f}", f"{100 * seconds / whole:.0f}%" if whole else "-")
    table.add_row("all", f"{whole:.1f}", "")
    return table


def round_tables(report: RoundReport) -> list[RenderableType]:
    """Everything a round's report says."""
    kinds = plain_table(f"Round {report.round}: training rollouts (shares with 95 % intervals)")
    for name in ("period", "kind", "made from"):
        kinds.add_column(name, no_wrap=True)
    for name in ("groups", "share correct", "unreadable", "cut off", "tokens", "right/mixed/wrong"):
        kinds.add_column(name, justify="right")
    for line in report.kinds:
        mixture = "/".join(percent(value) for value in (line.all_correct, line.mixed, line.all_wrong))
        length = "-" if line.length_mean is None else f"{line.length_mean:.0f}"
        cells = [str(line.period), str(line.kind), str(line.origin), str(line.groups)]
        cells += [show_figure(_of_kind(line)), percent(line.unparseable), percent(line.truncated), length, mixture]
        kinds.add_row(*cells)
    updates = plain_table("Updates")
    updates.add_column("period")
    for name in (
        "optimizer steps",
        "sequences",
        "loss",
        "KL",
        "entropy",
        "clipped",
        "gradient norm",
        "rate",
        "seconds",
    ):
        updates.add_column(name, justify="right")
    for update in report.updates:
        numbers = [str(update.optimizer_steps), str(update.sequences), f"{update.loss:+.4f}", f"{update.kl:.2e}"]
        numbers += [f"{update.entropy:.3f}", percent(update.clip_share), f"{update.grad_norm:.3f}"]
        numbers += [f"{update.learning_rate:.2e}", f"{update.seconds:.1f}"]
        updates.add_row(str(update.period), *numbers)
    counts = [
        counts_line("Recycled tasks made", report.recycled),
        counts_line("Left out", report.exclusions),
        f"Tasks waiting: {report.queue_length}",
        *mismatch_lines([report]),
        *report.notes,
        *(note for update in report.updates for note in update.notes),
    ]
    return [kinds, updates, *counts]


def mismatch_lines(reports: Sequence[RoundReport]) -> list[str]:
    """How far the sampler's log-probabilities were from the learner's: one line, none without updates."""
    found = [(report.round, update.sampler_mismatch) for report in reports for update in report.updates]
    found = [(round, figures) for round, figures in found if "mean_abs_logprob" in figures]
    if not found:
        return []
    mean = sum(figures["mean_abs_logprob"] for _, figures in found) / len(found)
    worst, figures = max(found, key=lambda item: item[1]["mean_abs_logprob"])
    over = max(figures.get("share_over_1_percent", 0.0) for _, figures in found)
    bounded = max(figures.get("share_bounded", 0.0) for _, figures in found)
    largest = f" (largest {figures['mean_abs_logprob']:.1e}, round {worst})" if len(found) > 1 else ""
    return [
        f"Sampler against learner: {mean:.1e} nats per token{largest}; at most {percent(over)} of an update's tokens "
        f"differ by over 1%, {percent(bounded)} had their weight bounded"
    ]


def counts_line(label: str, counts: Mapping[str, int]) -> str:
    """Counts in one line, or that there are none."""
    return f"{label}: " + (", ".join(f"{name} {n}" for name, n in counts.items()) or "none")


def hints(reader: RunReader) -> list[str]:
    """What to do next; what this installation cannot do is not mentioned."""
    path = reader.path
    command = own_command()
    found = [f"Run folder: {path}", f"Look closer:  {command} show {path} --round K"]
    if _has("jupyterlab"):
        found.append(f'In JupyterLab: {command} lab, and there: import workbench; workbench.open("{path}")')
    if _has("gradio"):
        found.append(f"In a browser: {command} app --runs {path.parent}")
    return found


def own_command() -> str:
    """How this program is called from the present folder: `workbench` where that is found, else with its path."""
    beside = Path(sys.executable).with_name("workbench")
    on_path = shutil.which("workbench")
    if on_path is not None and Path(on_path).resolve() == beside.resolve():
        return "workbench"
    if not beside.is_file():
        return f"{sys.executable} -m workbench"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


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


def evaluation_seconds(reader: RunReader) -> float:
    """Seconds spent on held-out evaluations, from the run's events."""
    finished = [event for event in reader.events() if event["event"] == "evaluation_finished"]
    return float(sum(event.get("seconds", 0.0) for event in finished))


def _of_kind(line: KindStats | None) -> Figure | None:
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


def _ends(numbers: Sequence[int]) -> tuple[int, int]:
    return numbers[0], numbers[-1]


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
