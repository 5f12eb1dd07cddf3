"""`workbench eval`: the held-out evaluation of a run's checkpoint, or of any model, outside of training."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from spark_kernel.config import field_names, load_config, merge_settings
from spark_kernel.errors import InputError, ModelError, Stopped
from workbench.cli import INTERRUPTED, OK
from workbench.commands import quiet_transformers
from workbench.settings.flags import SETTINGS, Settings, parse_flags, refuse_unknown_flags, split_mapping_flags

if TYPE_CHECKING:
    from spark_kernel.evaluate.standalone import StandaloneEvaluation, Subject

PRESET = "quickstart"
SECTIONS = ("seed", "threads", "problems", "rollout", "verify", "loop", "evaluation")
WITHOUT = (
    "problems.per_round",
    "rollout.samples",
    "rollout.temperature",
    "rollout.top_p",
    "rollout.top_k",
    "evaluation.every",
)
"""Settings of these sections that only training reads."""
OF_MODEL = (
    "model.revision",
    "model.dtype",
    "model.device",
    "model.trust_remote_code",
    "model.chat_template_kwargs",
    "model.thinking_tags",
)


@dataclass(frozen=True)
class EvalArguments:
    """Evaluate a run's checkpoint, or any model, on held-out problems: solving, judging, reflecting and the test-time
    loop, as a run evaluates itself.

    A run is only read, also while it is written, and evaluated on its own problems with its own settings. A model is
    asked what a preset or configuration file describes; give a run's config.yaml to put a model beside that run. The
    help shows the quickstart's values as defaults; a setting that is not given is the run's, or the preset's.
    """

    subject: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(
            metavar="RUN|MODEL", help="A run's folder; or a built-in or downloaded name, model folder, hub id."
        ),
    ]
    settings: SETTINGS
    round: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="K", help="With a run: its checkpoint after round K, 0 its initial model; by default the newest."
        ),
    ] = None
    preset: Annotated[
        str | None,
        tyro.conf.arg(metavar="PRESET|FILE", help=f"With a model: what describes the problems; by default {PRESET}."),
    ] = None
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help="New folder for what is found, in the formats of a run folder."),
    ] = None


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate a checkpoint or a model."""
    rest, mapped = split_mapping_flags(arguments)
    settings = [
        name for name in field_names() if name in OF_MODEL or (name.split(".")[0] in SECTIONS and name not in WITHOUT)
    ]
    refuse_unknown_flags(rest, ["round", "preset", "out"], settings)
    if strange := sorted(set(mapped) - {*SECTIONS, "model"}):
        raise InputError(f"Settings of {strange[0]} have no part in an evaluation: leave them out.")
    default = EvalArguments(tyro.MISSING, Settings(load_config(PRESET), settings))
    args = parse_flags(default, "workbench eval", rest)
    run = Path(args.subject) if (Path(args.subject) / "run.json").is_file() else None
    _check(args, run)
    # After the cheap checks: these bring torch and transformers.
    from spark_kernel.runs.finished_folder import check_target

    if args.out is not None:
        check_target(args.out, run)
    return _evaluate(args, run, merge_settings(args.settings.given, mapped))


def _check(args: EvalArguments, run: Path | None) -> None:
    """What can be refused at a glance."""
    if run is not None and args.preset is not None:
        raise InputError(f"--preset goes with a model; the run {run} is evaluated on its own problems: leave it out.")
    if run is None:
        beside = Path(args.subject).absolute()
        # With a slash it may look like a hub id; where runs lie beside it, it is no such thing.
        if "/" in args.subject and not beside.exists() and any(beside.parent.glob("*/run.json")):
            raise InputError(f"There is no run at {args.subject}: `workbench list {beside.parent}` shows those there.")
        if args.round is not None:
            raise InputError(f"--round goes with a run's folder; {args.subject} is none.")


def _evaluate(args: EvalArguments, run: Path | None, overrides: Mapping[str, Any]) -> int:
    from spark_kernel.evaluate.standalone import (
        checkpoint_subject,
        evaluate_subject,
        model_subject,
        write_standalone,
    )
    from spark_kernel.training.events import Event, StopRequest
    from spark_kernel.training.interrupt import stops_on_signals
    from workbench.reporting.terminal import Terminal

    quiet_transformers()
    if run is not None:
        subject = checkpoint_subject(run, args.round, overrides)
        name = f"after round {subject.round}"
    else:
        try:
            subject = model_subject(args.subject, args.preset or PRESET, overrides)
        except ModelError as error:
            raise InputError(f"There is no run at {args.subject}. {error}") from None
        name = _short(args.subject)
    stop, terminal = StopRequest(), Terminal()
    with tempfile.TemporaryDirectory(prefix="spark-eval-") as folder, terminal:
        terminal.console.print(_what(args, run, subject), soft_wrap=True, markup=False)

        def progress(line: str, finished: int, total: int) -> None:
            about = {"of": name}
            phase = line if line == "problems" else f"evaluate {line}"
            terminal(Event("progress", subject.round, None, phase, finished, total, about))

        try:
            with stops_on_signals(stop.ask, (signal.SIGINT, signal.SIGTERM), say=_say):
                found = evaluate_subject(subject, Path(folder), on_progress=progress, check_stop=stop.check)
        except Stopped:
            print("Stopped: nothing was written.")
            return INTERRUPTED
        if args.out is not None:
            write_standalone(found, args.out, Path(folder))
    _show(found, None if run is not None else name, args.out, terminal)
    return OK


def _show(found: StandaloneEvaluation, model: str | None, out: Path | None, terminal: Any) -> None:
    from workbench.reporting.run_report import held_out_table, own_command

    console = terminal.console
    console.print(held_out_table({found.records.round: found.evaluation.summary}, model))
    for note in found.notes:
        console.print(note, soft_wrap=True, markup=False)
    console.print(f"{found.outputs} outputs in {found.seconds:.1f} s, loading not counted.")
    if out is not None:
        command = own_command()
        console.print(
            f"{out}: look again with `{command} show {out}`, beside another with `{command} compare {out} OTHER`.",
            soft_wrap=True,
            markup=False,
        )


def _what(args: EvalArguments, run: Path | None, subject: Subject) -> str:
    asked = (
        f"{subject.config.evaluation.problems} held-out problems at most, {subject.config.evaluation.samples} samples"
    )
    if run is None:
        return f"{args.subject}: {subject.config.problems.source} as in {args.preset or PRESET}, {asked}"
    if subject.checkpoint is None:
        return f"Initial model of {run}, {subject.config.model.path}: {asked}"
    return f"Checkpoint {subject.checkpoint.name} of {run}: {asked}"


def _short(model: str) -> str:
    """A model's name as the head of a column."""
    return Path(model).resolve().name if Path(model).exists() else model


def _say(_sentence: str) -> None:
    print("Stopping before the next token; interrupt again to stop at once.", file=sys.stderr)
