"""A run that version 0.1.0 recorded and left in mid-update: it opens, goes on to what 0.1.0 made of it, and compares.

`tests/data/recorded_0_1/README.md` says how it was recorded. Its last rounds are compared bit for bit where the
processor computes as the recording one did, which a probe of PyTorch alone decides; weights anywhere, within a
tolerance.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.reader import TABLES, RunReader
from spark_kernel.runs.schemas import EVALUATION_TABLES, ROUND_TABLES
from spark_kernel.training.lifecycle import go_back, resume_run, start_run
from tests.helpers.documented import ask, queries
from workbench.cli import main
from workbench.views import RunView, compare
from workbench.views.snapshot import run_config

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent / "data" / "recorded_0_1"
EXPECTED: Mapping[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
UNKNOWN_THEN = ("suite",)
"""Columns that 0.1.0 did not have."""
TIMES = ("seconds",)
TOLERANCE = 1e-5
"""Largest difference of a weight after one replayed round on another processor; a step moves one by about 1e-3."""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recorded run, in the folder that its relative paths mean."""
    with tarfile.open(DATA / "run.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recorded"


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    left_out = (*TIMES, *UNKNOWN_THEN)
    return [{k: v for k, v in row.items() if k not in left_out} for row in RunReader(run).table(name).to_pylist()]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@cache
def computes_as_then(model: Path) -> bool:
    """Whether loss and gradients of the recorded model have the same bits here, by PyTorch and Transformers alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        ids = torch.arange(600).reshape(6, 100) % 250
        loss = network(ids, labels=ids).loss
        loss.backward()
    finally:
        torch.set_num_threads(threads)
    found = hashlib.sha256(loss.detach().numpy().tobytes())
    for _, parameter in sorted(network.named_parameters()):
        found.update(parameter.grad.numpy().tobytes())
    return found.hexdigest() == EXPECTED["arithmetic"]


def test_it_opens_with_every_table_query_and_view(old: Path) -> None:
    reader = RunReader(old)
    assert (reader.rounds, reader.evaluations, reader.suites) == ([1, 2, 3], [0, 2], [HELD_OUT])
    assert [info.name for info in reader.checkpoints] == ["000002", "000004.in-progress"]
    assert [info.phase for info in reader.phases()] == ["roll_out", "verify", "recycle"]
    assert {name: reader.table(name).num_rows > 0 for name in TABLES} == dict.fromkeys(TABLES, True)
    assert set(reader.table("eval_tasks")["suite"].to_pylist()) == {HELD_OUT}
    assert all(isinstance(ask(reader, name), list) for name in queries())
    view = RunView(reader)
    snapshot = view.snapshot()
    assert (snapshot.state, snapshot.problem, snapshot.due) == ("stopped", "", "update (policy period)")
    assert view.rounds() == (1, 2, 3, 4)
    assert view.series().rounds == (1, 2, 3)
    for round in view.rounds():
        assert view.rollouts([round]).count >= 16
        assert view.recycled(round)
    for round in view.evaluations():
        assert view.evaluation_rollouts(round).count > 0
        assert view.self_correction(round) is not None
        assert view.judge(round, held_out=True).lines


def test_it_goes_on_to_what_0_1_made_of_it(old: Path) -> None:
    before = {name: rows(old, name) for name in (*ROUND_TABLES, *EVALUATION_TABLES)}
    with resume_run(old) as trainer:
        assert str(trainer.due) == "update (policy period)"
        trainer.train()
        assert not trainer.stopped
    after = {name: rows(old, name) for name in before}
    assert all(after[name][: len(before[name])] == before[name] for name in before)
    assert RunReader(old).rounds == [1, 2, 3, 4, 5]
    assert RunReader(old).evaluations == [0, 2, 4, 5]
    assert len(after["problems"]) == EXPECTED["rows"]["problems"]
    if not computes_as_then(old.parent / "model"):
        return
    assert {name: len(found) for name, found in after.items()} == EXPECTED["rows"]
    assert {name: digest(found) for name, found in after.items()} == EXPECTED["tables"]
    weights = load_file(old / "checkpoints" / "000005" / "model.safetensors")
    named = b"".join(name.encode() + weights[name].numpy().tobytes() for name in sorted(weights))
    assert hashlib.sha256(named).hexdigest() == EXPECTED["weights"]


def test_a_recorded_round_is_trained_on_again_from_its_checkpoint(old: Path) -> None:
    """Round 3 has no checkpoint: going back to it repeats its updates from the recorded rollouts."""
    expected = load_file(old.parent / "after_round_3.safetensors")
    start = load_file(old / "checkpoints" / "000002" / "model.safetensors")
    with go_back(old, 3) as trainer:
        found = load_file(trainer.checkpoint() / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert float((found[name] - weight).abs().max()) <= TOLERANCE
    assert max(float((found[name] - start[name]).abs().max()) for name in start) > 50 * TOLERANCE
    if computes_as_then(old.parent / "model"):
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_the_same_run_begun_today_compares_with_it_and_is_equal(old: Path) -> None:
    config = run_config(RunReader(old).config_yaml)
    new = old.parent / "new"
    with start_run(config, new) as trainer:
        trainer.train(rounds=2)
    found = compare([RunReader(old), RunReader(new)])
    assert found.names == ("recorded", "new")
    assert {row.matched_by for row in found.rows} == {"rounds", "rollouts", "optimizer steps"}
    assert found.settings == ()
    first = [row["id"] for row in rows(old, "tasks") if row["round"] == 1 and row["period"] == "policy"]
    assert [row["id"] for row in rows(new, "tasks") if row["round"] == 1 and row["period"] == "policy"] == first
    if computes_as_then(old.parent / "model"):
        differences = [row.comparison.result.difference for row in found.rows]
        assert 0.0 in differences
        assert set(differences) <= {0.0, None}
        for name in (*ROUND_TABLES, *EVALUATION_TABLES):
            assert rows(new, name) == [row for row in rows(old, name) if row["round"] <= 2]


def test_it_exports(old: Path) -> None:
    """The checkpoint in mid-update is no round's end: the export is of round 2."""
    out = old.parent / "out"
    assert main(["export", str(old), "--out", str(out)]) == 0
    weights = load_file(old / "checkpoints" / "000002" / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    card = (out / "README.md").read_text(encoding="utf-8")
    solved = RunReader(old).evaluation(2)["lines"]["solve"]["accuracy"]
    assert f"{100 * solved['value']:.1f}% [{100 * solved['low']:.1f}, {100 * solved['high']:.1f}]" in card
