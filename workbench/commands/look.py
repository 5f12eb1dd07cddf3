"""`workbench show`, `list` and `compare`: everything that only reads run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from spark_kernel.errors import InputError
from workbench.cli import OK
from workbench.commands import require_run
from workbench.reporting.console import make_console, plain_table

if TYPE_CHECKING:
    from spark_kernel.evaluate.compare import Comparison
    from spark_kernel.runs.reader import RunReader


@dataclass(frozen=True)
class ShowArguments:
    """A run's report: first and last round beside each other; with --round everything about one round.

    Evaluations are the run's own, on its held-out problems; with --suite those of another suite.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="The run's folder.")]
    round: Annotated[int | None, tyro.conf.arg(metavar="K", help="Show this round.")] = None
    suite: Annotated[str | None, tyro.conf.arg(metavar="NAME", help="Show the evaluations of this suite.")] = None


def show(arguments: Sequence[str]) -> int:
    """Show a run or a round of it."""
    args = tyro.cli(ShowArguments, prog="workbench show", args=arguments)
    from spark_kernel.runs.bundles import HELD_OUT
    from spark_kernel.runs.reader import RunReader
    from workbench.reporting.run_report import held_out_table, print_report, round_tables

    reader = RunReader(require_run(args.run))
    console = make_console()
    for line in _heading(reader):
        console.print(line, soft_wrap=True, markup=False)
    if args.suite is not None:
        console.print(held_out_table(_of_suite(reader, args.suite, args.round), title=f"Suite {args.suite}"))
        return OK
    if args.round is None:
        print_report(reader, console)
        for suite in reader.suites:
            if suite != HELD_OUT:
                rounds = ", ".join(map(str, reader.evaluated(suite)))
                console.print(f"Also evaluated: {suite}, after round {rounds} (--suite {suite})", soft_wrap=True)
        return OK
    if args.round not in reader.evaluations or args.round in reader.rounds:
        for part in round_tables(reader.report(args.round)):
            console.print(part, markup=False) if isinstance(part, str) else console.print(part)
    if args.round in reader.evaluations:
        console.print(held_out_table({args.round: reader.evaluation(args.round)}))
    return OK


def _of_suite(reader: RunReader, suite: str, round: int | None) -> dict[int, Mapping[str, Any]]:
    """The summaries of a suite's evaluations: of one round, or the first and the last."""
    rounds = reader.evaluated(suite) if round is None else [round]
    if not rounds:
        there = ", ".join(reader.suites) or "none"
        raise InputError(f"{reader.path} has no evaluation of suite {suite}; suites there: {there}.")
    return {at: reader.evaluation(at, suite) for at in dict.fromkeys((rounds[0], rounds[-1]))}


@dataclass(frozen=True)
class ListArguments:
    """The runs in a folder."""

    root: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ROOT", help="The folder.")] = Path("runs")


def list_runs(arguments: Sequence[str]) -> int:
    """List the runs in a folder."""
    args = tyro.cli(ListArguments, prog="workbench list", args=arguments)
    from spark_kernel.runs.status import list_runs as find_runs

    if not args.root.is_dir():
        raise InputError(f"There is no folder {args.root}: say where the runs are, `workbench list FOLDER`.")
    runs = find_runs(args.root)
    console = make_console()
    if not runs:
        console.print(f"No runs in {args.root}. Start one with: workbench run quickstart", soft_wrap=True)
        return OK
    table = plain_table()
    for name in ("run", "state", "rounds", "started (UTC)", "forked from"):
        table.add_column(name, no_wrap=True)
    for run in runs:
        parent = f"{run.parent.run} after round {run.parent.round}" if run.parent else ""
        table.add_row(run.name, str(run.state), str(run.rounds), run.created[:16].replace("T", " "), parent)
    console.print(table)
    for run in runs:
        if run.problem:
            console.print(f"{run.name}: {run.problem}", soft_wrap=True, markup=False)
    return OK


@dataclass(frozen=True)
class CompareArguments:
    """Two runs on the held-out problems they share, at matched rollouts and at matched optimizer steps.

    Rounds are no fair scale: a SPARK round costs about twice the rollouts and steps of a policy-only round.
    """

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="A run's folder.")]
    second: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="Another run's folder.")]


def compare(arguments: Sequence[str]) -> int:
    """Compare two runs."""
    args = tyro.cli(CompareArguments, prog="workbench compare", args=arguments)
    from spark_kernel.evaluate.compare import Budget, compare_runs
    from spark_kernel.runs.reader import RunReader
    from workbench.views.comparison import MEASURES, cost_notes, run_result, shared_measures, unique_names

    readers = [RunReader(require_run(path)) for path in (args.first, args.second)]
    names = unique_names(readers)
    first, second = (run_result(reader, name) for reader, name in zip(readers, names, strict=True))
    shared = shared_measures(first, second)
    measures = [measure for measure, _ in MEASURES if measure in shared]
    console = make_console()
    for line in cost_notes(readers, names):
        console.print(line, soft_wrap=True, markup=False)
    labels = dict(MEASURES)
    matched = ""
    for row in sorted(compare_runs(first, second, measures), key=lambda row: list(Budget).index(row.matched_by)):
        if matched != row.matched_by:
            matched = row.matched_by
            console.print(_matching(row), soft_wrap=True, markup=False)
        console.print(f"  {labels[row.measure]}: {row.conclusion}", soft_wrap=True, markup=False)
    return OK


def _heading(reader: RunReader) -> list[str]:
    import yaml

    status = reader.status()
    config = yaml.safe_load(reader.config_yaml)
    model, problems = config.get("model", {}), config.get("problems", {})
    rounds = len(reader.rounds)
    lines = [
        f"{reader.info.name}: {status.state}, {rounds} rounds of {config.get('rounds')}, started {reader.info.created}",
        f"model {model.get('path')}, problems {problems.get('source')}, seed {config.get('seed')}",
    ]
    if reader.info.parent:
        lines.append(f"forked from {reader.info.parent.run} after round {reader.info.parent.round}")
    if status.writer:
        lines.append(f"being written by process {status.writer.pid} on {status.writer.host}")
    names = ", ".join(info.name for info in reader.checkpoints)
    lines.append(f"checkpoints: {names or 'none'}")
    return lines


def _matching(row: Comparison) -> str:
    if row.untrained:
        return (
            f"Two evaluations without training to match by: {row.first_run} after round {row.first_round}, "
            f"{row.second_run} after round {row.second_round}"
        )
    return (
        f"At {row.budget} {row.matched_by.replace('_', ' ')}: {row.first_run} after round {row.first_round} "
        f"({row.first_rollouts} rollouts, {row.first_optimizer_steps} steps), {row.second_run} after round "
        f"{row.second_round} ({row.second_rollouts} rollouts, {row.second_optimizer_steps} steps)"
    )
