"""The report of a run on the terminal: first and last beside each other with intervals, and where the time went.

What is printed while a run trains is in `terminal`.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from spark_kernel.records import RoundReport
from spark_kernel.runs.reader import RunReader
from workbench.reporting.console import plain_table
from workbench.reporting.figure_rows import (
    evaluation_name,
    first_and_last,
    held_out_rows,
    loop_notes,
    on_policy_rows,
    one_sided_notes,
    percent,
    share_correct,
    show_figure,
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
        cells += [show_figure(share_correct(line)), percent(line.unparseable), percent(line.truncated), length, mixture]
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


def evaluation_seconds(reader: RunReader) -> float:
    """Seconds spent on held-out evaluations, from the run's events."""
    finished = [event for event in reader.events() if event["event"] == "evaluation_finished"]
    return float(sum(event.get("seconds", 0.0) for event in finished))


def _ends(numbers: Sequence[int]) -> tuple[int, int]:
    return numbers[0], numbers[-1]


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
