"""The desk with real models: the starter, checkpoints of real runs, a model with eyes; and the command that serves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image

from spark_kernel.errors import ModelError
from spark_kernel.problems.images import image_file
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.training.lifecycle import start_run
from spark_kernel.verify import VerifierPool
from tests.helpers.app_server import wait_until
from tests.helpers.runs import tiny_config
from tests.helpers.tiny_models import save_tiny_idefics3
from workbench.app.catalog import STARTERS, TRAINED, Catalog, ModelChoice
from workbench.app.desk import Ended, ModelDesk, Respondent, load_respondent
from workbench.app.examples import EXAMPLES, Example
from workbench.app.limits import LOCAL
from workbench.app.live import LiveChain, tell_all
from workbench.app.problem_draw import drawn_problem
from workbench.app.question import make_question
from workbench.app.story import ending
from workbench.cli import BAD_INPUT, main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
FIRST = "builtin:starter"
PROMPT = Prompt("t", (Message.of("user", "What is number 3?"),), ())
OUTPUTS = [[(5, 6, 7, 8), (9, 10)]]
LORA = {"model__lora__enabled": True, "model__lora__rank": 4, "learner__learning_rate": 1e-2, "objective__beta": 0.0}


def ask(choice: ModelChoice, **settings) -> LiveChain:
    desk, events = ModelDesk(load_respondent), []
    try:
        desk.ask(choice, make_question(limits=LOCAL, **settings), events.append, threading.Event())
        assert wait_until(lambda: bool(events) and isinstance(events[-1], Ended), 120)
    finally:
        desk.close()
    return tell_all(LiveChain(choice.name), events)


def test_the_starter_model_answers_judges_and_is_verified() -> None:
    chain = ask(ModelChoice(FIRST, FIRST), text="Start with 17, add 25, then subtract 8. What do you get?", gold="34")
    assert chain.state == "done"
    assert chain.steps[0].verified
    assert chain.steps[1].yes is not None
    assert 0 <= chain.steps[1].yes <= 1
    again = ask(ModelChoice(FIRST, FIRST), text="Start with 17, add 25, then subtract 8. What do you get?")
    assert [card.text for card in again.steps] == [card.text for card in chain.steps]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.question[:24])
def test_the_examples_end_as_the_page_says(example: Example) -> None:
    chain = ask(
        ModelChoice(example.model, example.model), text=example.question, gold=example.gold, verifier=example.verifier
    )
    assert str(ending(chain)).endswith(example.outcome)
    if example.trained:
        model = TRAINED[example.model]
        after = ask(ModelChoice(model, model), text=example.question, gold=example.gold, verifier=example.verifier)
        assert str(ending(after)).endswith(example.trained)


@pytest.mark.parametrize("name", STARTERS)
def test_a_problem_on_demand_is_of_the_models_own_kind_and_its_gold_is_good(name: str, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, downloaded=False)
    problems = [drawn_problem(catalog, catalog.model(name), number) for number in range(3)]
    assert len({problem.id for problem in problems}) == 3
    assert problems[0] == drawn_problem(catalog, catalog.model(name), 0)
    with VerifierPool(1, 5.0) as pool:
        assert pool.check_golds(problems) == [None, None, None]
    wanted = "integer" if name == "builtin:starter" else "property"
    assert {problem.verifier for problem in problems} == {wanted}


@pytest.mark.parametrize("settings", [{}, LORA], ids=["all weights", "adapter"])
def test_a_checkpoint_answers_with_the_weights_of_its_round(tmp_path: Path, settings: dict) -> None:
    scores = {}
    with start_run(
        tiny_config(tmp_path, evaluation__every=0, rounds=4, **settings), tmp_path / "runs" / "mine"
    ) as trainer:
        for round in (2, 4):
            trainer.train(rounds=2)
            scores[round] = trainer.parts.learner.policy.score([PROMPT], OUTPUTS)[0]
    catalog = Catalog(tmp_path / "runs", downloaded=False)
    names = [choice.name for choice in catalog.model_choices()]
    assert names == [*STARTERS, "mine, round 4", "mine, round 2"]
    found: dict[int, Respondent] = {round: load_respondent(catalog.model(f"mine, round {round}")) for round in (2, 4)}
    for round, respondent in found.items():
        (rows,) = respondent.engine.score([PROMPT], OUTPUTS)
        for row, expected in zip(rows, scores[round], strict=True):
            assert row == pytest.approx(expected, abs=1e-5)
    assert scores[2][0] != pytest.approx(scores[4][0], abs=1e-5)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    from spark_kernel.errors import RunFolderError

    with start_run(tiny_config(tmp_path, evaluation__every=0, rounds=2), tmp_path / "runs" / "mine") as trainer:
        trainer.train()
    choice = Catalog(tmp_path / "runs", downloaded=False).model("mine, round 2")
    weights = next(Path(choice.path).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"evil")
    with pytest.raises(RunFolderError):
        load_respondent(choice)


def test_a_model_with_eyes_is_shown_the_image(tmp_path: Path) -> None:
    save_tiny_idefics3(tmp_path / "eyes")
    answers = []
    for colour in ("red", "blue"):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{colour}.png")
        chain = ask(
            ModelChoice("eyes", str(tmp_path / "eyes")), text="What colour?",
            image=image_file(tmp_path / f"{colour}.png"), new_tokens=8, reflections=1,
        )  # fmt: skip
        assert chain.state == "done", chain.problem
        answers.append(chain.steps[0].step.completion.logprobs)
    assert answers[0] != answers[1]


def test_a_model_that_is_none_says_so() -> None:
    with pytest.raises(ModelError):
        load_respondent(ModelChoice("x", "./nowhere"))


def test_bad_arguments_end_with_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WORKBENCH_PASSWORD", raising=False)
    for arguments, sentence in (
        (["--address", "0.0.0.0"], "WORKBENCH_PASSWORD"),
        (["--address", "0.0.0.0", "--public"], "--hosts"),
        (["--port", "99999"], "0 to 65535"),
        (["--model", "./nowhere"], "no model"),
        (["--runs", str(ROOT / "workbench" / "recorded" / "quickstart")], "is a run itself"),
    ):
        assert main(["app", *arguments]) == BAD_INPUT
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["-m", "workbench", "app", "--port", "0"], ["app.py"]], ids=["workbench app", "app.py"]
)
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, command: list[str]) -> None:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "GRADIO_SERVER_PORT": "0", "WORKBENCH_RUNS": str(tmp_path / "runs"),
        "GRADIO_ALLOWED_PATHS": str(ROOT), "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0",
    }  # fmt: skip
    command = [str(ROOT / part) if part == "app.py" else part for part in command]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            if found:
                break
        assert found
        page = httpx.get(found[0], timeout=60)
        assert page.status_code == 200
        assert "SPARK workbench" in page.text
        # What the environment would open stays shut.
        assert httpx.get(f"{found[0]}gradio_api/file={ROOT}/README.md").status_code == 404
        assert "gradio.live" not in page.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
    assert not (tmp_path / "runs").exists()
