"""A checkpointed round as a folder of its own: what others load, without what only training needs.

A run that trained all weights gives an ordinary Hugging Face folder; one that trained an adapter gives a peft folder,
or with `merge` an ordinary folder with the adapter merged into full weights. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError
from spark_kernel.learner.checkpoint import STATE_FOLDER
from spark_kernel.models.load import load_model, no_progress_bars
from spark_kernel.publish.base_model import BaseModel
from spark_kernel.runs.checkpoints import CheckpointInfo, find_sound_checkpoint, read_manifest
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.finished_folder import check_target, finished_folder

CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class ExportSource:
    """What is exported: the sound checkpoint after a round.

    `files`: relative to the checkpoint's folder. `policy_version` and `optimizer_steps` count updates and steps in
    these weights, those before a fork included. `damaged`: a sentence for each newer checkpoint that cannot be used.
    """

    run: Path
    checkpoint: CheckpointInfo
    config: RunConfig
    files: tuple[str, ...]
    policy_version: int
    optimizer_steps: int
    damaged: tuple[str, ...] = ()

    @property
    def round(self) -> int:
        """The round the weights come after."""
        return self.checkpoint.round

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter was trained rather than all weights."""
        return self.config.model.lora.enabled


def find_source(run: Path, round: int | None = None) -> ExportSource:
    """The newest sound checkpoint of a finished round, or that of a given round.

    Raises:
        InputError: there is none; says which rounds have one.
        RunFolderError: the run or the checkpoint that was asked for is damaged.
    """
    config = read_config(run)
    info, damaged = find_sound_checkpoint(run, round)
    state = json.loads((info.path / STATE_FOLDER / "learner.json").read_text(encoding="utf-8"))
    files = read_manifest(info.path).files
    names = tuple(file.name for file in files if PurePosixPath(file.name).parts[0] != STATE_FOLDER)
    return ExportSource(run, info, config, names, state["version"], state["steps_taken"], damaged)


def check_export(source: ExportSource, target: Path, *, merge: bool) -> None:
    """Everything that can be refused before work begins.

    Raises:
        InputError: no adapter to merge, or a target that holds something or lies in the run's own folder.
    """
    if merge and not source.has_adapter:
        raise InputError(
            f"{source.run} trained all weights, so there is no adapter to merge: leave --merge out, the folder holds "
            "full weights anyway."
        )
    check_target(target, source.run)


def write_export(source: ExportSource, base: BaseModel, target: Path, card: str, *, merge: bool = False) -> None:
    """Write the folder, with `card` as its README.md.

    Raises:
        InputError: as `check_export`.
        ModelError: the base model, which a merge needs, cannot be loaded.
        RunFolderError: the disk is full or the target cannot be written.
    """
    check_export(source, target, merge=merge)
    with finished_folder(target, "export") as folder:
        if merge:
            _write_merged(source, folder)
        else:
            _copy(source, folder)
            if source.has_adapter:
                _name_base(folder / ADAPTER_CONFIG, base)
        (folder / CARD).write_text(card, encoding="utf-8")


def _copy(source: ExportSource, folder: Path) -> None:
    for name in source.files:
        if name != CARD:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.checkpoint.path / name, folder / name)


def _name_base(path: Path, base: BaseModel) -> None:
    """Have the adapter name its base as others can load it, not as it lay on this machine while training."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.reference, "revision": base.revision}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_merged(source: ExportSource, folder: Path) -> None:
    """Full weights in the precision that the run held the base in; computed on the CPU."""
    from peft import PeftModel

    loaded = load_model(source.config.model.model_copy(update={"device": "cpu"}))
    with no_progress_bars():
        adapted = PeftModel.from_pretrained(loaded.model, str(source.checkpoint.path), torch_device="cpu")
        adapted.merge_and_unload().save_pretrained(folder)
    encoder = loaded.encoder
    (encoder.tokenizer if encoder.processor is None else encoder.processor).save_pretrained(folder)
