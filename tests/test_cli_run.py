"""A run from the command line, end to end, with a tiny random model: real processes, real signals, real folders."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from spark_kernel.config import RunConfig, load_config
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState
from tests.helpers.cli import COMMAND, TIMEOUT, environment, tiny_flags, workbench
from tests.helpers.tiny_models import save_tiny_llama

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, str]:
    """A run of two rounds, and what it said."""
    run = tmp_path_factory.mktemp("runs") / "first"
    done = workbench(
        "run", "quickstart", "--rounds", "2", "--out", run, "--report-to", "tensorboard", *tiny_flags(model)
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return run, done.stdout


def test_a_run_says_a_line_per_round_and_ends_with_a_report(finished: tuple[Path, str]) -> None:
    run, said = finished
    lines = said.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["1/2", "2/2"]
    assert [line.split()[3] for line in lines if line.startswith("held-out after round")] == ["0", "2"]
    assert "before training, 4 problems" in said
    assert "after round 2, 4 problems" in said
    assert "policy/roll_out" in said
    assert f"workbench show {run} --round K" in said
    assert "\x1b" not in said


def test_the_report_shows_the_numbers_of_the_run_folder(finished: tuple[Path, str]) -> None:
    run, said = finished
    solved = RunReader(run).evaluation(2)["lines"]["solve"]["accuracy"]
    row = next(line for line in said.splitlines() if "Accuracy, sampled" in line)
    assert f"{100 * solved['value']:.1f}%" in row
    assert f"[{100 * solved['low']:.1f}, {100 * solved['high']:.1f}]" in row
    assert f"n {solved['n']}" in row


def test_flags_decide_and_the_preset_fills_in(finished: tuple[Path, str]) -> None:
    config = read_config(finished[0])
    preset = load_config("quickstart")
    assert (config.rounds, config.rollout.samples, config.threads) == (2, 4, 1)
    assert config.learner == preset.learner
    assert config.recycle == preset.recycle


def test_list_show_and_compare_read_the_run(finished: tuple[Path, str]) -> None:
    run, said = finished
    listed = workbench("list", run.parent)
    assert listed.returncode == 0
    assert "first" in listed.stdout
    assert "finished" in listed.stdout
    shown = workbench("show", run)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[-5:] == said.splitlines()[-5:]
    report = RunReader(run).report(2)
    round_2 = workbench("show", run, "--round", "2").stdout
    assert f"Tasks waiting: {report.queue_length}" in round_2
    for name, count in report.exclusions.items():
        assert f"{name} {count}" in round_2
    missing = workbench("show", run, "--round", "7")
    assert missing.returncode == 1
    assert "no finished round 7" in missing.stderr
    compared = workbench("compare", run, run)
    assert compared.returncode == 0, compared.stderr
    assert "Not enough evidence" in compared.stdout
    assert "is better than" not in compared.stdout


def test_tensorboard_holds_the_same_numbers(finished: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = finished
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for report in RunReader(run).reports():
        solve = next(line for line in report.kinds if line.kind == "solve")
        found = {item.step: item.value for item in events.Scalars("train/solve/problem/length_mean")}
        assert found[report.round] == pytest.approx(solve.length_mean)
    assert [item.step for item in events.Scalars("held_out/solve/accuracy/value")] == [0, 2]


def test_a_finished_run_goes_on_back_and_forks(tmp_path: Path, model: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    flags = [*tiny_flags(model), "--evaluation.every", "0"]
    assert workbench("run", "quickstart", "--rounds", "2", "--out", run, *flags).returncode == 0
    again = workbench("run", "quickstart", "--out", run, *flags)
    assert again.returncode == 2
    assert "holds a run already" in again.stderr
    more = workbench("resume", run, "--rounds", "1")
    assert more.returncode == 0, more.stderr
    assert RunReader(run).rounds == [1, 2, 3]
    forked = workbench("fork", run, "--round", "1", "--out", other, "--rounds", "2", "--rollout.samples", "3")
    assert forked.returncode == 0, forked.stderr
    reader = RunReader(other)
    assert reader.rounds == [2]
    assert read_config(other).rollout.samples == 3
    assert reader.info.parent is not None
    assert (reader.info.parent.run, reader.info.parent.round) == ("run", 1)
    back = workbench("back", run, "--round", "1")
    assert back.returncode == 0, back.stderr
    assert RunReader(run).rounds == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_checkpoints_and_is_exit_code_130(tmp_path: Path, model: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    flags = [*tiny_flags(model), "--evaluation.every", "0", "--rounds", "40", "--checkpoint.every", "1000"]
    process = subprocess.Popen(
        [*COMMAND, "run", "quickstart", "--out", str(run), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round "):
            break
    process.send_signal(number)
    said, complained = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "Stopping after this micro-batch" in complained
    assert f"workbench resume {run}" in said
    reader = RunReader(run)
    assert reader.status().state is RunState.STOPPED
    assert 1 <= len(reader.rounds) < 40
    assert len(reader.checkpoints) == 1
    resumed = workbench("resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert RunReader(run).rounds == list(range(1, 41))
    assert RunReader(run).status().state is RunState.FINISHED


def test_reflect_prints_every_step(model: Path) -> None:
    asked = workbench(
        "reflect", "--model", model, "--prompt", "What is 2 + 3?", "--reflections", "1", "--max_new_tokens", "8"
    )
    assert asked.returncode == 0, asked.stderr
    # The random model never writes a box: nothing to judge, so one reflection, and the first response stays.
    steps = [line for line in asked.stdout.splitlines() if line.startswith("--- step")]
    assert [step.split()[3] for step in steps] == ["Answer,", "Reflection"]
    assert "This answer was never judged." in asked.stdout
    assert "Self-judged, not verified. 2 steps" in asked.stdout


def test_reflect_with_the_starter_model_judges_and_verifies() -> None:
    arguments = ["reflect", "--prompt", "What is 7 plus 5?", "--gold", "12", "--verifier", "integer", "--seed", "1"]
    asked = workbench(*arguments)
    assert asked.returncode == 0, asked.stderr
    assert "--- step 2: Judgement (about step 1)" in asked.stdout
    assert "[verdict: " in asked.stdout or "[no verdict could be read" in asked.stdout
    assert "First answer, by the verifier integer:" in asked.stdout
    assert workbench(*arguments).stdout.splitlines()[:-3] == asked.stdout.splitlines()[:-3]


@pytest.mark.parametrize("method", ["vote", "weighted"])
def test_reflect_chooses_among_samples(method: str) -> None:
    asked = workbench("reflect", "--prompt", "17 + 25", "--method", method, "--samples", "3", "--gold", "42")
    assert asked.returncode == 0, asked.stderr
    lines = asked.stdout.splitlines()
    samples = [line for line in lines if line.startswith("sample ")]
    assert [line.split(":")[0] for line in samples] == ["sample 1", "sample 2", "sample 3"]
    assert any("verdict" in line for line in samples) == (method != "vote")
    final = next(line for line in lines if line.startswith("Final answer: "))
    chosen = final.removeprefix("Final answer: ").split(",")[0]
    assert any(line.split(": ", 1)[1].split(" ")[0].rstrip(",") == chosen for line in samples)
    assert any(line.startswith("Final answer, by the verifier math: ") for line in lines)


def test_reflect_takes_the_policy_of_a_run(finished: tuple[Path, str]) -> None:
    asked = workbench("reflect", "--model", finished[0], "--round", "2", "--prompt", "2 + 2", "--max_new_tokens", "4")
    assert asked.returncode == 0, asked.stderr
    assert "Checkpoint 000002" in asked.stdout
    absent = workbench("reflect", "--model", finished[0], "--round", "1", "--prompt", "2 + 2")
    assert absent.returncode == 1
    assert "rounds with a checkpoint: 2" in absent.stderr


def test_the_configuration_file_of_a_run_starts_the_same_run(tmp_path: Path, finished: tuple[Path, str]) -> None:
    run, _ = finished
    other = tmp_path / "again"
    assert workbench("run", run / "config.yaml", "--out", other).returncode == 0
    assert RunConfig.model_validate(read_config(other).model_dump()) == read_config(run)
    assert [r.kinds for r in RunReader(other).reports()] == [r.kinds for r in RunReader(run).reports()]
