"""Configuration: one schema, presets that combine, and refusals that name field, allowed values and nearest match."""

from __future__ import annotations

import re
from importlib import resources
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
    assert (config.model.path, config.period.train_reward, config.recycle.minimum) == ("builtin:starter-2", False, 64)
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


def _settings(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names and values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _settings(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return found


@pytest.mark.parametrize("below", preset_names())
def test_faithful_is_faithful_whatever_lies_below(below: str) -> None:
    text = (resources.files("spark_kernel.config") / "presets" / "faithful.yaml").read_text(encoding="utf-8")
    fixed = _settings(yaml.safe_load(text))
    alone = _settings(load_config("faithful").model_dump(mode="json"))
    combined = _settings(load_config(f"{below}+faithful").model_dump(mode="json"))
    assert {name: combined[name] for name in fixed} == {name: alone[name] for name in fixed}
    assert {name: alone[name] for name in fixed} == fixed


def test_faithful_states_every_setting_that_is_no_size_no_arm_and_no_machinery() -> None:
    """Whoever adds a setting to these sections must say what the authors' code does."""
    text = (resources.files("spark_kernel.config") / "presets" / "faithful.yaml").read_text(encoding="utf-8")
    fixed = {re.sub(r"(kind_weights)\..*", r"\1", name) for name in _settings(yaml.safe_load(text))}
    left = {
        *("recycle.pointwise", "recycle.pairwise", "recycle.reflection"),
        *("objective.ratio_cap", "objective.importance_level", "objective.importance_cap"),  # of what is off
        *("learner.learning_rate", "learner.micro_batch_tokens", "learner.shared_prefix"),
    }
    wanted = {name for name in field_names() if name.split(".")[0] in ("recycle", "objective", "learner", "loop")}
    assert wanted - fixed == left
    assert {"rollout.samples", "rollout.temperature", "rollout.top_p", "rollout.top_k", "period.order"} <= fixed


def test_faithful_weights_of_kinds_replace_those_below() -> None:
    below = {"objective": {"kind_weights": {"pairwise": 0.0}}}
    assert load_config({"base": "quickstart", **below}).objective.kind_weights == {"pairwise": 0.0}
    from spark_kernel.config import merge_settings

    merged = merge_settings(below, load_config("faithful").model_dump())
    assert validate_config(merged).objective.kind_weights["pairwise"] == 1.0


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
        ("quickstart", {"rollout__samples": 1, "objective__advantage": "mean_only"}, "every advantage would be 0"),
        ("quickstart", {"rollout__samples": 1, "objective__advantage": "batch_std"}, "use at least 2 samples"),
        ("quickstart", {"recycle__judge_quota": 0, "recycle__reflection_quota": 0}, "leave a reward period nothing"),
        ("policy-and-reward", {"recycle__judge_quota": 0}, "leave a reward period nothing"),
        (
            "quickstart",
            {"recycle__pointwise": False, "recycle__pairwise": False, "recycle__reflection_quota": 0},
            "leave a reward period nothing",
        ),
        ("quickstart", {"recycle__minimum": 600}, "is never reached: at most"),
        (
            "quickstart",
            {"recycle__minimum": 65, "recycle__max_age": 0, "recycle__reflection": False},
            "at most 64 tasks wait",
        ),
        (
            "quickstart",
            {"objective__kind_weights": {"solve": 0, "pointwise": 0, "pairwise": 0, "reflection": 0}},
            "nothing would be trained",
        ),
        (
            "policy-only",
            {"objective__kind_weights": {"solve": 0}},
            r"0 for every kind that this run trains on \(solve\): nothing would be trained",
        ),
        (
            "reward-only",
            {"objective__kind_weights": {"pointwise": 0, "pairwise": 0}},
            r"trains on \(pointwise, pairwise\): nothing would be trained",
        ),
        (
            "quickstart",
            {"recycle__reflection_quota": 0, "objective__kind_weights": {"solve": 0, "pointwise": 0, "pairwise": 0}},
            r"trains on \(solve, pointwise, pairwise\): nothing would be trained",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(source: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config(source, **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "overrides"),
    [
        ("policy-only", {"recycle__judge_quota": 0, "recycle__reflection_quota": 0}),
        ("quickstart", {"recycle__judge_quota": 0}),
        ("quickstart", {"recycle__minimum": 64, "recycle__max_age": 0, "recycle__reflection": False}),
        ("quickstart", {"recycle__minimum": 10_000, "recycle__max_age": None}),
    ],
)
def test_settings_that_do_something_are_taken(source: str, overrides: dict[str, Any]) -> None:
    load_config(source, **overrides)


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


def test_the_dropout_that_older_configurations_hold_is_read_and_left_out(tmp_path: Path) -> None:
    """`dropout: 0.0` was a setting with one legal value. Any other value is still refused, with the reason."""
    config = load_config("quickstart", model__lora__rank=4)
    values = yaml.safe_load(config.to_yaml())
    values["model"]["lora"]["dropout"] = 0.0
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert load_config(path) == config
    assert "dropout" not in load_config(path).to_yaml()
    assert "model.lora.dropout" not in field_names()
    with pytest.raises(InputError, match=r"model\.lora = .* is refused: an adapter's dropout is always 0.*leave"):
        load_config("quickstart", model__lora__dropout=0.1)
    with pytest.raises(InputError, match=r'no setting "model.lora.dropuot"'):
        load_config("quickstart", model__lora__dropuot=0.0)
