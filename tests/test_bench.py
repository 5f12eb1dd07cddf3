"""The benchmark at toy sizes, as a user starts it: it measures equal work, prints a table and records it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workbench", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_every_row_runs_at_toy_size_and_is_recorded(tmp_path: Path) -> None:
    """Each row asserts by itself that both sides did the same work: tokens, and for updates the loss."""
    done = run_bench("--toy", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert record["toy"] is True
    assert record["versions"]["trl"] == "1.16.0"
    names = [row["name"] for row in record["rows"]]
    for kind in ("update, solver", "update, judge", "log-probability memory", "whole round", "sampling, judge"):
        assert any(name.startswith(kind) for name in names), kind
    for row in record["rows"]:
        assert row["left_out"] == ""
        assert len(row["values"]) >= 2
        assert row["name"] in done.stdout
    assert "update" not in (tmp_path / "README.md").read_text()  # toy runs are no results


@pytest.mark.slow
def test_bad_input_is_a_sentence() -> None:
    done = run_bench("--device", "cuda")
    if done.returncode == 0:
        pytest.skip("this machine has a CUDA device")
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: --device cuda: torch finds no CUDA device")
    assert run_bench("--rows", "speed").returncode == 2


def test_a_result_is_met_only_on_the_right_side_of_its_target() -> None:
    sys.path.insert(0, str(ROOT))
    from benchmarks.main import table
    from benchmarks.measuring import Row

    rows = [
        Row("fast", values={"ours": 1.0, "peer": 4.0}, ratio=4.0, target=3.0),
        Row("slow", values={"ours": 1.0, "peer": 2.0}, ratio=2.0, target=3.0),
        Row("small", values={"ours": 1.0, "peer": 4.0}, ratio=0.25, target=0.35, at_least=False),
        Row("absent", left_out="trl is not installed"),
    ]
    lines = table({"rows": [row.to_json() for row in rows]}).splitlines()[2:]
    assert [line.endswith(": met |") for line in lines] == [True, False, True, False]
    assert "trl is not installed" in lines[3]
