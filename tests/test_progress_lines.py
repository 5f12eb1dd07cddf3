"""Without a terminal: a line of progress before long silences, in every command and also while nothing is reported."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from spark_kernel.training.events import Event
from tests.helpers.runs import tiny_config
from workbench.cli import main
from workbench.reporting import heartbeat
from workbench.reporting.heartbeat import Heartbeat
from workbench.reporting.terminal import Terminal
from workbench.reporting.waiting import Waiting


class Paper(io.StringIO):
    """Output that one thread writes and another reads."""

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


def console(paper: Paper, *, terminal: bool = False) -> Console:
    return Console(file=paper, force_terminal=terminal, width=200)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_call_that_reports_nothing_is_no_silence() -> None:
    paper = Paper()
    with Heartbeat(console(paper), 0.05) as heart:
        until(lambda: len(paper.lines()) >= 2)
        heart.at("round 3", 5, 20)
        until(lambda: any("round 3" in line for line in paper.lines()))
    assert re.fullmatch(r"\.\.\. loading, \d+ s", paper.lines()[0])
    assert any(re.fullmatch(r"\.\.\. round 3  5/20, \d+ s", line) for line in paper.lines())
    count = len(paper.lines())
    time.sleep(0.2)
    assert len(paper.lines()) == count
    assert not [thread for thread in threading.enumerate() if thread.name == "progress lines"]


def test_what_was_printed_meanwhile_puts_the_next_line_off() -> None:
    paper = Paper()
    with Heartbeat(console(paper), 0.5) as heart:
        for _ in range(20):
            time.sleep(0.05)
            heart.spoke()
    assert len(paper.lines()) <= 1  # a machine too busy to come back within half a second may say one


def test_on_a_terminal_the_bar_is_enough() -> None:
    paper = Paper()
    with Heartbeat(console(paper, terminal=True), 0.02):
        time.sleep(0.2)
    assert paper.getvalue() == ""


def test_a_run_says_which_phase_it_is_in_and_how_far() -> None:
    paper = Paper()
    with Terminal(console(paper), 0.05) as terminal:
        terminal(Event("run_started", 0, data={"rounds": 7}))
        terminal(Event("phase_started", 2, "policy", "roll_out"))
        terminal(Event("progress", 2, "policy", "roll_out", 30, 512))
        until(
            lambda: any(
                re.match(r"\.\.\. round 2/7  roll out \(policy\)  30/512, \d+ s", line) for line in paper.lines()
            )
        )
        terminal(Event("progress", 2, phase="evaluate own/pointwise/full", done=4, total=9))
        until(lambda: any("after round 2  evaluate own/pointwise/full  4/9" in line for line in paper.lines()))
        terminal(Event("progress", 0, phase="problems", done=64, total=1000))
        until(lambda: any("checking problems  64/1,000" in line for line in paper.lines()))


def test_work_before_a_run_is_no_silence_either() -> None:
    paper = Paper()
    with Waiting(console(paper), 0.05) as waiting:
        until(lambda: bool(paper.lines()))
        waiting("checking problems", 128, 1000)
        until(lambda: any("checking problems  128/1,000" in line for line in paper.lines()))
        waiting("repeating recorded updates", 3, 9)
        until(lambda: any("repeating recorded updates  3/9" in line for line in paper.lines()))


@pytest.mark.slow
def test_every_command_that_takes_time_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a silence of a hundredth of a second in place of 15, and as many problems to check as take longer."""
    monkeypatch.setattr(heartbeat, "SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path, rounds=2, evaluation__every=0, checkpoint__every=1000, checkpoint__keep=None)
    problems = [json.dumps({"question": f"What is {n}?", "gold": str(n), "id": f"q{n}"}) for n in range(4000)]
    Path(config.problems.options["path"]).write_text("\n".join(problems) + "\n")
    (tmp_path / "run.yaml").write_text(config.to_yaml())

    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("... ")]
        return "\n".join(lines)

    started = said("run", "run.yaml", "--out", "run")
    assert "... checking problems" in started
    assert "... round 1/2  roll out (policy)" in started
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.rmtree(file)
    resumed = said("resume", "run", "--rounds", "1")
    assert "... checking problems" in resumed
    assert "... repeating recorded updates" in resumed
    forked = said("fork", "run", "--round", "2", "--rounds", "3", "--out", "fork")
    assert "... checking problems" in forked
    evaluated = said("eval", "run", "--evaluation.problems", "3")
    assert "... checking problems" in evaluated
    assert "... after round 3  evaluate" in evaluated
