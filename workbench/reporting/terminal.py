"""A run on the terminal: a progress bar for the phase under way, one line per round and per evaluation.

Where standard output is not a terminal there is no bar, but a line of progress where 15 seconds would pass in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from spark_kernel.records import Kind, RoundReport
from spark_kernel.runs.codec import from_json
from spark_kernel.training.events import Event
from workbench.reporting.console import make_console
from workbench.reporting.heartbeat import Heartbeat
from workbench.reporting.metrics import judge_accuracy, kind_accuracy


class Terminal:
    """A listener that writes to a console. Use it as a context manager: the bar must be taken down at the end."""

    def __init__(self, console: Console | None = None, seconds: float | None = None) -> None:
        self.console = console or make_console()
        self._heartbeat = Heartbeat(self.console, seconds)
        self._last = 0
        self._bar: Progress | None = None
        self._task: Any = None
        self._name = ""

    def __enter__(self) -> Terminal:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("loading", total=None)
            self._bar.start()
        self._heartbeat.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._heartbeat.__exit__()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.name == "run_started":
            self._last = int(event.data["rounds"])
        elif event.name == "phase_started":
            self._show_phase(event)
        elif event.name == "progress":
            self._show_progress(event)
        elif event.name == "round_finished":
            self._say(round_line(from_json(RoundReport, dict(event.data)), self._last))
        elif event.name == "remark":
            self._say(f"round {event.round}  {event.data['text']}")
        elif event.name == "evaluation_finished":
            self._say(evaluation_line(event.round, event.data["summary"], event.data.get("seconds")))

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)
        self._heartbeat.spoke()

    def _show_phase(self, event: Event) -> None:
        period = "" if event.phase in ("report", "evaluate") else f" ({event.period})"
        self._begin(f"round {event.round}/{self._last}  {(event.phase or '').replace('_', ' ')}{period}")

    def _show_progress(self, event: Event) -> None:
        phase = event.phase or ""
        if phase.startswith("evaluate"):
            self._begin(f"{event.data.get('of', f'after round {event.round}')}  {phase}")
        elif phase == "replay":
            self._begin("repeating recorded updates")
        elif phase == "problems":
            self._begin("checking problems")
        self._heartbeat.at(self._name, event.done, event.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=event.done, total=event.total or None)

    def _begin(self, name: str) -> None:
        """A new bar where the name is another: the old one's total cannot be taken back."""
        if name == self._name:
            return
        self._name = name
        self._heartbeat.at(name)
        if self._bar is not None:
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=None)


def round_line(report: RoundReport, last: int) -> str:
    """A finished round in one line: on-policy shares of correct outputs, loss and seconds."""
    number = f"{report.round}/{last}" if last else str(report.round)
    parts = [f"round {number:>7}", f"accuracy {_percent(kind_accuracy(report, Kind.SOLVE))}"]
    judge = judge_accuracy(report)
    if judge is not None:
        kinds = [(kind, kind_accuracy(report, kind)) for kind in (Kind.POINTWISE, Kind.PAIRWISE)]
        by_kind = ", ".join(f"{kind} {_percent(value).strip()}" for kind, value in kinds if value is not None)
        parts.append(f"judge {_percent(judge)} ({by_kind})")
    reflection = kind_accuracy(report, Kind.REFLECTION)
    if reflection is not None:
        parts.append(f"reflection {_percent(reflection)}")
    losses = " ".join(f"{update.loss:+.4f}" for update in report.updates)
    if losses:
        parts.append(f"loss {losses}")
    parts.append(f"{sum(report.seconds_by_phase.values()):.1f} s")
    return "  ".join(parts)


def evaluation_line(round: int, summary: Mapping[str, Any], seconds: float | None) -> str:
    """A held-out evaluation in one line."""
    lines = summary.get("lines", {})
    loop = lines.get("loop", {})
    parts = [f"held-out after round {round}", f"{summary.get('problems')} problems"]
    for name, value in (
        ("greedy", _value(lines, "greedy", "accuracy")),
        ("sampled", _value(lines, "solve", "accuracy")),
        ("pointwise judge (balanced)", lines.get("own/pointwise/answer", {}).get("balanced_accuracy")),
        ("pairwise judge", lines.get("own/pairwise/answer", {}).get("accuracy")),
        ("reflection from wrong", _value(lines, "reflection", "from_wrong")),
        ("with test-time loop", _value({"loop": loop}, "loop", "after")),
    ):
        if value is not None:
            parts.append(f"{name} {_percent(value).strip()}")
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return "  ".join(parts)


def _value(lines: Mapping[str, Any], line: str, figure: str) -> float | None:
    estimate = lines.get(line, {}).get(figure)
    return None if estimate is None else estimate["value"]


def _percent(value: float | None) -> str:
    return "   -  " if value is None else f"{100 * value:5.1f}%"
