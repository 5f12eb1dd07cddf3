"""What a person says of samples: kept beside the run, in a file that can be mended, and held against the verifier."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.intervals import wilson
from workbench.recorded import recorded_run
from workbench.views.notes import LONGEST, RunNotes, SampleNote, agreement, key_of, notes_path


def test_notes_lie_beside_the_run_and_leave_it_alone(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    shutil.copytree(recorded_run(), run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    notes = RunNotes(run)
    assert notes.read() == {}
    notes.write(SampleNote("a", "round 3", right=True, verifier=False))
    notes.write(SampleNote("a", "evaluation 3", bookmark=True, text="look ü " + "x" * LONGEST))
    found = RunNotes(run).read()  # another notebook
    assert set(found) == {key_of("round 3", "a"), key_of("evaluation 3", "a")}
    assert found["round 3 a"].right is True
    assert found["round 3 a"].time.endswith("+00:00")
    assert len(found["evaluation 3 a"].text) == LONGEST
    notes.write(SampleNote("a", "round 3"))  # taken back
    assert set(notes.read()) == {"evaluation 3 a"}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "demo"] == ["demo.notes.json"]


def test_notes_of_the_recorded_run_are_not_part_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert notes_path(recorded_run()) == tmp_path / f"{recorded_run().name}.notes.json"


def test_agreement_counts_what_both_have_judged() -> None:
    said = [SampleNote(str(i), "round 1", right=i < 8, verifier=i < 6) for i in range(10)]
    said += [SampleNote("x", "round 1", bookmark=True), SampleNote("y", "round 1", right=True)]
    found = agreement(said)
    assert (found.n, found.same) == (10, 8)
    assert (found.low, found.high) == wilson(8, 10)
    assert found.sentence == "You and the verifier agree on 8 of 10 outputs (80%; 95 %: 49% to 94%)."
    assert "measured by you" in agreement([]).sentence


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 1, "notes": [{"id": "a"}]}'])
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, text: str) -> None:
    notes = RunNotes(tmp_path / "demo")
    notes.path.write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"demo.notes.json cannot be read as notes"):
        notes.write(SampleNote("a", "round 1", right=True))
    assert notes.path.read_text(encoding="utf-8") == text


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    notes = RunNotes(tmp_path / "demo")
    notes.path.write_text(json.dumps({"version": 2, "notes": []}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="is of version 2"):
        notes.read()
