"""Checkpoints are found, verified and pruned; a damaged one names its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.checkpoints import (
    checkpoint_name,
    find_checkpoint,
    list_checkpoints,
    verify_checkpoint,
    write_manifest,
)
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, fill_checkpoint, write_round
from tests.helpers.run_folders import listing


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def writer(run: Path) -> Iterator[RunWriter]:
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as opened:
        yield opened


def test_checkpoints_are_found_verified_and_pruned(writer: RunWriter, run: Path) -> None:
    for round in (1, 2, 3):
        write_round(writer, round)
        writer.write_checkpoint(checkpoint_name(round), fill_checkpoint, position={"stage": 0})
        if round == 2:
            writer.write_checkpoint(checkpoint_name(3, in_progress=True), fill_checkpoint, position={"stage": 4})
            assert find_checkpoint(run).name == "000003.in-progress"  # type: ignore[union-attr]
            assert writer.prune_checkpoints(5) == []
    assert [info.name for info in list_checkpoints(run)] == ["000001", "000002", "000003.in-progress", "000003"]
    manifest = verify_checkpoint(run / "checkpoints" / "000003.in-progress")
    assert (manifest.round, manifest.in_progress, manifest.position) == (3, True, {"stage": 4})
    assert [entry.name for entry in manifest.files] == ["model.safetensors", "state/trainer.json"]
    assert writer.prune_checkpoints(2) == ["000003.in-progress", "000001"]
    assert [info.round for info in list_checkpoints(run)] == [2, 3]
    assert writer.prune_checkpoints(None) == []
    found = find_checkpoint(run, 2)
    assert found is not None
    assert found.name == "000002"
    with pytest.raises(RunFolderError, match="rounds with a checkpoint: 2, 3"):
        find_checkpoint(run, 1)
    with pytest.raises(InputError):
        writer.prune_checkpoints(0)


def test_a_failing_checkpoint_writer_leaves_the_older_one(writer: RunWriter, run: Path) -> None:
    path = writer.write_checkpoint(checkpoint_name(0), fill_checkpoint)
    before = listing(run)

    def fail(folder: Path) -> None:
        fill_checkpoint(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write_checkpoint(checkpoint_name(0), fail)
    with pytest.raises(RunFolderError, match="empty"):
        writer.write_checkpoint(checkpoint_name(0), lambda folder: None)
    with pytest.raises(RunFolderError, match="safetensors"):
        writer.write_checkpoint(checkpoint_name(0), lambda folder: (folder / "optimizer.pt").touch())
    with pytest.raises(RunFolderError, match="link"):
        writer.write_checkpoint(checkpoint_name(0), lambda folder: (folder / "a").symlink_to("/etc/passwd"))
    assert listing(run) == before
    verify_checkpoint(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: (p / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda p: (p / "model.safetensors").write_bytes(b"short"), r"model\.safetensors has 5 bytes"),
        (lambda p: (p / "model.safetensors").write_bytes(bytes(10240)), r"content of model\.safetensors"),
        (lambda p: (p / "evil.py").write_text("x"), r"evil\.py"),
        (lambda p: (p / "checkpoint.json").unlink(), "not a complete checkpoint"),
        (lambda p: (p / "checkpoint.json").write_text("{}"), "lacks its field"),
        (lambda p: (p / "state" / "x").symlink_to("/etc/passwd"), "link"),
    ],
)
def test_a_damaged_checkpoint_names_the_file(tmp_path: Path, damage: object, words: str) -> None:
    folder = tmp_path / "000001"
    folder.mkdir()
    fill_checkpoint(folder)
    write_manifest(folder, "000001", {})
    verify_checkpoint(folder)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(RunFolderError, match=words):
        verify_checkpoint(folder)


def test_a_manifest_cannot_point_outside_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "000001"
    folder.mkdir()
    fill_checkpoint(folder)
    write_manifest(folder, "000001", {})
    path = folder / "checkpoint.json"
    path.write_text(path.read_text().replace("model.safetensors", "../../model.safetensors"))
    with pytest.raises(RunFolderError, match="outside"):
        verify_checkpoint(folder)
