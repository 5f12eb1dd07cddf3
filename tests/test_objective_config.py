"""The objective's section of a configuration: names, bounds, and what the losses' names come to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest

from spark_kernel.config import as_first_written, load_config, validate_config
from spark_kernel.config.sections import ModelSection, ObjectiveSection
from spark_kernel.errors import InputError
from spark_kernel.models.policy import load_policy
from spark_kernel.objective.advantages import advantages
from spark_kernel.objective.named_losses import LOSSES, aggregation_of
from spark_kernel.training.assembly import make_learner
from tests.helpers.tiny_models import save_tiny_llama


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"objective__loss": "ppo"},
            r"objective.loss = 'ppo' is refused: .*'dapo'.*'grpo'.*'dr_grpo'.*'cispo' or 'gspo'",
        ),
        (
            {"objective__advantage": "std"},
            r"objective.advantage = 'std' is refused: .*'group_std_ddof1'.*'leave_one_out'",
        ),
        ({"objective__kl_estimator": "k4"}, "objective.kl_estimator = 'k4' is refused: .*'k1', 'k2' or 'k3'"),
        ({"objective__aggregation": "mean"}, "objective.aggregation = 'mean' is refused: .*'token_mean'"),
        (
            {"objective__importance_correction": "clip"},
            "objective.importance_correction = 'clip' .*'truncate' or 'mask'",
        ),
        ({"objective__importance_level": "word"}, "objective.importance_level = 'word' .*'token' or 'sequence'"),
        ({"objective__eps_low": 1.0}, "objective.eps_low = 1.0 is refused: .*less than 1"),
        ({"objective__eps_low": 0.0}, "objective.eps_low = 0.0 is refused: .*greater than 0"),
        ({"objective__eps_high": -0.1}, "objective.eps_high = -0.1 is refused: .*greater than 0"),
        ({"objective__eps_high": math.inf}, "objective.eps_high = inf is refused: .*finite"),
        ({"objective__delta": math.nan}, "objective.delta = nan is refused"),
        ({"objective__beta": -1e-3}, "objective.beta = -0.001 is refused: .*greater than or equal to 0"),
        ({"objective__dual_clip": 1.2}, r"objective.dual_clip = 1.2 must be above 1 \+ objective.eps_high = 1.2"),
        ({"objective__dual_clip": 3.0, "objective__loss": "cispo"}, "leave dual_clip out"),
        ({"objective__importance_cap": 1.0}, "objective.importance_cap = 1.0 is refused: .*greater than 1"),
        ({"objective__kind_weights": {"solve": -1.0}}, "objective.kind_weights.solve = -1.0 is refused"),
        ({"objective__kind_weights": {"judge": 1.0}}, "'judge' is refused: .*'pointwise', 'pairwise' or 'reflection'"),
    ],
)
def test_bad_objectives_are_refused_in_one_line(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_config("quickstart", **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("estimator", ["group_std_ddof1", "group_std_ddof0", "batch_std", "leave_one_out", "mean_only"])
def test_an_estimator_that_compares_needs_two_samples(estimator: str) -> None:
    with pytest.raises(InputError, match=r"rollout\.samples = 1 leaves no group .*at least 2"):
        load_config("quickstart", rollout__samples=1, objective__advantage=estimator)
    assert load_config("quickstart", rollout__samples=2, objective__advantage=estimator).rollout.samples == 2


def test_the_names_of_the_schema_are_those_that_are_built() -> None:
    fields = ObjectiveSection.model_fields
    assert set(get_args(fields["loss"].annotation)) == set(LOSSES)
    for estimator in get_args(fields["advantage"].annotation):
        assert advantages([[0.0, 1.0]], estimator=estimator, delta=1e-4)[0][0] < 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_by_name_averages_in_its_own_way_unless_told_otherwise(name: str) -> None:
    assert aggregation_of(ObjectiveSection(loss=name)) == LOSSES[name].aggregation
    assert aggregation_of(ObjectiveSection(loss=name, aggregation="constant_length")) == "constant_length"


def test_automatic_importance_correction_follows_the_engine(tmp_path: Path) -> None:
    folder = str(save_tiny_llama(tmp_path))
    for overrides, expected in (
        ({}, "off"),
        ({"rollout__engine": "vllm"}, "truncate"),
        ({"model__dtype": "bfloat16"}, "truncate"),
        ({"rollout__engine": "vllm-server", "rollout__server__urls": ("http://host:8000",)}, "truncate"),
        ({"rollout__engine": "vllm", "objective__importance_correction": "off"}, "off"),
    ):
        config = load_config("quickstart", rollout__max_new_tokens=77, **overrides)
        policy = load_policy(ModelSection(path=folder, dtype=config.model.dtype))
        learner = make_learner(config, policy, tmp_path)
        assert (learner.objective.importance_correction, learner.constant_length) == (expected, 77)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"model": {"dtype": "bfloat16"}}, "off"),
        ({"model": {"dtype": "bfloat16"}, "rollout": {"engine": "vllm"}}, "auto"),
        ({"model": {"dtype": "float32"}}, "auto"),
        ({"model": {"dtype": "bfloat16"}, "objective": {"importance_correction": "mask"}}, "mask"),
        ({"model": {"dtype": "bfloat16"}, "problems": {"canonical_form": 2}}, "auto"),
    ],
)
def test_a_run_from_before_goes_on_with_the_loss_it_began_with(stored: dict[str, Any], expected: str) -> None:
    """`auto` meant "off" for the transformers engine in bfloat16 too; newer runs name their canonical form."""
    found = validate_config(as_first_written({"problems": {}, **stored}))
    assert found.objective.importance_correction == expected
