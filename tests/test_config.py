"""Configuration: one schema, presets that combine, and refusals that name field, allowed values and nearest match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from spark_kernel.config import field_names, load_config, preset_names, validate_config
from spark_kernel.errors import InputError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_a_round_trip_through_yaml(name: str) -> None:
    config = load_config(name)
    assert validate_config(yaml.safe_load(config.to_yaml())) == config


def test_presets_combine_and_later_ones_win() -> None:
    config = load_config("quickstart+policy-only+faithful")
    assert (config.model.path, config.period.train_reward, config.recycle.minimum) == ("builtin:starter", False, 64)
    assert load_config("faithful+quickstart").learner.minibatch_sequences == 128


def test_faithful_sets_every_difference_that_the_specification_lists() -> None:
    config = load_config("faithful")
    assert not config.recycle.re_evaluation
    assert not config.recycle.balance_pointwise
    assert (config.quotas.judge, config.quotas.reflection, config.recycle.minimum) == (32, 32, 64)
    assert config.recycle.max_age is None
    assert (config.recycle.order, config.recycle.judge_view) == ("fifo", "answer")
    assert config.recycle.reflection_correct_share == 0.0
    assert (config.objective.delta, config.objective.beta, config.objective.kinds) == (1e-9, 1e-3, "pooled")
    assert not config.objective.mask_truncated
    assert not config.objective.mask_zero_variance
    assert (config.learner.minibatch_sequences, config.learner.epochs) == (64, 1)


def test_a_file_states_only_what_differs_from_its_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: quickstart+policy-only\nrounds: 7\nlearner: {learning_rate: 0.01}\n", encoding="utf-8")
    config = load_config(path, rollout__samples=4)
    base = load_config("quickstart+policy-only")
    assert (config.rounds, config.learner.learning_rate, config.rollout.samples) == (7, 0.01, 4)
    assert config.learner.schedule == base.learner.schedule
    assert config.period == base.period


def test_another_problem_source_drops_the_options_of_the_old_one() -> None:
    config = load_config({"base": "smollm2", "problems": {"source": "arithmetic"}})
    assert config.problems.options == {}


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ("quickstrat", {}, r'no preset or file "quickstrat" \(did you mean "quickstart"\?\)'),
        ("missing.yaml", {}, "no configuration file missing.yaml"),
        ("quickstart", {"rollout__sample": 3}, r'no setting "rollout.sample"; did you mean "rollout.samples"'),
        ("quickstart", {"samples": 3}, r'no setting "samples"; did you mean "rollout.samples"'),
        ("quickstart", {"rollout__samples": 0}, "rollout.samples = 0 is refused: .*greater than or equal to 1"),
        ("quickstart", {"problems__per_round": 0}, "problems.per_round = 0 is refused"),
        ("quickstart", {"rollout__engine": "vlm"}, "rollout.engine = 'vlm' is refused: .*'vllm' or 'vllm-server'"),
        ("quickstart", {"rollout__samples": 1}, "use at least 2 samples"),
        ("quickstart", {"period__train_policy": False, "period__train_reward": False}, "nothing to train"),
        ("policy-only", {"period__train_reward": True}, "switch one on"),
    ],
)
def test_bad_settings_are_refused_in_one_line(source: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(source, **overrides)
    assert "\n" not in str(caught.value)


def test_every_field_says_what_it_is() -> None:
    from pydantic import BaseModel

    from spark_kernel.config import RunConfig

    def undescribed(model: type[BaseModel], prefix: str = "") -> list[str]:
        found = []
        for name, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                found += undescribed(info.annotation, f"{prefix}{name}.")
            elif not info.description:
                found.append(prefix + name)
        return found

    assert undescribed(RunConfig) == []
    assert len(field_names()) > 60
