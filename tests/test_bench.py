"""The benchmark at toy sizes, as a user starts it: it measures equal work, prints a table and records it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import workbench

ROOT = Path(__file__).resolve().parents[1]
VLLM_ROWS = ("our vLLM engine, solver", "our vLLM engine, judge", "weight sync, bytes", "weight sync, time")


def vllm_works() -> bool:
    from spark_kernel.errors import InputError
    from spark_kernel.rollout.vllm_install import check_vllm

    try:
        check_vllm()
    except InputError:
        return False
    return True


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
    kinds = ("update, solver", "update, judge", "log-probability memory", "whole round", "sampling, judge")
    for kind in (*kinds, *(VLLM_ROWS if vllm_works() else ("vLLM engine and weight sync",))):
        assert any(name.startswith(kind) for name in names), kind
    for row in record["rows"]:
        if row["name"] == "vLLM engine and weight sync":
            assert "vLLM" in row["left_out"]  # the sentence that says why, and how to get it
            continue
        assert row["left_out"] == ""
        if row["name"].startswith("update"):
            assert 0 < row["flops_utilisation"] < 1
        if row["name"].startswith(kinds) and row["unit"] == "s":
            assert row["tokens_per_second"] > 0
        assert row["peak_mib"] == {}  # of a GPU
        assert len(row["values"]) >= 2
        assert row["name"] in done.stdout
    moved = {row["name"]: row["values"] for row in record["rows"]}.get("weight sync, bytes moved")
    if moved:
        assert moved["adapter alone"] < moved["adapter merged"] == moved["full weights"]
    assert record["not_reached"] == []
    assert "update" not in (tmp_path / "README.md").read_text()  # toy runs are no results


@pytest.mark.slow
def test_bad_input_is_a_sentence() -> None:
    both = workbench("bench", "--device", "cuda", "--clock", "cpu", cwd=ROOT)
    assert both.returncode == 2
    assert "--clock cpu measures work on the CPU only" in both.stderr
    assert workbench("bench", "--rows", "speed", cwd=ROOT).returncode == 2
    done = workbench("bench", "--device", "cuda", cwd=ROOT)
    if done.returncode == 0:
        pytest.skip("this machine has a CUDA device")
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: --device cuda: torch finds no CUDA device")


def test_outside_a_checkout_the_command_says_where_the_benchmark_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where some other package called `benchmarks` lies beside the installed one."""
    from workbench import checkout
    from workbench.cli import main

    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    (tmp_path / "benchmarks" / "main.py").write_text("raise SystemExit('another benchmark was run')")
    monkeypatch.setattr(checkout, "PLACE", tmp_path)
    assert main(["bench", "--toy"]) == 2
    said = capsys.readouterr().err
    assert "source checkout" in said
    assert "make bench" in said
    assert said.count("\n") == 1


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
    assert [": met |" in line for line in lines] == [True, False, True, False]
    assert "trl is not installed" in lines[3]


def test_results_say_what_else_ran_and_what_was_not_reached(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from benchmarks.main import overview

    record = {
        "date": "2026-01-02T03:04:05Z",
        "toy": False,
        "device": "cpu",
        "cpu": {"model": "a processor", "usable_cores": 2},
        "memory_bytes": 2**34,
        "threads": 2,
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "commit": "0123456789abcdef",
        "seconds": 12.0,
        "rows": [],
    }
    (tmp_path / "one.json").write_text(json.dumps(record | {"load": [9.0, 8.5], "not_reached": ["round", "vllm"]}))
    text = overview(tmp_path)
    assert "load average 9.0 at the start and 8.5 at the end: other work ran beside it" in text
    assert "stopped before round, vllm" in text
    (tmp_path / "one.json").write_text(json.dumps(record | {"load": [0.3, 2.1], "not_reached": []}))
    text = overview(tmp_path)
    assert "other work" not in text
    assert "stopped" not in text


def test_a_gpus_columns_are_filled_from_the_row() -> None:
    sys.path.insert(0, str(ROOT))
    from benchmarks.main import table
    from benchmarks.measuring import Timing, timed_row

    timings = {
        "ours": Timing("ours", (0.5, 0.25, 1.0), 3 << 30),
        "TRL": Timing("TRL", (4.0, 2.0, 1.0), 9 << 30),
        "TRL, all rows": Timing("TRL, all rows", (8.0,)),
    }
    row = timed_row("update", timings, target=3.0, tokens=1000, flops_utilisation=0.4213)
    assert (row.ratio, row.tokens_per_second) == (4.0, 2000)
    head, _, line = table({"rows": [row.to_json()]}).splitlines()
    assert head.endswith("| target | tokens/s | FLOPs utilisation | peak memory |")
    assert line.endswith("| at least 3: met | 2,000 | 42 % | ours 3,072 MiB; TRL 9,216 MiB |")
    assert line.count("|") == head.count("|")
