"""Checkpoint folders: ordinary Hugging Face folders plus checkpoint.json, which says what must be in them.

    checkpoints/000010/              after round 10
    checkpoints/000011.in-progress/  in the middle of round 11, after a stop

checkpoint.json is written last and lists every other file with its size and SHA-256. Tensors are safetensors only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.bundles import SCHEMA_VERSION
from spark_kernel.runs.codec import dumps, from_json, loads, to_json
from spark_kernel.runs.files import write_file
from spark_kernel.runs.layout import CHECKPOINTS, numbered

MANIFEST = "checkpoint.json"
IN_PROGRESS = ".in-progress"
NAME = re.compile(r"(\d{6,})(\.in-progress)?")
PICKLED = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file of a checkpoint: path relative to its folder, size in bytes, SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """checkpoint.json. `round`: the round it follows or stands in. `position`: where in the round, by the trainer."""

    schema_version: int
    round: int
    in_progress: bool
    files: tuple[CheckpointFile, ...]
    position: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint on disk. `in_progress`: it stands in the middle of `round`, otherwise after it."""

    path: Path
    round: int
    in_progress: bool

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def order(self) -> tuple[int, bool]:
        """Sorts checkpoints by how far they got."""
        return self.round, not self.in_progress


def checkpoint_name(round: int, *, in_progress: bool = False) -> str:
    """The folder name: 10 -> "000010", or "000011.in-progress" for a stop in the middle of round 11."""
    return numbered(round) + (IN_PROGRESS if in_progress else "")


def parse_name(name: str) -> tuple[int, bool]:
    """Round and whether in progress.

    Raises:
        InputError: no checkpoint name.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise InputError(f'"{name}" is no checkpoint name: use checkpoint_name(round, in_progress=...).')
    return int(match.group(1)), match.group(2) is not None


def list_checkpoints(run: Path) -> list[CheckpointInfo]:
    """The checkpoints of a run, the one that got furthest last. Links are not followed."""
    try:
        with os.scandir(run / CHECKPOINTS) as entries:
            names = [e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    infos = [CheckpointInfo(run / CHECKPOINTS / name, *parse_name(name)) for name in names]
    return sorted(infos, key=lambda info: info.order)


def find_checkpoint(run: Path, round: int | None = None) -> CheckpointInfo | None:
    """The checkpoint that got furthest, None if there is none; or the one after a given round.

    Raises:
        RunFolderError: no checkpoint after that round; says which rounds have one.
    """
    found = list_checkpoints(run)
    if round is None:
        return found[-1] if found else None
    for info in found:
        if info.round == round and not info.in_progress:
            return info
    rounds = ", ".join(str(info.round) for info in found if not info.in_progress) or "none"
    raise RunFolderError(f"{run} has no checkpoint after round {round}; rounds with a checkpoint: {rounds}.")


def find_sound_checkpoint(run: Path, round: int | None = None) -> tuple[CheckpointInfo, tuple[str, ...]]:
    """The newest sound checkpoint of a finished round, or that of a given round; only read.

    Returns:
        The checkpoint, and a sentence for each newer one that cannot be used.

    Raises:
        InputError: there is none; says which rounds have one.
        RunFolderError: all that could serve are damaged.
    """
    found = [info for info in list_checkpoints(run) if not info.in_progress]
    rounds = ", ".join(str(info.round) for info in found)
    if not found:
        raise InputError(f"{run} has no checkpoint of a finished round yet: train it on with `workbench resume {run}`.")
    if round is not None:
        found = [info for info in found if info.round == round]
        if not found:
            raise InputError(f"{run} has no checkpoint after round {round}; rounds with a checkpoint: {rounds}.")
    damaged: list[str] = []
    for info in reversed(found):
        try:
            verify_checkpoint(info.path)
        except RunFolderError as error:
            damaged.append(str(error))
            continue
        return info, tuple(damaged)
    raise RunFolderError(" ".join(damaged))


def write_manifest(folder: Path, name: str, position: Mapping[str, Any]) -> None:
    """Describe a checkpoint folder that is otherwise complete.

    Raises:
        RunFolderError: the folder is empty, or holds a link or a file in a format that can run code.
    """
    files = []
    for path in _files(folder):
        relative = path.relative_to(folder).as_posix()
        if path.suffix.lower() in PICKLED:
            raise RunFolderError(f"Checkpoint {name} holds {relative}: store tensors as safetensors, never pickled.")
        files.append(CheckpointFile(relative, path.stat().st_size, _sha256(path)))
    if not files:
        raise RunFolderError(f"Checkpoint {name} is empty: its writer wrote no file.")
    round, in_progress = parse_name(name)
    manifest = CheckpointManifest(SCHEMA_VERSION, round, in_progress, tuple(files), position)
    write_file(folder / MANIFEST, (dumps(to_json(manifest), indent=1) + "\n").encode())


def read_manifest(path: Path) -> CheckpointManifest:
    """A checkpoint's checkpoint.json; the files that it lists are not looked at.

    Raises:
        RunFolderError: missing, damaged, or written by a newer version.
    """
    manifest_path = path / MANIFEST
    try:
        manifest = from_json(CheckpointManifest, loads(manifest_path.read_bytes(), str(manifest_path)))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise RunFolderError(f"{path} is not a complete checkpoint: {MANIFEST} cannot be read ({reason}).") from error
    if manifest.schema_version > SCHEMA_VERSION:
        raise RunFolderError(f"{path} was written by a newer version of this program: update spark-workbench.")
    return manifest


def verify_checkpoint(path: Path) -> CheckpointManifest:
    """Check every file of a checkpoint against checkpoint.json.

    Raises:
        RunFolderError: names the file that is missing, damaged, or not listed.
    """
    manifest, manifest_path = read_manifest(path), path / MANIFEST
    listed = {entry.name: entry for entry in manifest.files}
    for name, entry in listed.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise RunFolderError(f"{manifest_path} is damaged: it lists {name}, which lies outside the checkpoint.")
        file = path / relative
        if not file.is_file():
            raise RunFolderError(f"Checkpoint {path} is damaged: {name} is missing.")
        if file.stat().st_size != entry.size:
            raise RunFolderError(
                f"Checkpoint {path} is damaged: {name} has {file.stat().st_size} bytes instead of {entry.size}."
            )
        if _sha256(file) != entry.sha256:
            raise RunFolderError(f"Checkpoint {path} is damaged: the content of {name} is not what was written.")
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        if name not in listed and name != MANIFEST:
            raise RunFolderError(f"Checkpoint {path} holds {name}, which {MANIFEST} does not list.")
    return manifest


def _files(folder: Path) -> list[Path]:
    """Every file below, sorted.

    Raises:
        RunFolderError: a link or a special file among them.
    """
    found = []
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(root) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise RunFolderError(f"{path} is a link or a special file: a checkpoint holds plain files only.")
        found += [Path(root) / name for name in names]
    return sorted(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
