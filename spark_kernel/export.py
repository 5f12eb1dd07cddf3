"""A checkpointed round as a folder of its own: what others load, without what only training needs.

A run that trained all weights gives an ordinary Hugging Face folder; one that trained an adapter gives a peft folder,
or with `merge` an ordinary folder with the adapter merged into full weights. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from spark_kernel.assembly import model_settings
from spark_kernel.base_model import BaseModel
from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.learner.checkpoint import STATE_FOLDER
from spark_kernel.lifecycle import read_config
from spark_kernel.models.load import load_model, no_progress_bars
from spark_kernel.runs.checkpoints import CheckpointInfo, list_checkpoints, verify_checkpoint
from spark_kernel.runs.files import disk_errors, sync_folder, sync_tree

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
    found = [info for info in list_checkpoints(run) if not info.in_progress]
    rounds = ", ".join(str(info.round) for info in found)
    if not found:
        raise InputError(
            f"{run} has no checkpoint of a finished round yet, so there is nothing to export: train it on with "
            f"`workbench resume {run}`."
        )
    if round is not None:
        found = [info for info in found if info.round == round]
        if not found:
            raise InputError(f"{run} has no checkpoint after round {round}; rounds with a checkpoint: {rounds}.")
    damaged: list[str] = []
    for info in reversed(found):
        try:
            manifest = verify_checkpoint(info.path)
        except RunFolderError as error:
            damaged.append(str(error))
            continue
        state = json.loads((info.path / STATE_FOLDER / "learner.json").read_text(encoding="utf-8"))
        names = tuple(file.name for file in manifest.files if PurePosixPath(file.name).parts[0] != STATE_FOLDER)
        return ExportSource(run, info, config, names, state["version"], state["steps_taken"], tuple(damaged))
    raise RunFolderError(" ".join(damaged))


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
    if target.absolute().resolve().is_relative_to(source.run.absolute().resolve()):
        raise InputError(f"{target} lies in the run's own folder, which only its trainer writes: choose another --out.")
    if target.is_dir():
        if any(target.iterdir()):
            raise InputError(f"{target} is not empty and is never overwritten: choose another --out, or remove it.")
    elif target.exists() or target.is_symlink():
        raise InputError(f"{target} exists and is no folder: choose another --out.")


def write_export(source: ExportSource, base: BaseModel, target: Path, card: str, *, merge: bool = False) -> None:
    """Write the folder, with `card` as its README.md.

    Raises:
        InputError: as `check_export`.
        ModelError: the base model, which a merge needs, cannot be loaded.
        RunFolderError: the disk is full or the target cannot be written.
    """
    check_export(source, target, merge=merge)
    with _new_folder(target) as folder:
        if merge:
            _write_merged(source, folder)
        else:
            _copy(source, folder)
            if source.has_adapter:
                _name_base(folder / ADAPTER_CONFIG, base)
        (folder / CARD).write_text(card, encoding="utf-8")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill beside the target; it becomes the target when the block ends well, and vanishes otherwise."""
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    with disk_errors(target, "export"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            temporary.rename(target)  # an empty folder gives way, one that was filled meanwhile does not
            sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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

    loaded = load_model(replace(model_settings(source.config), device="cpu"))
    with no_progress_bars():
        adapted = PeftModel.from_pretrained(loaded.model, str(source.checkpoint.path), torch_device="cpu")
        adapted.merge_and_unload().save_pretrained(folder)
    encoder = loaded.encoder
    (encoder.tokenizer if encoder.processor is None else encoder.processor).save_pretrained(folder)
