"""The run folder keeps every promise: whole or absent, one writer, kills, full disks, going back."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import save_file

from spark_kernel.errors import InputError, NonFiniteError, PhaseError, RunFolderError, RunLockedError
from spark_kernel.records import Parse, Period, Score
from spark_kernel.runs.bundles import ParentRun, PhaseRecords
from spark_kernel.runs.checkpoints import (
    checkpoint_name,
    find_checkpoint,
    list_checkpoints,
    verify_checkpoint,
    write_manifest,
)
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

KILLS = 15


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def writer(run: Path) -> Iterator[RunWriter]:
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as opened:
        yield opened


def listing(root: Path) -> dict[str, bytes]:
    """Every file below with its content, but the log and the lock."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name not in ("lock", "events.jsonl"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def event_names(run: Path) -> list[str]:
    return [event["event"] for event in RunReader(run).events()]


# What was recorded comes back ----------------------------------------------------------------------------------------


def test_rounds_phases_and_evaluations_come_back_equal(writer: RunWriter, run: Path) -> None:
    records, phases, report = make_round(1)
    for index, (period, phase, made) in enumerate(phases):
        writer.record_phase(1, index, period, phase, made)
    assert [writer.recall_phase(1, i, period, phase) for i, (period, phase, _) in enumerate(phases)] == [
        made for _, _, made in phases
    ]
    assert writer.recall_phase(1, 7, Period.POLICY, "verify") is None
    writer.finish_round(records, report)
    write_round(writer, 2)
    evaluation, summary = make_evaluation(2)
    writer.write_evaluation(evaluation, summary)
    reader = RunReader(run)
    assert reader.rounds == writer.rounds() == [1, 2]
    assert reader.read_round(1) == writer.read_round(1) == records
    assert reader.report(1) == report
    assert reader.reports() == [report, make_round(2)[2]]
    assert reader.read_evaluation(2) == evaluation
    assert reader.evaluation(2) == summary
    assert reader.phases() == []
    assert reader.config_yaml == CONFIG
    assert reader.environment == ENVIRONMENT


def test_an_evaluation_gives_way_to_a_new_one_of_the_same_round(writer: RunWriter, run: Path) -> None:
    records, _ = make_evaluation(0)
    writer.write_evaluation(records, {"accuracy": 0.25})
    writer.write_evaluation(records, {"accuracy": 0.5})
    assert RunReader(run).evaluation(0) == {"accuracy": 0.5}
    assert writer.evaluations() == [0]


def test_what_is_not_due_is_refused(writer: RunWriter, run: Path) -> None:
    records, phases, report = make_round(1)
    second, _, second_report = make_round(2)
    period, phase, made = phases[0]
    with pytest.raises(PhaseError, match="Round 1 is due"):
        writer.finish_round(second, second_report)
    with pytest.raises(PhaseError, match="Round 1 is in flight"):
        writer.record_phase(2, 0, period, phase, made)
    with pytest.raises(InputError, match="phase name"):
        writer.record_phase(1, 0, period, "../up", made)
    writer.record_phase(1, 1, period, phase, made)
    with pytest.raises(PhaseError, match="recorded already"):
        writer.record_phase(1, 1, period, phase, made)
    with pytest.raises(PhaseError, match="Phase 0"):
        writer.record_phase(1, 0, period, phase, made)
    with pytest.raises(RunFolderError, match="policy/roll_out at place 1, where reward/verify is due"):
        writer.recall_phase(1, 1, Period.REWARD, "verify")
    with pytest.raises(PhaseError):
        writer.write_evaluation(*make_evaluation(2))
    with pytest.raises(PhaseError):
        writer.write_checkpoint(checkpoint_name(1), fill_checkpoint)
    writer.finish_round(records, report)
    with pytest.raises(PhaseError, match="Round 2 is due"):
        writer.finish_round(records, report)
    assert RunReader(run).rounds == [1]


def test_a_reward_that_is_no_number_is_refused_and_nothing_is_written(writer: RunWriter, run: Path) -> None:
    records, _, report = make_round(1)
    group = records.groups[Period.POLICY][0]
    bad = replace(group.rollouts[0], score=Score(float("nan"), True, Parse.OK))
    groups = {Period.POLICY: (group.with_rollouts((bad,)),)}
    before = listing(run)
    with pytest.raises(NonFiniteError, match=bad.id):
        writer.finish_round(replace(records, groups=groups), report)
    assert listing(run) == before


def test_a_fork_is_numbered_on_from_its_parent(run: Path) -> None:
    with RunWriter.create(run, CONFIG, ENVIRONMENT, parent=ParentRun("first", 4)) as writer:
        assert writer.last_round == 4
        writer.write_checkpoint(checkpoint_name(4), fill_checkpoint)
        write_round(writer, 5)
        with pytest.raises(InputError, match="rounds 4 to 5"):
            writer.drop_rounds_after(3)
    reader = RunReader(run)
    assert reader.rounds == [5]
    assert reader.info.parent == ParentRun("first", 4)


# Opening and locking -------------------------------------------------------------------------------------------------


def test_a_used_folder_is_no_place_for_a_new_run(writer: RunWriter, run: Path, tmp_path: Path) -> None:
    writer.close()
    with pytest.raises(RunFolderError, match="holds a run already"):
        RunWriter.create(run, CONFIG, ENVIRONMENT)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"thesis\.tex"):
        RunWriter.create(other, CONFIG, ENVIRONMENT)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_place_is_checked_without_writing_anything(writer: RunWriter, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    check_new_folder(tmp_path / "new" / "er")
    for place, said in (
        (run, "holds a run already"),
        (tmp_path, "is not empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "inside", "is a file"),
    ):
        with pytest.raises(RunFolderError, match=said):
            check_new_folder(place)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_creation_is_no_run_and_can_be_repeated(writer: RunWriter, run: Path) -> None:
    writer.close()
    (run / "run.json").unlink()
    for open_it in (RunWriter.open, RunReader):
        with pytest.raises(RunFolderError, match="create it again"):
            open_it(run)
    with RunWriter.create(run, CONFIG, ENVIRONMENT) as again:
        write_round(again, 1)
    assert RunReader(run).rounds == [1]


def test_missing_foreign_and_newer_folders_are_told_apart(writer: RunWriter, run: Path, tmp_path: Path) -> None:
    writer.close()
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    value = json.loads((run / "run.json").read_text())
    for open_it in (RunWriter.open, RunReader):
        with pytest.raises(RunFolderError, match="no run at"):
            open_it(tmp_path / "nothing")
        with pytest.raises(RunFolderError, match="not a folder"):
            open_it(tmp_path / "file")
        with pytest.raises(RunFolderError, match="not a run folder"):
            open_it(tmp_path / "folder")
        (run / "run.json").write_text(json.dumps(value | {"schema_version": 2, "unheard_of": True}))
        with pytest.raises(RunFolderError, match="update spark-workbench"):
            open_it(run)
        (run / "run.json").write_text("{")
        with pytest.raises(RunFolderError, match="damaged"):
            open_it(run)
    with pytest.raises(RunFolderError, match="file"):
        RunWriter.create(tmp_path / "file" / "run", CONFIG, ENVIRONMENT)


@pytest.mark.slow
def test_a_second_writer_learns_who_the_first_is(writer: RunWriter, run: Path) -> None:
    code = f"from spark_kernel.runs.writer import RunWriter; RunWriter.open({str(run)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RunLockedError" in done.stderr
    assert f"process {os.getpid()} on host {os.uname().nodename}" in done.stderr
    with pytest.raises(RunLockedError):
        RunWriter.open(run)
    writer.close()
    RunWriter.open(run).close()


@pytest.mark.slow
def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(run: Path) -> None:
    code = f"""
import os, signal, sys, time
from spark_kernel.runs.writer import RunWriter
writer = RunWriter.create({str(run)!r}, "", {{}})
child = os.fork()
if child == 0:
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        with pytest.raises(RunLockedError):
            RunWriter.open(run)
        process.kill()
        process.wait()
        try:
            os.kill(child, 0)
            RunWriter.open(run).close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_closed_writer_writes_nothing(writer: RunWriter, run: Path) -> None:
    writer.close()
    writer.close()
    before = listing(run)
    records, phases, report = make_round(1)
    period, phase, made = phases[0]
    for attempt in (
        lambda: writer.finish_round(records, report),
        lambda: writer.record_phase(1, 0, period, phase, made),
        lambda: writer.write_evaluation(*make_evaluation(0)),
        lambda: writer.write_checkpoint(checkpoint_name(0), fill_checkpoint),
        lambda: writer.append_event({"event": "x"}),
        lambda: writer.drop_rounds_after(0),
        lambda: writer.prune_checkpoints(1),
    ):
        with pytest.raises(RunFolderError, match="closed"):
            attempt()
    assert listing(run) == before


def test_a_hole_in_the_rounds_is_damage(writer: RunWriter, run: Path) -> None:
    for round in (1, 2, 3):
        write_round(writer, round)
    writer.close()
    shutil.rmtree(run / "rounds" / "000002")
    with pytest.raises(RunFolderError, match="round 2 is missing"):
        RunWriter.open(run)
    shutil.rmtree(run / "rounds" / "000001")
    shutil.rmtree(run / "rounds" / "000003")
    RunWriter.open(run).close()


# Kills ---------------------------------------------------------------------------------------------------------------


def check_prefix(run: Path) -> int:
    """Everything a reader sees is a prefix of the run, and equal to what was recorded; returns the last round."""
    reader = RunReader(run)
    last = len(reader.rounds)
    assert reader.rounds == list(range(1, last + 1))
    for round in reader.rounds:
        records, _, report = make_round(round)
        assert reader.read_round(round) == records
        assert reader.report(round) == report
    expected = make_round(last + 1)[1]
    infos = reader.phases()
    assert [info.index for info in infos] == list(range(len(infos)))
    for info in infos:
        assert (info.period, info.phase) == expected[info.index][:2]
        assert reader.phase(info) == expected[info.index][2]
    assert all(round <= last for suite in reader.suites for round in reader.evaluated(suite))
    for suite in reader.suites:
        for round in reader.evaluated(suite):
            assert (reader.read_evaluation(round, suite), reader.evaluation(round, suite)) == make_evaluation(
                round, suite
            )
    for info in reader.checkpoints:
        assert info.round <= last + info.in_progress
        assert verify_checkpoint(info.path).round == info.round
    assert [event["number"] for event in reader.events()] == list(range(1, len(list(reader.events())) + 1))
    reader.status()
    return last


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


# Events --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"number": 4, "ti', b"\x00" * 300 + b"\n", b"{}\n{\n", b"x" * 200_000])
def test_a_torn_last_event_is_mended_and_told(writer: RunWriter, run: Path, torn: bytes) -> None:
    for index in range(3):
        writer.append_event({"event": "note", "index": index, "text": "ü\n"})
    writer.close()
    before = list(RunReader(run).events())
    with (run / "events.jsonl").open("ab") as file:
        file.write(torn)
    assert RunReader(run).status().last_event == before[-1]
    with RunWriter.open(run) as again:
        again.append_event({"event": "note"})
    events = list(RunReader(run).events())
    assert events[: len(before)] == before
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert [event["event"] for event in events[len(before) :]] == ["repaired", "opened", "note", "closed"]
    assert events[len(before)]["dropped_bytes"] == len(torn)
    assert list(RunReader(run).events(after=len(events) - 1)) == events[-1:]


def test_a_damaged_line_in_the_middle_is_named(writer: RunWriter, run: Path) -> None:
    writer.close()
    path = run / "events.jsonl"
    path.write_bytes(b"oops\n" + path.read_bytes())
    with pytest.raises(RunFolderError, match="line 1"):
        list(RunReader(run).events())


@pytest.mark.parametrize("event", [{}, {"event": 3}, {"event": "x", "number": 1}, {"event": "x", "time": "now"}])
def test_an_event_that_is_none_is_refused(writer: RunWriter, event: dict[str, object]) -> None:
    with pytest.raises(InputError):
        writer.append_event(event)


def test_a_writer_leaves_how_it_ended(run: Path) -> None:
    RunWriter.create(run, CONFIG, ENVIRONMENT).close("finished")
    assert RunReader(run).status().state == "finished"
    with pytest.raises(ZeroDivisionError), RunWriter.open(run):
        _ = 1 / 0
    status = RunReader(run).status()
    assert status.state == "failed"
    assert status.last_event is not None
    assert "ZeroDivisionError" in status.last_event["detail"]
    assert event_names(run) == ["created", "closed", "opened", "closed"]


# Checkpoints ---------------------------------------------------------------------------------------------------------


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


def test_empty_phases_are_recorded(writer: RunWriter) -> None:
    writer.record_phase(1, 0, Period.POLICY, "update", PhaseRecords())
    assert writer.recall_phase(1, 0, Period.POLICY, "update") == PhaseRecords()
