"""A whole experiment with real runs: side by side, killed and started again, a cell that fails, and the page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from spark_kernel.runs.layout import ROUNDS, list_numbers
from spark_kernel.runs.lock import lock_is_held
from spark_kernel.training.lifecycle import start_run
from tests.helpers.runs import fingerprint, tiny_config
from workbench.experiment.plan import load_experiment

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms that work and one whose model is nowhere, each with two seeds."""
    base = tmp_path_factory.mktemp("experiment")
    changes = {"rounds": 3, "evaluation__every": 1, "evaluation__problems": 6, "objective__beta": 0.0}
    settings = tiny_config(base, **changes).model_dump(mode="json")
    content = {
        "title": "Small <arms>",
        "settings": settings,
        "arms": {
            "policy-only": {"preset": "policy-only", "settings": {"period": {"train_reward": False}}},
            "spark": {},
            "broken": {"settings": {"model": {"path": str(base / "nowhere")}}},
        },
        "reference": "policy-only",
        "seeds": [0, 1],
    }
    for name in ("pointwise", "pairwise", "reflection", "re_evaluation"):
        content["arms"]["policy-only"]["settings"].setdefault("recycle", {})[name] = False
    path = base / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def command(file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "workbench", "experiment", str(file), "--out", str(out), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_for(what: Callable[[], bool], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def finished(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Stopped by Ctrl-C, then killed with SIGKILL, each time in the first run; then started again to its end."""
    out = tmp_path_factory.mktemp("out") / "experiment"
    run = out / "runs" / "policy-only-0"
    said = interrupted(command(file, out, "--jobs", "1"), run, signal.SIGINT)
    assert "Stopped; go on with: workbench experiment" in said
    begun = len(list_numbers(run / ROUNDS))
    assert 1 <= begun <= 3
    assert not lock_is_held(run)
    interrupted(command(file, out, "--jobs", "1"), run, signal.SIGKILL)
    wait_for(lambda: not lock_is_held(run), 60)  # no run outlives its experiment
    again = command(file, out, "--jobs", "2")
    done = subprocess.run(again, cwd=ROOT, env=environment(), capture_output=True, check=False)
    assert done.returncode == 1, done.stderr.decode()[-2000:]  # the broken arm
    return out, done.stdout.decode().splitlines()


def interrupted(start: list[str], run: Path, by: signal.Signals) -> str:
    """Start an experiment and end it by a signal while a run is under way that has a round; what it printed."""
    process = subprocess.Popen(start, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: process.poll() is not None or (bool(list_numbers(run / ROUNDS)) and lock_is_held(run)))
    assert process.poll() is None, process.communicate()[0].decode()
    os.kill(process.pid, by)
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == (130 if by is signal.SIGINT else -by), said
    return said


def test_it_goes_on_where_it_was_killed_and_its_runs_are_those_of_their_configurations(
    file: Path, finished: tuple[Path, list[str]], tmp_path: Path
) -> None:
    cell = load_experiment(str(file)).cells[0]
    assert cell.name == "policy-only-0"
    with start_run(cell.config, tmp_path / "alone") as trainer:
        trainer.train()
    assert fingerprint(finished[0] / "runs" / cell.name) == fingerprint(tmp_path / "alone")


def test_a_cell_that_fails_is_named_and_ends_no_other(finished: tuple[Path, list[str]]) -> None:
    out, lines = finished
    said = "\n".join(lines)
    for seed in (0, 1):
        assert re.search(rf"broken-{seed} failed \(exit code 2: error: .*nowhere", said)
        assert "nowhere" in (out / "logs" / f"broken-{seed}.log").read_text()
    assert "4 of 6 runs finished" in said
    results = json.loads((out / "results.json").read_text())
    outcomes = {cell["name"]: cell["outcome"] for cell in results["cells"]}
    assert outcomes == {
        f"{arm}-{seed}": "failed" if arm == "broken" else "finished"
        for arm in ("policy-only", "spark", "broken")
        for seed in (0, 1)
    }


class Words(HTMLParser):
    """Text and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_says_what_the_tables_hold(finished: tuple[Path, list[str]]) -> None:
    out, _ = finished
    page = Words()
    page.feed((out / "index.html").read_text())
    text = " ".join(" ".join(page.text).split())
    assert "Small <arms>" in text
    assert not {"script", "link", "img", "arms"} & page.tags
    assert "svg" in page.tags
    results = json.loads((out / "results.json").read_text())
    assert {row["match"] for row in results["rows"]} == {"rounds", "rollouts", "tokens", "seconds"}
    assert {row["arm"] for row in results["rows"]} == {"spark"}
    for row in results["rows"]:
        assert row["sentence"] in text
        assert row["sentence"] in (out / "report.md").read_text()
        assert row["shown"] is ("not shown by this evidence" not in row["sentence"])
    table = pq.read_table(out / "results.parquet").to_pylist()
    assert [row["difference"] for row in table] == [row["difference"] for row in results["rows"]]
    assert "broken-0 failed" in text


def test_rows_are_the_runs_own_figures_at_what_both_had_spent(finished: tuple[Path, list[str]]) -> None:
    """By hand, from the run folders: accuracy of sampled answers at equal rollouts."""
    from spark_kernel.runs.reader import RunReader

    out, _ = finished
    row = next(
        row
        for row in json.loads((out / "results.json").read_text())["rows"]
        if (row["measure"], row["match"]) == ("sampled", "rollouts")
    )
    for one in row["seeds"]:
        readers = [RunReader(out / "runs" / f"{arm}-{one['seed']}") for arm in ("policy-only", "spark")]
        spent = [
            {
                number: sum(line.n + line.missing for r in reader.reports() if r.round <= number for line in r.kinds)
                for number in reader.evaluations
            }
            for reader in readers
        ]
        common = min(max(costs.values()) for costs in spent)
        places = [max(number for number, cost in costs.items() if cost <= common) for costs in spent]
        assert places == [one["first_round"], one["second_round"]]
        assert [costs[at] for costs, at in zip(spent, places, strict=True)] == [
            one["first_spent"]["rollouts"],
            one["second_spent"]["rollouts"],
        ]
        values = [
            reader.evaluation(at)["lines"]["solve"]["accuracy"]["value"]
            for reader, at in zip(readers, places, strict=True)
        ]
        assert one["difference"]["difference"] == pytest.approx(values[1] - values[0])


def test_nothing_is_done_twice_and_other_settings_are_refused(file: Path, finished: tuple[Path, list[str]]) -> None:
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "runs" / "spark-0" / "rounds").rglob("*.parquet")}
    arms = ["--arms", "spark"]
    again = subprocess.run(command(file, out, *arms), cwd=ROOT, env=environment(), capture_output=True, check=False)
    assert again.returncode == 0, again.stderr.decode()[-2000:]
    assert b"4 of 4 cells are finished already" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = command(file, out, *arms, "--set", "recycle.max_age=3")
    refused = subprocess.run(other, cwd=ROOT, env=environment(), capture_output=True, check=False)
    assert refused.returncode == 2
    assert b"recycle.max_age = 1, now 3" in refused.stderr
