"""`workbench eval`: a checkpoint gets the numbers that its run recorded, a model those of the same weights in a run."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from spark_kernel.config import load_config
from spark_kernel.publish.base_model import BaseModel
from spark_kernel.publish.export import find_source, write_export
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.events import Event
from spark_kernel.training.lifecycle import fork_run, start_run
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_models import save_talkative_llama, save_tiny_idefics3
from workbench.cli import main
from workbench.reporting.terminal import Terminal

pytestmark = pytest.mark.slow


def train(folder: Path, **settings: Any) -> Path:
    """A run of two rounds, evaluated before the first and after each, with a checkpoint after each."""
    config = tiny_config(folder, rounds=2, checkpoint__every=1, evaluation__every=1, evaluation__problems=6, **settings)
    with start_run(config, folder / "run") as trainer:
        trainer.train()
    return folder / "run"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained all weights."""
    return train(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained an adapter."""
    settings = {"model__lora__enabled": True, "model__lora__rank": 4, "learner__learning_rate": 1e-2}
    return train(tmp_path_factory.mktemp("adapter"), **settings)


@pytest.fixture(autouse=True)
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command writes to the current folder lies here."""
    monkeypatch.chdir(tmp_path)


def contents(folder: Path) -> dict[str, str]:
    """Every file below with its hash."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(run: Path, round: int) -> dict[str, list[dict[str, Any]]]:
    """An evaluation's rows, without seconds."""
    found = {}
    for name in ("eval_problems", "eval_tasks", "eval_rollouts", "eval_exclusions"):
        table = RunReader(run).table(name, [round])
        found[name] = [{key: value for key, value in row.items() if key != "seconds"} for row in table.to_pylist()]
    return found


@pytest.mark.parametrize("name", ["full", "adapter"])
def test_a_checkpoint_gets_the_numbers_that_its_run_recorded(
    request: pytest.FixtureRequest, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: Path = request.getfixturevalue(name)
    before = contents(trained)
    recorded = RunReader(trained)
    assert recorded.evaluations == [0, 1, 2]
    assert recorded.evaluation(2)["lines"] != recorded.evaluation(0)["lines"]
    for round in recorded.evaluations:
        out = tmp_path / f"after-{round}"
        assert main(["eval", str(trained), "--round", str(round), "--out", str(out)]) == 0
        found = RunReader(out)
        assert found.evaluation(round) == recorded.evaluation(round)
        assert any(name.startswith("frozen/") for name in found.evaluation(round)["lines"]) == (round > 0)
        assert rows(out, round) == rows(trained, round)
        assert yaml.safe_load(found.config_yaml) == yaml.safe_load(recorded.config_yaml)
        assert found.environment["packages"] == recorded.environment["packages"]
        assert (found.info.name, found.evaluations, found.rounds) == (out.name, [round], [])
        assert found.info.parent is not None
        assert (found.info.parent.run, found.info.parent.round) == ("run", round)
        assert found.status().state is RunState.FINISHED
        solved = found.evaluation(round)["lines"]["solve"]["accuracy"]
        said = capsys.readouterr().out
        row = next(line for line in said.splitlines() if "Accuracy, sampled" in line)
        assert f"{100 * solved['value']:.1f}% [{100 * solved['low']:.1f}, {100 * solved['high']:.1f}]" in row
        assert f"{len(rows(out, round)['eval_rollouts'])} outputs in " in said
    assert contents(trained) == before


def test_a_run_that_is_being_written_is_evaluated_at_its_newest_sound_checkpoint(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(full, run)
    with (run / "checkpoints/000002/model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff\xff")
    with RunWriter.open(run):
        before = contents(run)
        assert main(["eval", str(run), "--out", "found"]) == 0
        assert contents(run) == before
    assert RunReader("found").evaluation(1) == RunReader(full).evaluation(1)
    said = capsys.readouterr().out
    assert said.startswith(f"Checkpoint 000001 of {run}: ")
    assert "model.safetensors" in said
    assert "An older one is taken." in said
    assert main(["compare", "found", str(full)]) == 0
    assert "found has the weights of run after round 1, and no rounds of its own.\n" in capsys.readouterr().out


def test_an_exported_model_stands_beside_its_run_on_the_same_problems(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_export(find_source(full, 2), BaseModel("model", "model", False), tmp_path / "exported", "A card.\n")
    settings = str(full / "config.yaml")
    assert main(["eval", "exported", "--preset", settings, "--out", "found"]) == 0
    said = capsys.readouterr().out
    assert "exported, 6 problems" in said
    assert "before training" not in said
    expected = {k: v for k, v in RunReader(full).evaluation(2)["lines"].items() if not k.startswith("frozen/")}
    assert RunReader("found").evaluation(0)["lines"] == expected
    base = str(full.parent / "model")
    assert main(["eval", base, "--preset", settings, "--out", "base"]) == 0
    assert RunReader("base").evaluation(0)["lines"] == RunReader(full).evaluation(0)["lines"]
    capsys.readouterr()
    assert main(["compare", "base", "found"]) == 0
    said = capsys.readouterr().out
    assert "Two evaluations without training to match by: base after round 0, found after round 0\n" in said
    assert said.count("base after round 0") == said.count("accuracy, greedy:") == 1
    assert main(["show", "found"]) == 0


def test_the_starter_model_gets_what_the_quickstart_records_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--evaluation.problems", "5", "--evaluation.samples", "2", "--seed", "3", "--threads", "1"]
    RunWriter.create(tmp_path / "another", "", {}).close()  # beside runs, too, the name of a model is one
    assert main(["eval", "builtin:starter-2", *flags, "--out", "found"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "builtin:starter-2, 5 problems" in said.out
    assert "\x1b" not in said.out
    config = load_config("quickstart", evaluation__problems=5, evaluation__samples=2, seed=3, threads=1)
    with start_run(config, tmp_path / "run") as trainer:
        summary = trainer.evaluate().summary
    assert RunReader(tmp_path / "found").evaluation(0) == json.loads(json.dumps(summary))


def test_settings_can_be_given_and_what_of_the_pool_is_not_evaluated_is_left_out(
    full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--evaluation.problems", "2", "--evaluation.samples", "3", "--rollout.max_new_tokens=20"]
    assert main(["eval", str(full), "--out", "found", *flags]) == 0
    found = RunReader("found")
    assert "of the first evaluation: the others are not evaluated." in " ".join(capsys.readouterr().out.split())
    assert len(rows(Path("found"), 2)["eval_problems"]) == 2
    assert found.evaluation(2)["lines"]["solve"]["accuracy"]["n"] == 6
    evaluated = {row["id"] for row in rows(Path("found"), 2)["eval_problems"]}
    frozen = [row for row in rows(Path("found"), 2)["eval_tasks"] if row["part"].startswith("frozen/")]
    assert frozen
    assert {row["problem_id"] for row in frozen} <= evaluated
    config = yaml.safe_load(found.config_yaml)
    assert (config["evaluation"]["samples"], config["rollout"]["max_new_tokens"]) == (3, 20)


def test_a_preset_that_trains_an_adapter_and_more_problems_than_there_are_evaluates_a_plain_model(
    tmp_path: Path,
) -> None:
    own = tiny_config(tmp_path / "made", model__lora__enabled=True, problems__per_round=30, evaluation__problems=2)
    (tmp_path / "own.yaml").write_text(own.model_copy(update={"rounds": 1}).to_yaml(), encoding="utf-8")
    many = tmp_path / "many.yaml"
    many.write_text("base: own.yaml\nproblems: {per_round: 1000}\n", encoding="utf-8")
    other = save_talkative_llama(tmp_path / "other", seed=5)
    assert main(["eval", str(other), "--preset", "many.yaml", "--out", "found"]) == 0
    config = yaml.safe_load(RunReader("found").config_yaml)
    assert (config["model"]["path"], config["model"]["lora"]["enabled"]) == (str(other), False)


def complaints(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command says."""
    assert main(["eval", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (lambda run: [str(run.parent / "nothing")], "There is no run at"),
        (lambda _: ["nowhere"], 'There is no run at nowhere. There is no model "nowhere"'),
        (lambda _: ["."], "holds no config.json"),
        (lambda run: [str(run), "--round", "7"], "no checkpoint after round 7; rounds with a checkpoint: 1, 2"),
        (lambda run: [str(run), "--preset", "quickstart"], "--preset goes with a model"),
        (lambda _: ["builtin:starter", "--round", "1"], "--round goes with a run's folder"),
        (lambda _: ["builtin:starter", "--preset", "quickstrat"], 'did you mean "quickstart"?'),
        (lambda _: ["builtin:starter", "--preset", "nowhere.yaml"], "There is no configuration file nowhere.yaml"),
        (lambda run: [str(run), "--out", str(run / "found")], "lies in the run's own folder"),
        (lambda run: [str(run), "--out", str(run.parent / "model")], "is not empty and is never overwritten"),
        (lambda run: [str(run), "--learner.epochs", "2"], "--learner.epochs has no part in this command"),
        (lambda run: [str(run), "--objective.kind_weights.solve", "2"], "objective have no part in an evaluation"),
        (lambda run: [str(run), "--evaluation.sample", "2"], "did you mean --evaluation.samples?"),
        (lambda run: [str(run), "--evaluation.samples", "0"], "evaluation.samples = 0 is refused"),
        (lambda run: [str(run), "--model.revision", "other"], "belong to its own model"),
        (
            lambda run: [
                str(run.parent / "model"), "--preset", str(run / "config.yaml"), "--problems.held_out_fraction", "1e-6"
            ],
            "No problem is held out",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_nothing_is_written(
    full: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path], list[str]],
    said: str,
) -> None:
    before = contents(full)
    given = arguments(full)
    out = [] if "--out" in given else ["--out", str(tmp_path / "found")]
    assert said in complaints([*given, *out], capsys)
    assert list(tmp_path.iterdir()) == []
    assert contents(full) == before


def test_a_run_without_a_checkpoint_has_its_initial_model_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path / "made", evaluation__every=0, evaluation__problems=2)
    start_run(config, tmp_path / "run").close()
    assert "no checkpoint of a finished round yet: --round 0" in complaints(["run"], capsys)
    assert main(["eval", "run", "--round", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Initial model of run, ")
    assert "before training, 2 problems" in said


def test_the_servers_of_a_run_are_left_alone(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(full, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["rollout"] |= {"engine": "vllm-server"}
    config["rollout"]["server"]["urls"] = ["http://127.0.0.1:9"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "whose weights an evaluation would replace" in complaints(["run"], capsys)
    assert main(["eval", "run", "--rollout.engine", "transformers", "--evaluation.problems", "2"]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_130_and_nothing_is_written(
    full: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    seen: list[str] = []

    def interrupt(_self: Terminal, event: Any) -> None:
        seen.append(event.phase)
        if seen.count("evaluate solve") == 1:
            signal.raise_signal(number)

    monkeypatch.setattr(Terminal, "__call__", interrupt)
    assert main(["eval", str(full), "--out", str(tmp_path / "found")]) == 130
    assert "Stopped: nothing was written." in capsys.readouterr().out
    assert set(seen) == {"problems", "evaluate solve"}
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_held_in_memory_is_refused_before_it_is_loaded(
    full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spark_kernel.models.memory.free_bytes", lambda _device: 1000)
    line = complaints([str(full), "--round", "1"], capsys)
    assert "needs at least" in line
    assert "set model.dtype = bfloat16, or choose a smaller model" in line


def test_a_fork_is_evaluated_with_the_pool_it_inherited(full: Path, tmp_path: Path) -> None:
    with fork_run(full, 1, tmp_path / "fork", {"learner": {"learning_rate": 3e-3}}) as trainer:
        trainer.train(1)
    recorded = RunReader("fork")
    for round in (1, 2):
        assert main(["eval", "fork", "--round", str(round), "--out", f"after-{round}"]) == 0
        assert RunReader(f"after-{round}").evaluation(round) == recorded.evaluation(round)
        assert any(name.startswith("frozen/") for name in recorded.evaluation(round)["lines"])
    assert main(["eval", "fork", "--round", "0"]) == 2


def test_images_come_along(tmp_path: Path) -> None:
    lines = []
    for index in range(8):
        Image.new("RGB", (24, 16 + index), (30 * index, 80, 120)).save(tmp_path / f"{index}.png")
        lines.append({"question": "How bright?", "gold": str(index), "images": [f"{index}.png"]})
    (tmp_path / "problems.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    model = save_tiny_idefics3(tmp_path / "model")
    columns = "{question: question, gold: gold, images: images}"
    flags = ["--problems.source", "files", "--problems.options.path", str(tmp_path / "problems.jsonl")]
    flags += ["--problems.options.columns", columns, "--problems.options.verifier", "integer"]
    flags += ["--problems.held_out_fraction", "0.5", "--evaluation.samples", "1", "--rollout.max_new_tokens", "4"]
    flags += ["--evaluation.problems", "2", "--evaluation.reflections", "1", "--rollout.batch_size", "8"]
    flags += ["--rollout.verdict_max_new_tokens", "4", "--rollout.max_prompt_tokens", "1800"]
    assert main(["eval", str(model), "--out", "found", *flags]) == 0
    reader = RunReader("found")
    problems = reader.read_evaluation(0).problems
    assert 0 < len(problems) < 8
    for problem in problems:
        (image,) = problem.images
        assert reader.image_path(image).read_bytes() == (tmp_path / f"{problem.gold}.png").read_bytes()


@pytest.mark.parametrize(("data", "shown"), [({"of": "my model"}, "my model"), ({}, "after round 3")])
def test_a_terminal_shows_which_line_of_which_model_is_asked(data: dict[str, str], shown: str) -> None:
    out = io.StringIO()
    with Terminal(Console(file=out, force_terminal=True, width=100)) as terminal:
        terminal(Event("progress", 3, phase="evaluate solve", done=7, data=data))
    assert f"{shown}  evaluate solve" in out.getvalue()


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([Event("progress", 3, phase="evaluate solve", done=7, total=48)], "7/48"),
        ([Event("progress", 3, phase="evaluate loop", done=5)], "5/?"),
        ([Event("phase_started", 4, period="policy", phase="roll_out")], "0/?"),
    ],
)
def test_the_bar_has_the_lines_own_total_and_none_where_that_is_not_known(events: list[Event], shown: str) -> None:
    out = io.StringIO()
    with Terminal(Console(file=out, force_terminal=True, width=100)) as terminal:
        terminal(Event("progress", 3, phase="evaluate reflection", done=30, total=30))
        for event in events:
            terminal(event)
    last = out.getvalue()[-300:]
    assert shown in last
