"""The recipe that a stranger reads first does what the trainer does: the same groups, tasks and weights."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.errors import InputError
from spark_kernel.models.policy import load_policy
from spark_kernel.records import Period
from spark_kernel.training.lifecycle import start_run
from tests.helpers.records import without_seconds
from tests.helpers.runs import tiny_config

RECIPE = Path(__file__).parents[1] / "recipes" / "spark_loop.py"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(RECIPE))


@pytest.mark.slow
def test_two_rounds_equal_the_trainers(recipe: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path, rounds=2, evaluation__every=0)
    made: dict[tuple[int, Period], tuple[Any, Any]] = {}
    with start_run(config, tmp_path / "run") as trainer:
        for round in (1, 2):
            for period in (Period.POLICY, Period.REWARD):
                groups = trainer.verify(trainer.roll_out())
                made[round, period] = (groups, trainer.recycle(groups))
                trainer.update(groups)
            trainer.report()
        weights = {name: value.clone() for name, value in trainer.parts.learner.policy.network.state_dict().items()}
        config = trainer.config
    policy = load_policy(config.model, seed=config.seed)
    halves = list(recipe["spark_loop"](config, policy))
    assert [(half.round, half.period) for half in halves] == list(made)
    for half in halves:
        groups, recycled = made[half.round, half.period]
        assert without_seconds(half.groups) == without_seconds(groups)
        assert half.recycled == recycled
    assert any(half.recycled.tasks for half in halves if half.period is Period.REWARD)
    assert policy.version == 4
    for name, value in policy.network.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"period__schedule": ("1 reward", "both")}, "period.schedule"),
        ({"period__order": "joint"}, "period.order"),
        ({"period__train_reward": False}, "period.train_reward"),
        ({"period__train_policy": False}, "period.train_policy"),
        ({"verify__flip_share": 0.1}, "verify.flip_share"),
        ({"rollout__engine": "vllm", "model__gradient_checkpointing": True}, "rollout.engine, model.gradient_check"),
    ],
)
def test_settings_that_only_a_run_follows_are_refused(
    recipe: dict[str, Any], tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    config = tiny_config(tmp_path, **settings)
    with pytest.raises(InputError, match=rf"does not follow {named}.*start_run"):
        next(recipe["spark_loop"](config, load_policy(config.model)))


def test_it_is_short_and_its_report_names_what_was_done(recipe: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path, rounds=1)
    lines = [recipe["report"](half) for half in recipe["spark_loop"](config, load_policy(config.model))]
    assert [line.splitlines()[0] for line in lines] == ["round 1, policy period", "round 1, reward period"]
    assert "solve" in lines[0]
    assert "right of" in lines[1]
    loop = RECIPE.read_text(encoding="utf-8").split("def report(")[0]
    assert len(loop.splitlines()) <= 130
