"""A held-out evaluation outside of training: of a run's checkpoint, or of any model on the problems of a configuration.

A run is only read, so it may be written by another process meanwhile. Of a checkpoint the numbers are those that the
run itself finds after that round, on the same machine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spark_kernel.config import RunConfig, load_config, merge_settings, validate_config
from spark_kernel.errors import InputError, StopCheck
from spark_kernel.evaluate.frozen import FrozenPool, frozen_pool
from spark_kernel.evaluate.held_out import HeldOutEvaluation
from spark_kernel.evaluate.leaks import Trained, check_known, trained_problems
from spark_kernel.evaluate.parts import assemble_for_evaluation
from spark_kernel.evaluate.policy_evaluation import evaluate_policy
from spark_kernel.models.load import resolve_model
from spark_kernel.runs.bundles import EvaluationRecords, ParentRun
from spark_kernel.runs.checkpoints import find_sound_checkpoint, list_checkpoints
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.environment import describe_environment
from spark_kernel.runs.finished_folder import finished_folder
from spark_kernel.runs.layout import IMAGES, INHERITED, first_round, read_run_info
from spark_kernel.runs.writer import RunWriter


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: weights, and the configuration that says on what.

    `checkpoint`: the folder whose weights replace the initial model's, None for the initial model or any other.
    `round`: the round that the weights come after, 0 where there is none. `parent`: the run and round they are of.
    `frozen`: candidates for the frozen lines. `trained`: what the weights were trained on, where that is known.
    `notes`: sentences for whoever asked.
    """

    config: RunConfig
    checkpoint: Path | None = None
    round: int = 0
    parent: ParentRun | None = None
    frozen: FrozenPool = field(default_factory=FrozenPool)
    trained: Trained | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StandaloneEvaluation:
    """What was found, of what, and the records of it. `config`: as it was used, with what it left open decided.

    `seconds`: without loading the model. `notes`: of the subject, of the engine, and about lines that are left out.
    """

    subject: Subject
    config: RunConfig
    evaluation: HeldOutEvaluation
    records: EvaluationRecords
    seconds: float
    notes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Outputs that were sampled, in all lines."""
        return sum(len(group.rollouts) for groups in self.records.groups.values() for group in groups)


def checkpoint_subject(run: Path, round: int | None, overrides: Mapping[str, Any]) -> Subject:
    """A run's checkpoint after a round, None for its newest sound one; 0 also where there is only the initial model.

    Args:
        overrides: nested settings that differ from the run's.

    Raises:
        InputError: no such checkpoint, a setting that is refused, or servers that the run itself samples with.
        RunFolderError: the run or the checkpoint is damaged.
    """
    info, own = read_run_info(run), read_config(run)
    config = validate_config(merge_settings(own.model_dump(), overrides))
    if config.rollout.engine == "vllm-server" and config.rollout.server.urls == own.rollout.server.urls:
        raise InputError(
            f"{run} samples with vLLM servers, whose weights an evaluation would replace while it trains: give "
            "--rollout.engine transformers or vllm, or servers of its own (--rollout.server.urls)."
        )
    if config.model.path != own.model.path or config.model.revision != own.model.revision:
        raise InputError(
            f"The weights of {run} belong to its own model, {own.model.path}: leave model.* of it as it is."
        )
    starts_anew = first_round(info) == 1
    checkpoint, damaged = None, tuple[str, ...]()
    if round != 0 or not starts_anew or any(found.round == 0 for found in list_checkpoints(run)):
        if round is None and starts_anew and not any(not found.in_progress for found in list_checkpoints(run)):
            raise InputError(f"{run} has no checkpoint of a finished round yet: --round 0 takes its initial model.")
        found, damaged = find_sound_checkpoint(run, round)
        checkpoint, round = found.path, found.round
    trained = trained_problems(run, round)
    check_known(trained, other_problems=config.problems != own.problems)
    return Subject(
        config=config,
        checkpoint=checkpoint,
        round=round,
        parent=ParentRun(info.name, round),
        frozen=frozen_pool((run, run / INHERITED), round),
        trained=trained,
        notes=tuple(f"{sentence} An older one is taken." for sentence in damaged),
    )


def model_subject(model: str, preset: str | Path, overrides: Mapping[str, Any]) -> Subject:
    """Any model, on the held-out problems that a preset or configuration file describes.

    The file's own model says only in which precision and on which device to compute; its adapter is left out, and
    what its chat template is given goes to that model alone.

    Raises:
        InputError: no such model, preset or file, or a setting that is refused.
    """
    resolve_model(model)
    values = load_config({"base": str(preset), **overrides}).model_dump()
    own: dict[str, Any] = {"path": model, "lora": {"enabled": False}}
    if values["model"]["path"] != model:
        given = overrides.get("model", {})
        nothing: dict[str, Any] = {"revision": None, "chat_template_kwargs": {}, "thinking_tags": {}}
        values["model"] |= {name: given.get(name, empty) for name, empty in nothing.items()}
    return Subject(validate_config(merge_settings(values, {"model": own})))


def evaluate_subject(
    subject: Subject,
    images_root: Path,
    *,
    on_progress: Callable[[str, int, int], None] = lambda _line, _finished, _total: None,
    check_stop: StopCheck = lambda: None,
) -> StandaloneEvaluation:
    """Load the weights and ask them everything that a held-out evaluation asks.

    Args:
        images_root: a folder for the problems' images; not the run's.
        on_progress: as of `evaluate_policy`; before it, line "problems" while those of a file are read and checked.
        check_stop: raises `Stopped` to abandon the evaluation.

    Raises:
        InputError: anything about configuration, problems or model that cannot work.
        RunFolderError: the checkpoint is damaged, or was deleted by its run while it was read.
    """
    parts = assemble_for_evaluation(
        subject.config, subject.checkpoint, subject.trained, lambda done, total: on_progress("problems", done, total)
    )
    try:
        check_stop()
        chosen = parts.stream.held_out(parts.config.evaluation.problems, seed=parts.config.seed)
        frozen, notes = subject.frozen.of(chosen), list(subject.notes)
        if subject.frozen.candidates and not frozen:
            notes.append("The frozen lines are left out: the run's first evaluation asked about other problems.")
        started = time.perf_counter()
        evaluation, records = evaluate_policy(
            parts,
            round=subject.round,
            frozen=frozen,
            images_root=images_root,
            on_progress=on_progress,
            check_stop=check_stop,
        )
        seconds = time.perf_counter() - started
        notes += parts.remarks.take()
        return StandaloneEvaluation(subject, parts.config, evaluation, records, seconds, tuple(notes))
    finally:
        parts.close()


def write_standalone(found: StandaloneEvaluation, target: Path, images_root: Path) -> None:
    """Write an evaluation as a run folder without rounds, whole or not at all; every reader of runs can read it.

    Of a checkpoint it says in run.json, as a fork does, which run and round it is of.

    Raises:
        RunFolderError: disk full, not writable, or something is at the target.
    """
    folder_of, settings = found.subject.parent, found.config.to_yaml()
    with finished_folder(target, "write an evaluation") as folder:
        writer = RunWriter.create(
            folder, settings, describe_environment(), parent=folder_of, name=target.absolute().name
        )
        with writer:
            if (images_root / IMAGES).is_dir():
                shutil.copytree(images_root / IMAGES, folder / IMAGES, dirs_exist_ok=True)
            writer.write_evaluation(found.records, found.evaluation.summary)
            writer.append_event(
                {
                    "event": "evaluation_finished",
                    "round": found.records.round,
                    "phase": "evaluate",
                    "seconds": found.seconds,
                    "summary": found.evaluation.summary,
                }
            )
            writer.close("finished")
