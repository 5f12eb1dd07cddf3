"""`workbench experiment`: arms x seeds side by side, compared at equal rounds, rollouts, tokens and seconds."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from spark_kernel.config import merge_settings
from spark_kernel.errors import InputError
from workbench.cli import FAILED, INTERRUPTED, OK
from workbench.reporting.console import make_console, plain_table
from workbench.settings.flags import read_value


@dataclass(frozen=True)
class ExperimentArguments:
    """Run an experiment: every arm with every seed as a run of its own, side by side as far as cores and memory allow,
    then a page with the differences to the reference arm. Started again with the same --out it goes on with whatever is
    not finished. `workbench experiment --list` names those that ship.
    """

    source: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME|FILE", help="One that ships, or a .yaml file.")
    ] = ""
    list: Annotated[bool, tyro.conf.arg(help="List the experiments that ship, and end.")] = False
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help="Its folder; by default runs/experiment-NAME.")] = (
        None
    )
    seeds: Annotated[tuple[int, ...] | None, tyro.conf.arg(help="In place of the file's seeds.")] = None
    arms: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(help="Only these arms; the reference always belongs to them.")
    ] = None
    set: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="SECTION.FIELD=VALUE", help="Settings of every arm, over those of the file."),
    ] = ()
    jobs: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Runs side by side; by default as many as there are cores.")
    ] = None
    report: Annotated[bool, tyro.conf.arg(help="Write the page from what is finished, and run nothing.")] = False


def experiment(arguments: Sequence[str]) -> int:
    """Run an experiment and write its page."""
    args = tyro.cli(ExperimentArguments, prog="workbench experiment", args=arguments)
    from workbench.experiment.plan import load_experiment, shipped_experiments

    console = make_console()
    if args.list:
        table = plain_table()
        table.add_column("experiment")
        table.add_column("what it asks")
        for name, title in shipped_experiments().items():
            table.add_row(name, title)
        console.print(table)
        return OK
    if not args.source:
        raise InputError("Name an experiment or a .yaml file: `workbench experiment --list` shows those that ship.")
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs} is refused: at least 1.")
    plan = load_experiment(args.source, seeds=args.seeds, arms=args.arms, settings=_settings(args.set))
    folder = args.out or Path("runs") / f"experiment-{plan.name}"
    command = "workbench experiment " + shlex.join(arguments)
    from spark_kernel.runs.lock import WriterLock
    from spark_kernel.training.interrupt import stops_on_signals
    from workbench.experiment.findings import find
    from workbench.experiment.report import PAGE, write_report
    from workbench.experiment.running import CellResult, Laboratory, Outcome

    folder.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(folder)
    try:
        laboratory = Laboratory(plan, folder, args.jobs, lambda line: console.print(line, soft_wrap=True, markup=False))
        console.print(
            f"{folder}: {plan.file.title}; {len(plan.file.arms)} arms, {len(plan.file.seeds)} seeds, "
            f"{len(plan.cells)} runs",
            soft_wrap=True,
            markup=False,
        )
        if args.report:
            laboratory.check()
            results: tuple[CellResult, ...] = laboratory.standing()
        else:
            with stops_on_signals(laboratory.stop, (signal.SIGINT, signal.SIGTERM), say=_say):
                results = laboratory.run()
        finished = {one.cell.name: laboratory.run_of(one.cell) for one in results if one.outcome is Outcome.FINISHED}
        findings = find(plan, finished)
        write_report(findings, results, folder, command)
    finally:
        lock.release()
    for row in findings.rows:
        if row.measure == plan.file.primary:
            line = f"{row.arm} against {plan.file.reference} at equal {row.match}: {row.sentence}"
            console.print(line, soft_wrap=True, markup=False)
    failed = [one for one in results if one.outcome is Outcome.FAILED]
    for one in failed:
        line = f"{one.cell.name} failed ({one.detail}): {laboratory.log_of(one.cell)}"
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"{folder / PAGE}: {len(finished)} of {len(plan.cells)} runs finished.", soft_wrap=True)
    if failed:
        return FAILED
    if args.report or len(finished) == len(plan.cells):
        return OK
    console.print(f"Stopped; go on with: {command}", soft_wrap=True, markup=False)
    return INTERRUPTED


def _settings(items: Sequence[str]) -> dict[str, Any]:
    """Settings as SECTION.FIELD=VALUE, the value as YAML reads it.

    Raises:
        InputError: without "=", or no YAML.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise InputError(f"--set {item} is refused: SECTION.FIELD=VALUE, as in rounds=40 or verify.flip_share=0.1.")
        value: Any = read_value(f"--set {name}", text)
        for part in reversed(name.split(".")):
            value = {part: value}
        found = merge_settings(found, value)
    return found


def _say(_sentence: str) -> None:
    print("Stopping every run at its next safe point; interrupt again to stop at once.", flush=True)
