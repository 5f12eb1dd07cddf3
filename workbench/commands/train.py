"""`workbench run`, `resume`, `fork` and `back`: everything that writes to a run folder."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from spark_kernel.config import RunConfig, load_config, merge_settings, preset_names
from spark_kernel.errors import InputError, RunFolderError
from workbench.cli import INTERRUPTED, OK
from workbench.commands import quiet_transformers, require_run
from workbench.reporting.console import make_console
from workbench.reporting.sinks import require_sinks, sink_names
from workbench.settings.flags import SETTINGS, Settings, parse_flags, refuse_unknown_flags, split_mapping_flags

if TYPE_CHECKING:
    from spark_kernel.training.events import Event
    from spark_kernel.training.trainer import Trainer
    from workbench.reporting.waiting import Waiting

CHECKING = "checking problems"

REPORT_TO = Annotated[
    str,
    tyro.conf.arg(metavar="NAME,...", help="Send numbers to trackio, wandb or tensorboard; several with commas."),
]
ON_BAD_PROBLEM = Annotated[Literal["stop", "skip"] | None, tyro.conf.arg(help="The same as --problems.on_bad_problem.")]
OUT = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help="New run folder; by default runs/NAME-TIME.")]


@dataclass(frozen=True)
class RunArguments:
    """Start a run from a preset or a configuration file and train it to its end."""

    preset: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="PRESET|FILE", help='Preset, presets joined with "+", or a .yaml file.'),
    ]
    settings: SETTINGS
    out: OUT = None
    report_to: REPORT_TO = ""
    on_bad_problem: ON_BAD_PROBLEM = None


def run(arguments: Sequence[str]) -> int:
    """Start a run and train it to its end."""
    rest, mapped = split_mapping_flags(arguments)
    refuse_unknown_flags(rest, ["out", "report_to", "on_bad_problem"])
    default = RunArguments(tyro.MISSING, Settings(_defaults(rest)))
    args = parse_flags(default, "workbench run", rest, _run_description())
    short = {"problems": {"on_bad_problem": args.on_bad_problem}} if args.on_bad_problem else {}
    given = merge_settings(merge_settings(args.settings.given, mapped), short)
    config = load_config({"base": args.preset, **given})
    names = sink_names(args.report_to)
    require_sinks(names)
    out = _unused(args.out or _new_folder(args.preset))
    from spark_kernel.training.lifecycle import start_run

    quiet_transformers()
    from workbench.reporting.waiting import Waiting

    with Waiting(make_console()) as waiting:
        trainer = start_run(config, out, on_problems=partial(waiting, CHECKING))
    return _train(trainer, None, names)


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with a run that was stopped or killed. Nothing that is on disk is sampled again."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="The run's folder.")]
    rounds: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="Train N more rounds, instead of up to the configured number.")
    ] = None
    report_to: REPORT_TO = ""


def resume(arguments: Sequence[str]) -> int:
    """Go on with a run."""
    args = tyro.cli(ResumeArguments, prog="workbench resume", args=arguments, use_underscores=True)
    if args.rounds is not None and args.rounds < 1:
        raise InputError(f"--rounds {args.rounds} is refused: at least 1.")
    run = require_run(args.run)
    names = sink_names(args.report_to)
    require_sinks(names)
    from spark_kernel.training.lifecycle import resume_run

    quiet_transformers()
    from workbench.reporting.waiting import Waiting

    with Waiting(make_console()) as waiting:
        trainer = resume_run(run, listeners=[_repeated(waiting)], on_problems=partial(waiting, CHECKING))
    trainer.listeners.clear()
    return _train(trainer, args.rounds, names)


@dataclass(frozen=True)
class ForkArguments:
    """Start a run from a round of another one, with some settings changed.

    `rounds` counts from the first round of the original run. Model and seed cannot change. The help shows the defaults
    of the schema; a setting that is not given is the original run's.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="The run to fork; only read.")]
    settings: SETTINGS
    round: Annotated[int | None, tyro.conf.arg(metavar="K", help="Fork after round K; by default after the last.")] = (
        None
    )
    out: OUT = None
    report_to: REPORT_TO = ""


def fork(arguments: Sequence[str]) -> int:
    """Start a run from a round of another one and train it to its end."""
    rest, mapped = split_mapping_flags(arguments)
    refuse_unknown_flags(rest, ["round", "out", "report_to"])
    args = parse_flags(ForkArguments(tyro.MISSING, Settings(RunConfig())), "workbench fork", rest)
    source = require_run(args.source)
    names = sink_names(args.report_to)
    require_sinks(names)
    overrides = merge_settings(args.settings.given, mapped)
    out = _unused(args.out or _new_folder(f"{source.name}-fork"))
    from spark_kernel.training.lifecycle import fork_run

    quiet_transformers()
    from workbench.reporting.waiting import Waiting

    with Waiting(make_console()) as waiting:
        shown, checked = [_repeated(waiting)], partial(waiting, CHECKING)
        trainer = fork_run(source, args.round, out, overrides, listeners=shown, on_problems=checked)
    trainer.listeners.clear()
    return _train(trainer, None, names)


@dataclass(frozen=True)
class BackArguments:
    """Put a run back to how it was after a round. Later rounds move to its folder `discarded/`; --undo undoes that."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="The run's folder.")]
    round: Annotated[int | None, tyro.conf.arg(metavar="K", help="The round to go back to; 0 is before the first.")] = (
        None
    )
    undo: Annotated[
        bool, tyro.conf.arg(help="Bring back what the last going back took away; rounds made since then move aside.")
    ] = False


def back(arguments: Sequence[str]) -> int:
    """Put a run back to an earlier round."""
    args = tyro.cli(BackArguments, prog="workbench back", args=arguments)
    if (args.round is None) != args.undo:
        raise InputError(
            "Say --round K to go back to a round, or --undo to bring back what that took away; one of them."
        )
    run = require_run(args.run)
    from spark_kernel.training.lifecycle import go_back, undo_back

    quiet_transformers()
    from workbench.reporting.waiting import Waiting

    with Waiting(make_console()) as waiting:
        shown, checked = [_repeated(waiting)], partial(waiting, CHECKING)
        if args.round is None:
            trainer = undo_back(run, listeners=shown, on_problems=checked)
        else:
            trainer = go_back(run, args.round, listeners=shown, on_problems=checked)
    with trainer:
        completed = trainer.completed
    print(f"{run} stands after round {completed}. Go on with: workbench resume {run}")
    return OK


def _repeated(waiting: Waiting) -> Callable[[Event], None]:
    """A listener that shows how many recorded rounds have been repeated."""

    def listen(event: Event) -> None:
        if event.name == "progress" and event.phase == "replay":
            waiting("repeating recorded updates", event.done, event.total)

    return listen


def _train(trainer: Trainer, rounds: int | None, names: tuple[str, ...]) -> int:
    """Train with terminal, trackers and signal handling; the exit code."""
    # Here, not above: help and bad flags should not wait for pyarrow.
    from spark_kernel.runs.reader import RunReader
    from spark_kernel.training.interrupt import stops_on_signals
    from workbench.reporting.run_report import print_report
    from workbench.reporting.sinks import open_sinks
    from workbench.reporting.terminal import Terminal

    run, config = trainer.writer.path, trainer.config
    terminal = Terminal()
    with trainer, open_sinks(names, run, config.model_dump(mode="json"), trainer.completed) as sinks, terminal:
        trainer.listeners += [terminal, *sinks]
        per_round = f"{config.problems.per_round} problems x {config.rollout.samples} samples a round"
        terminal.console.print(f"{run}: {config.model.path}, {config.problems.source}, {per_round}", soft_wrap=True)
        if trainer.parts.preflight is not None:
            terminal.console.print(trainer.parts.preflight.line, soft_wrap=True, markup=False)
        if trainer.parts.thread_choice is not None:
            terminal.console.print(trainer.parts.thread_choice.line, soft_wrap=True, markup=False)
        with stops_on_signals(trainer.stop.ask, (signal.SIGINT, signal.SIGTERM)):
            trainer.train(rounds)
        stopped = trainer.stopped
    if stopped:
        print(f"Stopped after round {trainer.completed}, nothing lost. Go on with: workbench resume {run}")
        return INTERRUPTED
    print_report(RunReader(run), terminal.console)
    return OK


def _defaults(arguments: Sequence[str]) -> RunConfig:
    """What the help shows as defaults: the preset's, where one is named first."""
    return load_config(arguments[0]) if arguments and not arguments[0].startswith("-") else RunConfig()


def _run_description() -> str:
    folder = resources.files("spark_kernel.config") / "presets"
    lines = []
    for name in preset_names():
        first = (folder / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        lines.append(f"  {name}: {first.removeprefix('#').strip()}" if first.startswith("#") else f"  {name}")
    return (
        "Start a run from a preset or a configuration file and train it to its end.\n\n"
        "Presets:\n" + "\n".join(lines) + "\n\n"
        "`workbench run PRESET --help` shows the preset's own values as defaults. Entries of a mapping have flags of "
        "their own: --problems.options.path train.jsonl"
    )


def _new_folder(name: str) -> Path:
    """runs/NAME-TIME, for a preset, presets joined with "+", or a file."""
    stem = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    return Path("runs") / f"{stem.replace('+', '-')}-{datetime.now():%Y%m%d-%H%M%S}"


def _unused(out: Path) -> Path:
    """The path of a run to be.

    Raises:
        InputError: there is a run already, or none can be made there.
    """
    if (out / "run.json").exists():
        raise InputError(f"{out} holds a run already: go on with `workbench resume {out}`, or choose another --out.")
    from spark_kernel.runs.new_folder import check_new_folder

    try:
        check_new_folder(out)
    except RunFolderError as error:
        raise InputError(str(error)) from None
    return out
