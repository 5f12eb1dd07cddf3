"""A run folder survives kills at any moment and disks that say no: what was recorded stays, whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import save_file

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.checkpoints import checkpoint_name, list_checkpoints, verify_checkpoint
from spark_kernel.runs.new_folder import check_new_folder
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import (
    CONFIG,
    ENVIRONMENT,
    OTHER_SUITE,
    fill_checkpoint,
    make_evaluation,
    make_round,
    run_and_write_forever,
    write_round,
)
from tests.helpers.run_folders import check_prefix, event_names, listing

KILLS = 15


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def writer(run: Path) -> Iterator[RunWriter]:
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as opened:
        yield opened


# Kills ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process loses nothing that it gave to the kernel."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_a_run_survives_being_killed_at_any_moment(fast_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fast_folder / "run"
    # The fork server, which imports once for all children, finds the tests by this path only.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.recorded_runs", "pyarrow.parquet", "pandas"])
    rng = Random(7)
    seen = []
    for kill in range(KILLS):
        ready = fast_folder / f"ready-{kill}"
        process = context.Process(target=run_and_write_forever, args=(str(run), str(ready)))
        before = lines(run / "events.jsonl")
        process.start()
        # Some kills fall into creation and opening, most into the loop after a few more events.
        more = rng.randrange(1, 18) if kill % 5 else 0
        while lines(run / "events.jsonl") < before + more:
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if not (run / "run.json").exists():
            continue
        state = RunReader(run).status().state
        assert state == "killed" if ready.exists() else state != "running"
        last = check_prefix(run)
        with RunWriter.open(run) as writer:
            assert writer.last_round <= last
            assert not list((run / ".tmp").iterdir())
            assert not list(run.rglob("*.replaced"))
            for path in (run / "journal").iterdir():
                assert int(path.name) == writer.last_round + 1
        seen.append(check_prefix(run))
    assert max(seen) > 2, "the loop never got anywhere"


@pytest.mark.parametrize("moment", range(9))
def test_going_back_is_finished_after_a_kill_in_the_middle(
    writer: RunWriter, run: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for round in (1, 2, 3):
        write_round(writer, round)
        writer.write_checkpoint(checkpoint_name(round), fill_checkpoint)
    writer.write_evaluation(*make_evaluation(3))
    for round in (1, 2, 3):
        writer.write_evaluation(*make_evaluation(round, OTHER_SUITE))

    class Killed(BaseException):
        pass

    renames = 0
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        nonlocal renames
        if self.parent.name in ("rounds", "checkpoints", "evaluations", OTHER_SUITE):
            renames += 1
            if renames > moment:
                raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    try:
        writer.drop_rounds_after(1)
    except Killed:
        assert moment < 7
    monkeypatch.undo()
    check_prefix(run)
    writer.close()
    with RunWriter.open(run) as again:
        assert again.rounds() == [1]
        assert again.evaluations() == []
        assert again.evaluations(OTHER_SUITE) == [1]
        assert [info.name for info in list_checkpoints(run)] == ["000001"]
    moved = {p.parent.relative_to(run).as_posix() for p in (run / "discarded").rglob("*.*") if p.name[0] in "cr"}
    other = f"evaluations/{OTHER_SUITE}"
    names = ("checkpoints/000002", "checkpoints/000003", "evaluations/000003", f"{other}/000002", f"{other}/000003")
    assert {f"discarded/0001/{name}" for name in (*names, "rounds/000002", "rounds/000003")} == moved


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_while_rounds_come_back_is_finished_by_the_next_writer(
    writer: RunWriter, run: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for round in (1, 2, 3):
        write_round(writer, round)
        writer.write_checkpoint(checkpoint_name(round), fill_checkpoint)
    writer.write_evaluation(*make_evaluation(3))
    writer.write_evaluation(*make_evaluation(2, OTHER_SUITE))
    before = listing(run)
    writer.drop_rounds_after(1)

    class Killed(BaseException):
        pass

    renames = 0
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        nonlocal renames
        if "discarded" in self.parts and self.is_dir():
            renames += 1
            if renames > moment:
                raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    try:
        writer.restore_rounds()
    except Killed:
        assert moment < 6
    monkeypatch.undo()
    check_prefix(run)
    writer.close()
    with RunWriter.open(run):
        check_prefix(run)
        assert listing(run) == before


def test_what_was_done_since_going_back_moves_aside_when_that_is_undone(writer: RunWriter, run: Path) -> None:
    for round in (1, 2):
        write_round(writer, round)
    with pytest.raises(InputError, match="never put back"):
        writer.restore_rounds()
    writer.drop_rounds_after(0)
    write_round(writer, 1)
    found = writer.restore_rounds()
    assert (found.after, found.rounds) == (0, (1, 2))
    assert writer.rounds() == [1, 2]
    found = writer.restore_rounds()  # and back again
    assert (found.after, found.rounds) == (0, (1,))
    assert writer.rounds() == [1]
    assert event_names(run).count("restored") == 2


def test_going_back_twice_loses_nothing(writer: RunWriter, run: Path) -> None:
    for round in (1, 2):
        write_round(writer, round)
    _, phases, _ = make_round(3)
    writer.record_phase(3, 0, *phases[0])
    writer.write_checkpoint(checkpoint_name(3, in_progress=True), fill_checkpoint)
    folder = writer.drop_rounds_after(2)
    assert folder is not None
    assert (folder / "journal" / "000003" / "00-policy-roll_out" / "rollouts.parquet").exists()
    assert (folder / "checkpoints" / "000003.in-progress").exists()
    assert writer.drop_rounds_after(2) is None
    second = writer.drop_rounds_after(0)
    assert second is not None
    assert second != folder
    assert (second / "rounds" / "000001" / "report.json").exists()
    write_round(writer, 1)
    assert RunReader(run).rounds == [1]
    with pytest.raises(InputError, match="cannot go back to 2"):
        writer.drop_rounds_after(2)


@pytest.mark.parametrize("when", ["old moved away", "new in place"])
def test_a_kill_while_a_checkpoint_is_replaced_loses_none(writer: RunWriter, run: Path, when: str) -> None:
    path = writer.write_checkpoint(checkpoint_name(0), fill_checkpoint)
    writer.close()
    old = path.with_name("000000.replaced")
    if when == "old moved away":
        path.rename(old)
    else:
        shutil.copytree(path, old)
    assert all(info.name == "000000" for info in list_checkpoints(run))
    RunWriter.open(run).close()
    assert [info.name for info in list_checkpoints(run)] == ["000000"]
    assert not old.exists()
    verify_checkpoint(path)


def test_a_journal_of_a_finished_round_is_cleared(writer: RunWriter, run: Path) -> None:
    write_round(writer, 1, journal=True)
    assert not list((run / "journal").iterdir())
    (run / "journal" / "000001" / "00-policy-roll_out").mkdir(parents=True)
    writer.close()
    assert RunReader(run).phases() == []
    RunWriter.open(run).close()
    assert not list((run / "journal").iterdir())


# Disks that say no ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root; the size limit below is tested everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_what_was_recorded(small_disk: Path) -> None:
    run = small_disk / "run"
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        write_round(writer, 1, journal=True)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        before = listing(run)
        records, phases, report = make_round(2)
        for attempt in (
            lambda: writer.finish_round(records, report),
            lambda: writer.record_phase(2, 0, *phases[0]),
            lambda: writer.write_checkpoint(checkpoint_name(1), lambda f: (f / "model").write_bytes(bytes(10**6))),
            lambda: writer.write_evaluation(*make_evaluation(1)),
        ):
            with pytest.raises(RunFolderError, match="disk is full") as caught:
                attempt()
            assert str(run) in str(caught.value)
            assert listing(run) == before
        filler.unlink()
        write_round(writer, 2)
    assert check_prefix(run) == 2


def test_safetensors_on_a_full_disk_are_said_too(small_disk: Path) -> None:
    def write(folder: Path) -> None:
        save_file({"weight": np.zeros(3 << 20, np.uint8)}, folder / "model.safetensors")

    with (
        RunWriter.create(small_disk / "run", CONFIG, ENVIRONMENT) as writer,
        pytest.raises(RunFolderError, match="disk is full"),
    ):
        writer.write_checkpoint(checkpoint_name(0), write)


def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    run = small_disk / "run"
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as writer:
        write_round(writer, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunFolderError, match="not allowed"):
        RunWriter.open(run)
    with pytest.raises(RunFolderError, match="not allowed"):
        RunWriter.create(small_disk / "other", CONFIG, ENVIRONMENT)
    with pytest.raises(RunFolderError, match=r"other cannot be created: .*disk is not writable"):
        check_new_folder(small_disk / "other")
    assert check_prefix(run) == 1


def limited(path: str, results: str) -> None:
    """Target of a process that may write no file beyond 4 KiB: a disk that refuses, without root."""
    writer = RunWriter.create(path, CONFIG, ENVIRONMENT)
    write_round(writer, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    records, _, report = make_round(2)
    messages = []
    for attempt in (
        lambda: writer.finish_round(records, report),
        lambda: writer.write_checkpoint(checkpoint_name(1), fill_checkpoint),
        lambda: writer.append_event({"event": "long", "text": "x" * 8000}),
    ):
        try:
            attempt()
            messages.append("no error")
        except RunFolderError as error:
            messages.append(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.append_event({"event": "after"})
    writer.close()
    Path(results).write_text(json.dumps(messages))


@pytest.mark.slow
def test_a_size_limit_is_said_and_leaves_what_was_recorded(run: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    process = multiprocessing.get_context("spawn").Process(target=limited, args=(str(run), str(results)))
    process.start()
    process.join()
    assert process.exitcode == 0
    for message in json.loads(results.read_text()):
        assert "size limit is reached" in message
        assert str(run) in message
    assert check_prefix(run) == 1
    assert event_names(run)[-2:] == ["after", "closed"]
    assert not list((run / ".tmp").iterdir())
