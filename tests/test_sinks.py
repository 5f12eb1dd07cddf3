"""Experiment trackers get the numbers of rounds and evaluations, read back from what each really wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from spark_kernel.errors import InputError
from spark_kernel.records import Kind, KindStats, Origin, Period, RoundReport, UpdateStats
from spark_kernel.runs.codec import to_json
from spark_kernel.training.events import Event
from workbench.reporting.metrics import evaluation_metrics, judge_accuracy, kind_accuracy, round_metrics
from workbench.reporting.sinks import Sink, open_sinks, require_sinks, sink_names

SUMMARY = {
    "problems": 4,
    "policy_version": 2,
    "lines": {
        "solve": {"accuracy": {"value": 0.25, "low": None, "high": 0.75, "n": 16}},
        "own/pointwise/answer": {"accuracy": 0.5, "one_sided": True, "calibration": {"error": 0.1, "bins": [{"n": 1}]}},
    },
    "exclusions": {"evaluation/prompt_too_long": 1},
}

LINE = KindStats(
    period=Period.REWARD,
    kind=Kind.POINTWISE,
    origin=Origin.SOLVE,
    n=30,
    groups=5,
    missing=1,
    reward_mean=0.5,
    reward_low=0.25,
    reward_high=0.75,
    accuracy=0.5,
    unparseable=0.0,
    truncated=0.0,
    length_mean=12.5,
    all_correct=0.0,
    mixed=1.0,
    all_wrong=0.0,
    zero_variance=None,
    judge={"balanced_accuracy": 0.6},
)

DRIVER = """
import sys, json
from pathlib import Path
from spark_kernel.training.events import Event
from workbench.reporting.sinks import open_sinks
name, run, events = sys.argv[1], Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
with open_sinks((name,), run, {"seed": 0, "model": {"path": "builtin:starter"}}) as (sink,):
    for event in events:
        sink(Event(event["name"], event["round"], data=event["data"]))
"""


class Recorder:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.logged.append((step, dict(numbers)))

    def close(self) -> None:
        return


UPDATE = UpdateStats(
    period=Period.POLICY,
    optimizer_steps=2,
    sequences=16,
    loss_tokens=100,
    loss=0.25,
    kl=0.0,
    entropy=1.0,
    clip_share=0.0,
    ratio_mean=1.0,
    grad_norm=0.5,
    learning_rate=1e-4,
    seconds=0.5,
    by_kind={"solve": {"loss_tokens": 100.0}},
    notes=("a remark",),
)


def report_of(round: int) -> RoundReport:
    return RoundReport(
        round=round,
        policy_version=2 * round,
        kinds=(LINE, replace(LINE, origin=Origin.REFLECTION, n=10, accuracy=1.0)),
        updates=(UPDATE,),
        seconds_by_phase={"policy/roll_out": 1.5, "policy/update": 0.25},
        recycled={"pointwise/solve": 5},
        exclusions={"recycle/not_selected": 1},
        queue_length=3 + round,
        balance_before={"Yes": 4, "No": 2},
        balance_after={"Yes": 2, "No": 2},
    )


def events() -> list[Event]:
    evaluated = Event("evaluation_finished", 0, data={"seconds": 1.0, "summary": SUMMARY})
    rounds = [Event("round_finished", number, data=to_json(report_of(number))) for number in (1, 2)]
    return [evaluated, Event("progress", 1, done=3, total=4), *rounds, Event("run_finished", 2, data={"completed": 2})]


def write_elsewhere(name: str, tmp_path: Path, **extra: str) -> Path:
    """Send the events to a tracker in a process of its own: trackers keep global state."""
    run, stored = tmp_path / "my-run", tmp_path / "events.json"
    run.mkdir()
    stored.write_text(json.dumps([{"name": e.name, "round": e.round, "data": dict(e.data)} for e in events()]))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, name, str(run), str(stored)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **extra},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return run


def test_names_are_those_the_documentation_gives() -> None:
    numbers = round_metrics(report_of(1))
    assert numbers["train/pointwise/solve/accuracy"] == 0.5
    assert numbers["train/pointwise/solve/judge/balanced_accuracy"] == 0.6
    assert "train/pointwise/solve/zero_variance" not in numbers
    assert numbers["update/policy/by_kind/solve/loss_tokens"] == 100.0
    assert numbers["seconds/policy/roll_out"] == 1.5
    assert numbers["seconds/total"] == 1.75
    assert numbers["recycled/pointwise/solve"] == 5.0
    assert numbers["balance/before/Yes"] == 4.0
    documented = (Path(__file__).parents[1] / "docs" / "reporting.md").read_text()
    for prefix in {name.split("/")[0] for name in numbers} | {"held_out"}:
        assert f"`{prefix}" in documented


def test_evaluations_are_flat_and_leave_out_what_is_undefined() -> None:
    assert evaluation_metrics(SUMMARY) == {
        "held_out/problems": 4.0,
        "held_out/policy_version": 2.0,
        "held_out/exclusions/evaluation/prompt_too_long": 1.0,
        "held_out/solve/accuracy/value": 0.25,
        "held_out/solve/accuracy/high": 0.75,
        "held_out/solve/accuracy/n": 16.0,
        "held_out/own/pointwise/answer/accuracy": 0.5,
        "held_out/own/pointwise/answer/one_sided": 1.0,
        "held_out/own/pointwise/answer/calibration/error": 0.1,
    }


def test_a_kinds_accuracy_weighs_its_origins_by_their_outputs() -> None:
    report = report_of(1)
    assert kind_accuracy(report, Kind.POINTWISE) == pytest.approx((30 * 0.5 + 10 * 1.0) / 40)
    assert judge_accuracy(report) == kind_accuracy(report, Kind.POINTWISE)
    assert kind_accuracy(report, Kind.SOLVE) is None


def test_only_rounds_and_evaluations_are_logged_by_round_and_finite() -> None:
    recorder = Recorder()
    sink = Sink(recorder)
    for event in events():
        sink(event)
    assert [step for step, _ in recorder.logged] == [0, 1, 2]
    broken = to_json(replace(report_of(3), seconds_by_phase={"policy/update": float("nan"), "policy/verify": 2.0}))
    sink(Event("round_finished", 3, data=broken))
    assert recorder.logged[-1][1]["seconds/policy/verify"] == 2.0
    assert "seconds/policy/update" not in recorder.logged[-1][1]


def test_unknown_and_absent_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sink_names("") == ()
    assert sink_names("trackio, tensorboard,trackio") == ("trackio", "tensorboard")
    with pytest.raises(InputError, match="choose from trackio, wandb, tensorboard"):
        sink_names("mlflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'wandb, which is not installed: pip install "spark-workbench\[report\]"'):
        require_sinks(("wandb",))


def test_a_folder_named_like_a_tracker_is_not_the_tracker(tmp_path: Path) -> None:
    """W&B leaves a folder `wandb` where it ran; Python takes that for a package."""
    (tmp_path / "trackerless").mkdir()
    script = (
        "import sys, importlib.util; from workbench.reporting.sinks import require_sinks\n"
        "assert importlib.util.find_spec('trackerless') is not None\n"
        "require_sinks(('trackerless',))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"},
        check=False,
    )
    assert "InputError" in done.stderr


@pytest.mark.slow
def test_tensorboard_holds_the_numbers_and_forgets_discarded_rounds(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_sinks(("tensorboard",), tmp_path, {}) as (sink,):
        for event in events():
            sink(event)
    with open_sinks(("tensorboard",), tmp_path, {}, completed=1) as (sink,):
        sink(Event("round_finished", 2, data=to_json(replace(report_of(2), queue_length=77))))
    held = EventAccumulator(str(tmp_path / "tensorboard"))
    held.Reload()
    assert [(item.step, item.value) for item in held.Scalars("queue/length")] == [
        (1, report_of(1).queue_length),
        (2, 77.0),
    ]
    assert [item.step for item in held.Scalars("held_out/solve/accuracy/value")] == [0]


@pytest.mark.slow
def test_trackio_holds_the_numbers_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    folder = tmp_path / "trackio"
    # An unreachable hub: local logging must not need it.
    write_elsewhere("trackio", tmp_path, TRACKIO_DIR=str(folder), HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    script = (
        "import json\nfrom trackio.sqlite_storage import SQLiteStorage\n"
        "print(json.dumps(SQLiteStorage.get_logs('spark-workbench', 'my-run'), default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "TRACKIO_DIR": str(folder)},
        check=True,
    )
    logs = json.loads(done.stdout.splitlines()[-1])
    by_step = {row["step"]: row for row in logs}
    assert set(by_step) == {0, 1, 2}
    assert by_step[0]["held_out/solve/accuracy/value"] == 0.25
    assert by_step[2]["train/pointwise/solve/accuracy"] == 0.5


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_offline_holds_the_numbers(tmp_path: Path) -> None:
    run = write_elsewhere("wandb", tmp_path, WANDB_MODE="offline", WANDB_DIR="", HOME=str(tmp_path))
    (stored,) = run.glob("wandb/offline-run-*/*.wandb")
    content = stored.read_bytes()
    assert b"train/pointwise/solve/accuracy" in content
    assert b"held_out/solve/accuracy/value" in content
