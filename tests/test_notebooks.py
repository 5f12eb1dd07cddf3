"""Every notebook from top to bottom on small settings; asserted is the run folder it leaves, never its outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState
from tests.helpers.notebooks import NOTEBOOKS, run_notebook
from workbench.recorded import recorded_run

pytestmark = pytest.mark.slow

TESTED = {
    "01_a_first_run",
    "02_one_round_by_hand",
    "03_what_gets_recycled",
    "04_self_reflection",
    "05_which_objective_does_what",
    "07_your_own_problems",
    "08_a_real_model",
}


def finished(run: Path, rounds: int) -> RunReader:
    """A run that was closed in order after so many rounds."""
    reader = RunReader(run)
    assert reader.rounds == list(range(1, rounds + 1))
    assert reader.status().state is RunState.FINISHED
    assert reader.phases() == []
    return reader


def count(reader: RunReader, table: str, where: str = "true") -> int:
    return int(reader.query(f"SELECT count(*) AS n FROM {table} WHERE {where}").to_pylist()[0]["n"])


def test_every_notebook_is_run_here() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == TESTED


def test_01_leaves_a_run_with_evaluations_before_and_after(tmp_path: Path) -> None:
    run_notebook("01_a_first_run", tmp_path, run="run", rounds=1, problems=4, held_out=4)
    reader = finished(tmp_path / "run", 1)
    assert reader.evaluations == [0, 1]
    assert count(reader, "rollouts", "period = 'policy'") == 4 * 8
    # Only looked at: the recorded run is as it was.
    assert not (recorded_run() / "lock").exists()
    assert not (recorded_run() / ".tmp").exists()


def test_02_leaves_the_rounds_it_steps_through(tmp_path: Path) -> None:
    run_notebook("02_one_round_by_hand", tmp_path, run="run", problems=6, samples=4)
    reader = finished(tmp_path / "run", 2)
    # The first round was called phase by phase, the second one in one go: both are recorded alike.
    for round in (1, 2):
        assert count(reader, "rollouts", f"round = {round} AND period = 'policy'") == 6 * 4
        assert count(reader, "rollouts", f"round = {round} AND period = 'reward' AND reward IS NOT NULL") > 0
        assert [str(update.period) for update in reader.report(round).updates] == ["policy", "reward"]
    done = [event for event in reader.events() if event["event"] == "phase_finished" and event["round"] == 1]
    assert [(event["period"], event["phase"]) for event in done[:8]] == [
        (period, phase) for period in ("policy", "reward") for phase in ("roll_out", "verify", "recycle", "update")
    ]


def test_03_leaves_a_run_whose_account_adds_up(tmp_path: Path) -> None:
    run_notebook("03_what_gets_recycled", tmp_path, run="run", rounds=2, problems=8)
    reader = finished(tmp_path / "run", 2)
    for round in (1, 2):
        tasks = count(reader, "recycled", f"round = {round} AND origin = 'solve'")
        lost = count(reader, "exclusions", f"round = {round} AND stage = 'recycle' AND kind IS NOT NULL")
        again = count(reader, "recycled", f"round = {round} AND origin = 'reflection'")
        reflections = count(reader, "tasks", f"round = {round} AND kind = 'reflection' AND origin = 'solve'")
        assert tasks + again + lost == 2 * 8 + 2 * reflections


def test_04_leaves_an_evaluation_with_the_loops_chains(tmp_path: Path) -> None:
    run_notebook("04_self_reflection", tmp_path, run="run", problems=8, reflections=1, samples=2)
    reader = RunReader(tmp_path / "run")
    assert reader.evaluations == [0]
    assert reader.rounds == []
    loop = reader.evaluation(0)["lines"]["loop"]
    assert sum(loop["transitions"].values()) == 8
    assert count(reader, "eval_rollouts", "part = 'loop/solve'") == 8
    assert count(reader, "eval_rollouts", "part = 'solve'") == 8 * 2


def test_05_leaves_four_arms_that_sampled_about_as_much_and_a_page(tmp_path: Path) -> None:
    arms = ["policy-only", "reward-only", "policy-and-reward", "spark"]
    settings = {
        "rounds": 1,
        "problems": {"per_round": 8},
        "rollout": {"samples": 4},
        "recycle": {"judge_quota": 6, "reflection_quota": 2},
        "evaluation": {"every": 1, "problems": 5, "samples": 2},
    }
    run_notebook("05_which_objective_does_what", tmp_path, folder="arms", settings=settings, jobs=1)
    readers = {arm: RunReader(tmp_path / "arms" / "runs" / f"{arm}-0") for arm in arms}
    costs = {arm: count(reader, "rollouts") for arm, reader in readers.items()}
    assert costs["policy-only"] == 2 * 8 * 4
    assert all(0.6 * 64 <= cost <= 64 for cost in costs.values()), costs
    problems = [sorted(reader.table("eval_problems", [0])["id"].to_pylist()) for reader in readers.values()]
    assert problems == [problems[0]] * 4
    assert len(problems[0]) == 5
    periods = {
        arm: {str(update.period) for report in reader.reports() for update in report.updates}
        for arm, reader in readers.items()
    }
    assert periods["policy-only"] == {"policy"}
    assert periods["reward-only"] == {"reward"}
    assert periods["spark"] == periods["policy-and-reward"] == {"policy", "reward"}
    assert "not shown by this evidence" in (tmp_path / "arms" / "index.html").read_text()


def test_07_leaves_a_run_of_its_own_problems_verifier_and_model(tmp_path: Path) -> None:
    run_notebook("07_your_own_problems", tmp_path, folder="own", count=60, per_round=6, rounds=1)
    reader = finished(tmp_path / "own" / "run", 1)
    assert not (tmp_path / "own" / "never" / "run.json").exists()
    config = yaml.safe_load(reader.config_yaml)
    assert Path(config["model"]["path"]).name == "model"
    problems = reader.table("problems").to_pylist()
    assert len(problems) == 6
    assert {problem["verifier"] for problem in problems} == {"shop_verifier:NearlyRight"}
    assert all(problem["id"].startswith("sum-") for problem in problems)
    # The rewards are the class's own: only what is right counts as correct, and a miss by one earns a fifth.
    rows = reader.query(
        "SELECT r.reward, r.correct, r.answer, p.gold FROM rollouts r JOIN problems p "
        "ON p.id = r.problem_id AND p.round = r.round WHERE r.kind = 'solve' AND r.parse = 'ok'"
    ).to_pylist()
    assert rows
    for row in rows:
        distance = abs(int(row["answer"]) - int(row["gold"]))
        assert row["reward"] == {0: 1.0, 1: 0.2}.get(distance, 0.0)
        assert row["correct"] == (distance == 0)


def test_08_leaves_an_adapter(tmp_path: Path) -> None:
    run_notebook(
        "08_a_real_model", tmp_path, run="run", model="builtin:starter", engine="transformers", rounds=1, problems=4
    )
    reader = finished(tmp_path / "run", 1)
    config = yaml.safe_load(reader.config_yaml)
    assert config["model"]["lora"]["enabled"]
    folder = reader.checkpoints[-1].path
    assert (folder / "adapter_config.json").is_file()
    assert not (folder / "model.safetensors").exists()
