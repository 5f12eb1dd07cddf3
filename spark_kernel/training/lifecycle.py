"""The life of a run: start, resume, go back, fork. Each gives a `Trainer` that stands where it should."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spark_kernel.config import RunConfig, merge_settings, validate_config
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.evaluate.frozen import frozen_pool
from spark_kernel.evaluate.leaks import check_known, trained_problems, write_trained
from spark_kernel.learner.checkpoint import STATE_FOLDER
from spark_kernel.models.precision import check_precision
from spark_kernel.problems.checked_stream import make_stream
from spark_kernel.problems.stream import Progress
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.runs.bundles import ParentRun
from spark_kernel.runs.checkpoints import CheckpointInfo, list_checkpoints, verify_checkpoint
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.discard import check_restorable
from spark_kernel.runs.environment import describe_environment
from spark_kernel.runs.layout import (
    IMAGES,
    INHERITED,
    ROUNDS,
    evaluation_folder,
    first_round,
    list_evaluations,
    list_numbers,
    numbered,
    read_run_info,
)
from spark_kernel.runs.new_folder import check_new_folder
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.assembly import Parts, assemble
from spark_kernel.training.events import Listener
from spark_kernel.training.forking import take_over
from spark_kernel.training.state import RoundState, TrainerState
from spark_kernel.training.trainer import TRAINER_STATE, Trainer


def start_run(
    config: RunConfig,
    path: str | Path,
    *,
    listeners: Sequence[Listener] = (),
    on_problems: Progress = lambda _done, _total: None,
) -> Trainer:
    """A new run in a new or empty folder, before its first round.

    The number of CPU threads, measured where it is left open, and batch sizes that are planned from memory are written
    into the run's configuration: results depend on them. `on_problems` is told while the problems of a file are read
    and checked.

    Raises:
        InputError: anything in configuration, problems or model that cannot work.
        RunFolderError: the folder is in use or cannot be written.
    """
    run = Path(path)
    check_new_folder(run)
    check_precision(config.model, config.learner.learning_rate)
    parts = assemble(config, images_root=run.absolute(), on_problems=on_problems)
    try:
        writer = RunWriter.create(run, parts.config.to_yaml(), describe_environment())
    except BaseException:
        parts.close()
        raise
    return Trainer(parts.config, writer, parts, _beginning(0), listeners)


def resume_run(
    path: str | Path, *, listeners: Sequence[Listener] = (), on_problems: Progress = lambda _done, _total: None
) -> Trainer:
    """An existing run, brought to where it stood: newest sound checkpoint, then the recorded updates again.

    Nothing that is on disk is sampled again. `on_problems` is told while the problems of a file are read and checked.

    Raises:
        RunFolderError: missing, damaged, newer than this program.
        RunLockedError: another process writes it.
    """
    writer = RunWriter.open(path)
    try:
        return _brought_up(writer, writer.last_round, listeners, on_problems)
    except BaseException:
        writer.close("failed")
        raise


def go_back(
    path: str | Path,
    round: int,
    *,
    listeners: Sequence[Listener] = (),
    on_problems: Progress = lambda _done, _total: None,
) -> Trainer:
    """A run as it was after a round; later rounds move to its folder `discarded/`.

    Raises:
        InputError: a round that the run does not have.
        RunFolderError, RunLockedError: as `resume_run`.
    """
    writer = RunWriter.open(path)
    try:
        writer.drop_rounds_after(round)
        return _brought_up(writer, round, listeners, on_problems)
    except BaseException:
        writer.close("failed")
        raise


def undo_back(
    path: str | Path, *, listeners: Sequence[Listener] = (), on_problems: Progress = lambda _done, _total: None
) -> Trainer:
    """A run as it was before the last `go_back`; rounds made since then move to its folder `discarded/`.

    Asked for twice it stands as before: nothing is lost by either.

    Raises:
        InputError: the run was never put back.
        RunFolderError, RunLockedError: as `resume_run`.
    """
    writer = RunWriter.open(path)
    try:
        writer.restore_rounds()
        return _brought_up(writer, writer.last_round, listeners, on_problems)
    except BaseException:
        writer.close("failed")
        raise


def check_undo(path: str | Path) -> tuple[int, tuple[int, ...]]:
    """The round that was gone back to and the rounds that `undo_back` would bring back; nothing is written.

    Raises:
        InputError: the run was never put back.
        RunFolderError: the folder is no run, or damaged.
    """
    found = check_restorable(Path(path), _rounds_of(Path(path))[1])
    return found.after, found.rounds


def check_back(path: str | Path, round: int) -> None:
    """Whether a run can go back to a round; nothing is written.

    Raises:
        InputError: a round that the run does not have.
        RunFolderError: the folder is no run.
    """
    first, last = _rounds_of(Path(path))
    if not first <= round <= last:
        raise InputError(f"{path} has rounds {first} to {last}: it cannot go back to {round}.")


def check_fork(
    source: str | Path, round: int | None, path: str | Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Path, int, RunConfig, RunConfig]:
    """Whether a fork can be made, before anything is loaded or written; arguments and errors as `fork_run`.

    Returns the parent's folder, the round, the parent's configuration and the fork's.
    """
    parent = Path(source).absolute()
    first, last = _rounds_of(parent)
    at = last if round is None else round
    if not first <= at <= last:
        raise InputError(f"{parent} has rounds {first} to {last}: it cannot be forked at {at}.")
    old = read_config(parent)
    config = validate_config(merge_settings(old.model_dump(), overrides or {}))
    if config.model != old.model or config.seed != old.seed:
        raise InputError("A fork keeps model and seed of its parent: start a new run to change them.")
    check_precision(config.model, config.learner.learning_rate)
    check_new_folder(Path(path).absolute())
    return parent, at, old, config


def _rounds_of(run: Path) -> tuple[int, int]:
    """The rounds that a run can go back to or be forked at: the one before its first, to its last."""
    first = first_round(read_run_info(run)) - 1
    return first, max(list_numbers(run / ROUNDS), default=first)


def fork_run(
    source: str | Path,
    round: int | None,
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    listeners: Sequence[Listener] = (),
    on_problems: Progress = lambda _done, _total: None,
) -> Trainer:
    """A new run that goes on from a round of another (None: its last), with some settings changed.

    The fork is self-contained: weights, optimizer, queue and what the queue refers to are copied, and the names of the
    problems that were trained on. The KL reference stays the initial policy of the first run. Rounds after the newest
    checkpoint are repeated with the parent's own settings.

    Args:
        source: the run to fork from; it is only read.
        round: 0 to its last round.
        path: a new or empty folder.
        overrides: nested settings that differ; model.* and seed cannot.
        on_problems: told while the problems of a file are read and checked.

    Raises:
        InputError: a round the source does not have, a setting that cannot change, or problems that would be held out
            and were trained on.
        RunFolderError: source or target folder cannot be used.
    """
    parent, at, old, config = check_fork(source, round, path, overrides)
    info, run = read_run_info(parent), Path(path).absolute()
    history = (parent, parent / INHERITED)
    checkpoint, _ = _newest_checkpoint(parent, at, in_flight=False)
    if checkpoint is None and first_round(info) > 1:
        raise RunFolderError(f"{parent} is a fork without a sound checkpoint: it cannot be forked again.")
    trained = trained_problems(parent, at)
    check_known(trained, other_problems=config.problems != old.problems and config.evaluation.every > 0)
    parts = assemble(config, images_root=run, trained=trained, on_problems=on_problems)
    try:
        settings = parts.config.to_yaml()
        writer = RunWriter.create(run, settings, describe_environment(), parent=ParentRun(info.name, at))
    except BaseException:
        parts.close()
        raise
    try:
        shutil.copytree(parent / IMAGES, run / IMAGES, dirs_exist_ok=True)
        state = _brought_to(at, checkpoint, parts, old, writer, history, listeners)
        take_over(state, parts.config, old, history)
        _copy_history(state, run, history, shares_pool=_shares_pool(parts, history))
        write_trained(trained, run)
        trainer = Trainer(parts.config, writer, parts, state, listeners)
        trainer.checkpoint()
        return trainer
    except BaseException:
        parts.close()
        writer.close("failed")
        raise


def _brought_up(writer: RunWriter, last: int, listeners: Sequence[Listener], on_problems: Progress) -> Trainer:
    config = read_config(writer.path)
    parts = assemble(config, images_root=writer.path, on_problems=on_problems)
    try:
        return _trainer_at(config, writer, parts, last, listeners)
    except BaseException:
        parts.close()
        raise


def _trainer_at(
    config: RunConfig, writer: RunWriter, parts: Parts, last: int, listeners: Sequence[Listener]
) -> Trainer:
    """The newest sound checkpoint up to round `last`, then the recorded updates again."""
    state = _beginning(first_round(writer.info) - 1)
    checkpoint, damaged = _newest_checkpoint(writer.path, last, in_flight=True)
    for sentence in damaged:
        writer.append_event({"event": "checkpoint_damaged", "detail": sentence})
    if checkpoint is not None:
        parts.learner.load(checkpoint.path)
        if not parts.learner.in_update:
            parts.engine.take(parts.learner.publish(parts.engine.wanted))
        state = _stored_state(checkpoint)
    elif state.completed:
        raise RunFolderError(f"{writer.path} is a fork whose checkpoints are gone or damaged: fork it anew.")
    trainer = Trainer(config, writer, parts, state, listeners)
    _replay(trainer, last)
    return trainer


def _brought_to(
    at: int,
    checkpoint: CheckpointInfo | None,
    parts: Parts,
    old: RunConfig,
    writer: RunWriter,
    history: Sequence[Path],
    listeners: Sequence[Listener],
) -> TrainerState:
    """A fork's parts as the parent stood after round `at`: its checkpoint, then its recorded updates again.

    These are repeated as they were: by the parent's problems, rules and rate, whatever the fork's are.
    """
    own = parts
    if parts.config != old and at > (checkpoint.round if checkpoint else 0):
        own = replace(parts, config=old, learner=parts.learner_of(old), stream=make_stream(old, parts.pool))
    state = _beginning(0)
    if checkpoint is not None:
        own.learner.load(checkpoint.path)
        parts.engine.take(own.learner.publish(parts.engine.wanted))
        state = _stored_state(checkpoint)
    earlier = Trainer(own.config, writer, own, state, listeners, history)
    _replay(earlier, at)
    if own is not parts:
        with tempfile.TemporaryDirectory(prefix=".repeated-", dir=writer.path) as folder:
            own.learner.save(Path(folder))
            parts.learner.load(Path(folder))
        parts.engine.take(parts.learner.publish(parts.engine.wanted))
    return earlier.state


def _replay(trainer: Trainer, last: int) -> None:
    """Repeat the recorded updates of finished rounds."""
    behind = last - trainer.completed
    for done in range(behind):
        trainer.replay_round(done + 1, behind)


def _newest_checkpoint(run: Path, at: int, *, in_flight: bool) -> tuple[CheckpointInfo | None, list[str]]:
    """The sound checkpoint that got furthest but not past the end of round `at`, and what is wrong with later ones.

    Args:
        in_flight: whether one that stands in the round after `at` serves too.
    """
    damaged = []
    for info in reversed(list_checkpoints(run)):
        if info.round <= at or (in_flight and info.in_progress and info.round == at + 1):
            try:
                verify_checkpoint(info.path)
            except RunFolderError as error:
                damaged.append(str(error))
                continue
            return info, damaged
    return None, damaged


def _stored_state(checkpoint: CheckpointInfo) -> TrainerState:
    text = (checkpoint.path / STATE_FOLDER / TRAINER_STATE).read_text(encoding="utf-8")
    return TrainerState.from_json(json.loads(text))


def _beginning(completed: int) -> TrainerState:
    return TrainerState(completed, 0, TaskQueue(), RoundState(round=completed + 1))


def _copy_history(state: TrainerState, run: Path, history: Sequence[Path], *, shares_pool: bool) -> None:
    """Copy what the fork still needs of its parent: rounds whose tasks wait, and the first evaluation."""
    inherited = run / INHERITED
    wanted = {task.round for task in state.queue.tasks}
    for number in sorted(wanted):
        for folder in history:
            if (folder / ROUNDS / numbered(number)).is_dir():
                shutil.copytree(folder / ROUNDS / numbered(number), inherited / ROUNDS / numbered(number))
                break
    if not shares_pool:
        return
    for folder in reversed(history):
        evaluated = list_evaluations(folder)
        if evaluated:
            shutil.copytree(evaluation_folder(folder, evaluated[0]), evaluation_folder(inherited, evaluated[0]))
            break


def _shares_pool(parts: Parts, history: Sequence[Path]) -> bool:
    """Whether the parent's frozen pool is about problems that the fork evaluates; else the fork makes its own."""
    config = parts.config
    if not config.evaluation.every:
        return True
    evaluated = parts.stream.held_out(config.evaluation.problems, seed=config.seed)
    return bool(frozen_pool((Path(), *history), 0).of(evaluated))
