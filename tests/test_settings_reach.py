"""Every setting of the schema reaches the place that uses it: changing it changes what is observed there.

One row for each field, and a test that no field lacks one, so that the next setting is covered the day it is written.
A *probe* observes one place: an assembled model, the learner's updates, a trainer's records with a scripted engine, the
engine that is made. Where a setting acts only beside another one, the row states that too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from spark_kernel.config import RunConfig, field_names, merge_settings, validate_config
from spark_kernel.errors import InputError
from tests.helpers.runs import tiny_config
from tests.helpers.setting_probes import Probe, assembled, learned, lived, made_engine, voted

pytestmark = pytest.mark.slow


CHAINS = {"problems": {"source": "arithmetic", "options": {}, "per_round": 60, "held_out_fraction": 0.2}, "rounds": 1}
VLLM = {"rollout__engine": "vllm"}
SERVERS = {"rollout__engine": "vllm-server", "rollout__server__urls": ("http://one:8000",)}
LORA = {"model__lora__enabled": True}
STEPS = {"learner__minibatch_sequences": 3, "learner__learning_rate": 0.05, "learner__epochs": 2}
KL = {**STEPS, "objective__beta": 0.5}
CORRECTED = {**STEPS, "objective__importance_correction": "truncate", "objective__importance_cap": 1.01}


@dataclass(frozen=True)
class Change:
    """A setting's other value, where it shows, and the settings beside which it acts."""

    value: Any
    probe: Probe
    beside: dict[str, Any] = field(default_factory=dict)


CHANGES: dict[str, Change] = {
    "seed": Change(5, lived),
    "rounds": Change(3, lived),
    "threads": Change(2, assembled),
    "model.path": Change("OTHER", assembled),
    "model.revision": Change("v2", assembled),
    "model.dtype": Change("bfloat16", assembled, LORA),
    "model.device": Change("cuda:7", assembled),
    "model.trust_remote_code": Change(True, assembled),
    "model.gradient_checkpointing": Change(True, assembled),
    "model.chat_template_kwargs": Change({"shout": True}, assembled),
    "model.thinking_tags": Change({"<mull>": "</mull>"}, assembled),
    "model.lora.enabled": Change(True, assembled),
    "model.lora.rank": Change(3, assembled, LORA),
    "model.lora.alpha": Change(7, assembled, LORA),
    "model.lora.target_modules": Change(("q_proj",), assembled, LORA),
    "model.lora.rslora": Change(True, assembled, LORA),
    "model.lora.dora": Change(True, assembled, LORA),
    "problems.source": Change("nosuch", assembled),
    "problems.options": Change("OPTIONS", lived),
    "problems.per_round": Change(4, lived),
    "problems.held_out_fraction": Change(0.5, lived),
    "problems.canonical_form": Change(1, lived, CHAINS),
    "problems.difficulty": Change("adaptive", lived, CHAINS | {"rounds": 2}),
    "problems.worked_examples": Change(True, lived),
    "problems.on_bad_problem": Change("skip", assembled),
    "rollout.engine": Change("vllm", made_engine),
    "rollout.vllm.memory_share": Change(0.7, made_engine, VLLM),
    "rollout.vllm.cache_gib": Change(3.0, made_engine, VLLM),
    "rollout.vllm.enforce_eager": Change(True, made_engine, VLLM),
    "rollout.vllm.lora_sync": Change("adapter", made_engine, VLLM),
    "rollout.vllm.sleep": Change(False, made_engine, VLLM),
    "rollout.server.urls": Change(("http://two:8000",), made_engine, SERVERS),
    "rollout.server.model": Change("named", made_engine, SERVERS),
    "rollout.server.api_key_env": Change("SOME_KEY", made_engine, SERVERS),
    "rollout.server.folder": Change("weights", made_engine, SERVERS),
    "rollout.server.lora_sync": Change("adapter", made_engine, SERVERS),
    "rollout.server.transfer": Change("nccl", made_engine, SERVERS),
    "rollout.server.transfer_address": Change("10.0.0.9", made_engine, SERVERS),
    "rollout.server.timeout_seconds": Change(7.0, made_engine, SERVERS),
    "rollout.server.connections": Change(3, made_engine, SERVERS),
    "rollout.samples": Change(3, lived),
    "rollout.refill": Change(0.5, lived),
    "rollout.temperature": Change(0.5, lived),
    "rollout.top_p": Change(0.5, lived),
    "rollout.top_k": Change(5, lived),
    "rollout.max_new_tokens": Change(20, lived),
    "rollout.verdict_max_new_tokens": Change(5, lived),
    "rollout.max_prompt_tokens": Change(60, lived),
    "rollout.batch_size": Change(3, assembled),
    "verify.workers": Change(2, assembled),
    "verify.deadline_seconds": Change(1.5, assembled),
    "verify.correct_threshold": Change(0.5, assembled),
    "verify.flip_share": Change(0.5, lived),
    "recycle.pointwise": Change(False, lived),
    "recycle.pairwise": Change(False, lived),
    "recycle.reflection": Change(False, lived),
    "recycle.re_evaluation": Change(False, lived),
    "recycle.judge_quota": Change(1, lived),
    "recycle.reflection_quota": Change(1, lived),
    "recycle.minimum": Change(25, lived),
    "recycle.max_age": Change(0, lived),
    "recycle.order": Change("fifo", lived, {"recycle__minimum": 3}),
    "recycle.mixed_pairwise_share": Change(0.0, lived, {"recycle__mixed_pairwise_share": 1.0}),
    "recycle.judge_view": Change("answer", lived),
    "recycle.reflection_view": Change("answer", lived),
    "recycle.reflection_correct_share": Change(1.0, lived),
    "recycle.balance_pointwise": Change(False, lived),
    "recycle.balance_pairs": Change(False, lived),
    "recycle.extra": Change(("nosuch",), lived),
    "period.order": Change("joint", lived),
    "period.train_policy": Change(False, lived),
    "period.train_reward": Change(False, lived),
    "period.schedule": Change(("1 policy", "1 both"), lived),
    "objective.advantage": Change("mean_only", lived),
    "objective.delta": Change(1.0, lived),
    "objective.loss": Change("gspo", learned, STEPS),
    "objective.aggregation": Change("sequence_mean", learned),
    "objective.eps_low": Change(1e-4, learned, STEPS),
    "objective.eps_high": Change(1e-4, learned, STEPS),
    "objective.dual_clip": Change(1.0003, learned, {**STEPS, "objective__eps_high": 1e-4}),
    "objective.ratio_cap": Change(0.5, learned, {**STEPS, "objective__loss": "cispo"}),
    "objective.beta": Change(0.5, learned, STEPS),
    "objective.kl_estimator": Change("k2", learned, KL),
    "objective.kl_times_ratio": Change(True, learned, KL),
    "objective.importance_correction": Change("truncate", learned),
    "objective.importance_level": Change("sequence", learned, CORRECTED),
    "objective.importance_cap": Change(1.5, learned, CORRECTED),
    "objective.kinds": Change("pooled", learned),
    "objective.kind_weights": Change({"pointwise": 0.1}, learned),
    "objective.negative_advantage_scale": Change(0.5, learned),
    "objective.mask_truncated": Change(False, learned),
    "objective.mask_zero_variance": Change(False, learned),
    "learner.learning_rate": Change(0.5, learned),
    "learner.optimizer": Change("adamw_8bit", learned),
    "learner.schedule": Change("constant", learned),
    "learner.warmup_share": Change(0.9, learned),
    "learner.floor_share": Change(0.9, learned, {"rounds": 1}),
    "learner.betas": Change((0.5, 0.6), learned),
    "learner.weight_decay": Change(0.5, learned),
    "learner.max_grad_norm": Change(1e-3, learned),
    "learner.minibatch_sequences": Change(3, learned),
    "learner.epochs": Change(2, learned),
    "learner.micro_batch_tokens": Change(50, learned),
    "learner.shared_prefix": Change(False, learned),
    "evaluation.every": Change(1, lived),
    "evaluation.problems": Change(2, lived),
    "evaluation.samples": Change(3, lived),
    "evaluation.reflections": Change(2, lived),
    "evaluation.methods": Change(False, lived),
    "evaluation.tournament": Change(True, lived),
    "evaluation.same_answers": Change("mathematics", voted),
    "checkpoint.every": Change(1, lived),
    "checkpoint.keep": Change(1, lived, {"checkpoint__every": 1}),
    "loop.faithful": Change(True, lived),
    "loop.reflection_temperature": Change(1.0, lived),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and problems of all probes; the template shows an argument, the problems hold a bad record on request."""
    folder = tmp_path_factory.mktemp("reach")
    tiny_config(folder)
    template = folder / "model" / "chat_template.jinja"
    if template.exists():
        template.write_text(template.read_text() + "{% if shout is defined %}!{% endif %}")
    else:
        path = folder / "model" / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        settings["chat_template"] += "{% if shout is defined %}!{% endif %}"
        path.write_text(json.dumps(settings))
    return folder


def configured(base: Path, name: str, beside: dict[str, Any], value: Any = None) -> RunConfig:
    """The configuration of a probe: base settings, those beside which the setting acts, and the value itself."""
    short: dict[str, Any] = {
        "rounds": 2,
        "evaluation__every": 2,
        "evaluation__problems": 3,
        "checkpoint__every": 2,
        "learner__minibatch_sequences": None,
        "objective__beta": 0.0,
    }
    config = tiny_config(base, **(short | beside))
    if value is None:
        return config
    section: Any = value
    for part in reversed(name.split(".")):
        section = {part: section}
    return validate_config(merge_settings(config.model_dump(), section))


def other_value(base: Path, value: Any) -> Any:
    if value == "OTHER":
        other = base / "other"
        if not other.exists():
            tiny_config(other)
        return str(other / "model")
    if value == "OPTIONS":
        return {**tiny_config(base).problems.options, "verifier": "exact"}
    return value


def test_every_setting_has_a_row() -> None:
    assert sorted(CHANGES) == sorted(field_names())


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_changes_what_its_place_does(base: Path, tmp_path: Path, name: str) -> None:
    change = CHANGES[name]
    beside = dict(change.beside)
    if name == "problems.on_bad_problem":
        bad = tmp_path / "bad.jsonl"
        lines = (base / "problems.jsonl").read_text().splitlines()
        bad.write_text("\n".join([*lines, '{"question": "No gold?"}']) + "\n")
        problems = tiny_config(base).problems
        beside["problems"] = {**problems.model_dump(), "options": {**problems.options, "path": str(bad)}}
    before = configured(base, name, beside)
    after = configured(base, name, beside, other_value(base, change.value))
    first, second = (observed(change.probe, config, tmp_path / side) for config, side in ((before, "a"), (after, "b")))
    again = observed(change.probe, before, tmp_path / "c")
    assert repr(first) == repr(again), "the probe itself is not steady"
    assert repr(first) != repr(second)


def observed(probe: Probe, config: RunConfig, folder: Path) -> Any:
    folder.mkdir()
    try:
        return probe(config, folder)
    except InputError as error:
        return str(error)
