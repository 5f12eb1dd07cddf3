"""The life of a run: start, resume, go back, fork. Each gives a `Trainer` that stands where it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spark_kernel.config import RunConfig, merge_settings, validate_config
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.learner.checkpoint import STATE_FOLDER, load_learner
from spark_kernel.problems.stream import Progress
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.runs.bundles import ParentRun
from spark_kernel.runs.checkpoints import CheckpointInfo, list_checkpoints, verify_checkpoint
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.environment import describe_environment
from spark_kernel.runs.layout import (
    EVALUATIONS,
    IMAGES,
    INHERITED,
    ROUNDS,
    first_round,
    list_numbers,
    numbered,
    read_run_info,
)
from spark_kernel.runs.new_folder import check_new_folder
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.assembly import Parts, assemble
from spark_kernel.training.events import Listener
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

    The number of CPU threads, and batch sizes that are planned from memory, are written into the run's configuration:
    results depend on them. `on_problems` is told while the problems of a file are read and checked.

    Raises:
        InputError: anything in configuration, problems or model that cannot work.
        RunFolderError: the folder is in use or cannot be written.
    """
    run = Path(path)
    check_new_folder(run)
    config = config.model_copy(update={"threads": config.threads or torch.get_num_threads()})
    parts = assemble(config, images_root=run.absolute(), on_problems=on_problems)
    try:
        writer = RunWriter.create(run, parts.config.to_yaml(), describe_environment())
    except BaseException:
        parts.close()
        raise
    return Trainer(parts.config, writer, parts, _beginning(0), listeners)


def resume_run(path: str | Path, *, listeners: Sequence[Listener] = ()) -> Trainer:
    """An existing run, brought to where it stood: newest sound checkpoint, then the recorded updates again.

    Nothing that is on disk is sampled again.

    Raises:
        RunFolderError: missing, damaged, newer than this program.
        RunLockedError: another process writes it.
    """
    writer = RunWriter.open(path)
    try:
        return _brought_up(writer, writer.last_round, listeners)
    except BaseException:
        writer.close("failed")
        raise


def go_back(path: str | Path, round: int, *, listeners: Sequence[Listener] = ()) -> Trainer:
    """A run as it was after a round; later rounds move to its folder `discarded/`.

    Raises:
        InputError: a round that the run does not have.
        RunFolderError, RunLockedError: as `resume_run`.
    """
    writer = RunWriter.open(path)
    try:
        writer.drop_rounds_after(round)
        return _brought_up(writer, round, listeners)
    except BaseException:
        writer.close("failed")
        raise


def fork_run(
    source: str | Path,
    round: int | None,
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    listeners: Sequence[Listener] = (),
) -> Trainer:
    """A new run that goes on from a round of another (None: its last), with some settings changed.

    The fork is self-contained: weights, optimizer, queue and what the queue refers to are copied. The KL reference
    stays the initial policy of the first run.

    Args:
        source: the run to fork from; it is only read.
        round: 0 to its last round.
        path: a new or empty folder.
        overrides: nested settings that differ; model.* and seed cannot.

    Raises:
        InputError: a round the source does not have, or a setting that cannot change.
        RunFolderError: source or target folder cannot be used.
    """
    parent = Path(source).absolute()
    info = read_run_info(parent)
    last = max(list_numbers(parent / ROUNDS), default=first_round(info) - 1)
    at = last if round is None else round
    if not first_round(info) - 1 <= at <= last:
        raise InputError(f"{parent} has rounds {first_round(info) - 1} to {last}: it cannot be forked at {at}.")
    old = read_config(parent)
    config = validate_config(merge_settings(old.model_dump(), overrides or {}))
    if config.model != old.model or config.seed != old.seed:
        raise InputError("A fork keeps model and seed of its parent: start a new run to change them.")
    run = Path(path).absolute()
    check_new_folder(run)
    parts = assemble(config, images_root=run)
    try:
        settings = parts.config.to_yaml()
        writer = RunWriter.create(run, settings, describe_environment(), parent=ParentRun(info.name, at))
    except BaseException:
        parts.close()
        raise
    try:
        shutil.copytree(parent / IMAGES, run / IMAGES, dirs_exist_ok=True)
        state = _beginning(0)
        checkpoint, _ = _newest_checkpoint(parent, at, in_flight=False)
        if checkpoint is not None:
            load_learner(parts.learner, checkpoint.path)
            parts.engine.sync(parts.policy)
            state = _stored_state(checkpoint)
        elif first_round(info) > 1:
            raise RunFolderError(f"{parent} is a fork without a sound checkpoint: it cannot be forked again.")
        history = (parent, parent / INHERITED)
        trainer = Trainer(parts.config, writer, parts, state, listeners, history)
        _replay(trainer, at)
        _copy_history(trainer, history)
        trainer.checkpoint()
        return trainer
    except BaseException:
        parts.close()
        writer.close("failed")
        raise


def _brought_up(writer: RunWriter, last: int, listeners: Sequence[Listener]) -> Trainer:
    config = read_config(writer.path)
    parts = assemble(config, images_root=writer.path)
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
        load_learner(parts.learner, checkpoint.path)
        if parts.learner.progress is None or not parts.learner.progress.steps_done:
            parts.engine.sync(parts.policy)
        state = _stored_state(checkpoint)
    elif state.completed:
        raise RunFolderError(f"{writer.path} is a fork whose checkpoints are gone or damaged: fork it anew.")
    trainer = Trainer(config, writer, parts, state, listeners)
    _replay(trainer, last)
    return trainer


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


def _copy_history(trainer: Trainer, history: Sequence[Path]) -> None:
    """Copy what the fork still needs of its parent: rounds whose tasks wait, and the first evaluation."""
    inherited = trainer.writer.path / INHERITED
    wanted = {task.round for task in trainer.state.queue.tasks}
    for number in sorted(wanted):
        for folder in history:
            if (folder / ROUNDS / numbered(number)).is_dir():
                shutil.copytree(folder / ROUNDS / numbered(number), inherited / ROUNDS / numbered(number))
                break
    for folder in reversed(history):
        evaluated = list_numbers(folder / EVALUATIONS)
        if evaluated:
            name = numbered(evaluated[0])
            shutil.copytree(folder / EVALUATIONS / name, inherited / EVALUATIONS / name)
            break
