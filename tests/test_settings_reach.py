"""Every setting of the schema reaches the place that uses it: changing it changes what is observed there.

One row for each field, and a test that no field lacks one, so that the next setting is covered the day it is written.
A *probe* observes one place: an assembled model, the learner's updates, a trainer's records with a scripted engine, the
engine that is made. Where a setting acts only beside another one, the row states that too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from spark_kernel.config import RunConfig, field_names, merge_settings, validate_config
from spark_kernel.errors import InputError, ModelError
from spark_kernel.evaluate import held_out
from spark_kernel.learner.checkpoint import STATE_FOLDER
from spark_kernel.models.description import ModelDescription
from spark_kernel.models.load import load_encoder
from spark_kernel.models.policy import load_policy
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.problems.checked_stream import make_stream
from spark_kernel.records import Group, Kind, Period, Problem, UpdateStats
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.rollout import make_engine as engines
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.rollout.vllm_start import start_options
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training import assembly
from spark_kernel.training.assembly import Parts, make_learner
from spark_kernel.training.state import RoundState, TrainerState
from spark_kernel.training.trainer import Trainer
from spark_kernel.verify.scoring import score_request
from tests.helpers.records import make_group
from tests.helpers.runs import tiny_config
from tests.helpers.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.slow
Probe = Callable[[RunConfig, Path], Any]


# --- the places


class LocalPool:
    """Scores in this process."""

    def score(self, requests: Sequence[Any], on_progress: Any = None) -> list[Any]:
        return [score_request(request) for request in requests]

    def check_golds(self, problems: Sequence[Problem]) -> list[None]:
        return [None for _ in problems]

    def close(self) -> None:
        pass


@dataclass
class RecordingLearner:
    """A learner without weights: it remembers what it was given."""

    version: int = 0
    in_update: bool = False
    log: list[Any] = field(default_factory=list)

    def update(self, groups: Sequence[Group], *, period: Period, round: int, **_: Any) -> tuple[UpdateStats, tuple]:
        self.version += 1
        self.log.append((round, str(period), [[(r.id, r.advantage) for r in group.rollouts] for group in groups]))
        stats = UpdateStats(
            period=period, optimizer_steps=1, sequences=1, loss_tokens=1, loss=0.0, kl=0.0, entropy=0.0,
            clip_share=0.0, ratio_mean=1.0, grad_norm=0.0, learning_rate=0.0, seconds=0.0, by_kind={},
            sampler_mismatch={},
        )  # fmt: skip
        return stats, ()

    def save(self, folder: Path) -> None:
        (folder / STATE_FOLDER).mkdir()
        (folder / "adapter_config.json").write_text("{}")

    def load(self, folder: Path) -> None:
        raise NotImplementedError

    def publish(self, wanted: Wanted = Wanted()) -> Any:
        return PublishedWeights(self.version, None, {})  # type: ignore[arg-type]


class TakingEngine(ScriptedEngine):
    """A scripted engine with the rest of the protocol."""

    wanted = Wanted()

    def score(self, prompts: Any, outputs: Any) -> Any:
        return [[[-1.0] * len(output) for output in group] for group in outputs]

    def take(self, published: PublishedWeights) -> None:
        self.version = published.version

    def sleep(self) -> None:
        pass

    wake = close = sleep


def outputs(prompt: Any, seed: int) -> str:
    """A hash of the seed decides what is said; the longest outputs have 40 words."""
    said = ("Yes", "No", "A", "B", "Right", "Wrong", "First", "Second", "4", r"\frac{8}{2}")[seed // 7 % 10]
    return " ".join(["step"] * (seed % 40)) + rf" so \boxed{{{said}}}"


def lived(config: RunConfig, folder: Path) -> Any:
    """Everything that a trainer records of a run, with scripted outputs and a learner that only remembers."""
    encoder, context = load_encoder(config.model)
    engine, learner, pool = TakingEngine(outputs, version=0), RecordingLearner(), LocalPool()
    stream = make_stream(config, pool)  # type: ignore[arg-type]
    parts = Parts(
        ModelDescription("scripted", encoder, context), engine, learner, stream, pool, config,  # type: ignore[arg-type]
        lambda _config: learner,
    )  # fmt: skip
    writer = RunWriter.create(folder / "run", config.to_yaml(), {})
    state = TrainerState(0, 0, TaskQueue(), RoundState(round=1))
    written: list[str] = []
    with Trainer(config, writer, parts, state) as trainer:
        trainer.listeners.append(lambda event: written.append(event.name) if event.name != "progress" else None)
        trainer.train()
    reader = RunReader(folder / "run")
    names = ("problems", "tasks", "rollouts", "recycled", "exclusions", "eval_tasks", "eval_rollouts")
    rows = {name: [_timeless(row) for row in reader.table(name).to_pylist()] for name in names}
    reports = [reader.evaluation(number) for number in reader.evaluations]
    kept = [info.name for info in reader.checkpoints]
    calls = [(sampling, [prompt.seeds for prompt in prompts]) for prompts, sampling in engine.calls]
    return rows, reports, kept, written, calls, learner.log


def voted(config: RunConfig, folder: Path) -> Any:
    """How often an evaluation asks mathematics which answers are the same."""
    asked: list[str] = []
    original = held_out.label_by_mathematics

    def spy(score: Any) -> Any:
        asked.append("mathematics")
        return original(score)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "label_by_mathematics", spy)
        lived(config, folder)
    return asked


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "seconds" not in name}


EOS = 257
_SAMPLED = (-6.0, -5.0, -6.5, -5.5, -7.0)
GROUPS = [
    make_group("a", "one?", [[5, 6, EOS], [7, EOS], [8, 9, 10, 11, EOS]], [1.0, 0.0, 0.0]),
    make_group("b", "a longer question", [[20, 21, EOS], [22], [23, EOS]], [0.0, 1.0, 1.0], kind=Kind.POINTWISE),
    make_group("c", "and a third", [[30, EOS], [31, 32, EOS], [33, EOS]], [0.25, 1.0, 0.0], kind=Kind.REFLECTION),
    make_group("d", "all alike", [[40, EOS], [41, EOS]], [1.0, 1.0]),
]
GROUPS = [
    group.with_rollouts(tuple(replace(r, logprobs=_SAMPLED[: len(r.token_ids)]) for r in group.rollouts))
    for group in GROUPS
]


def learned(config: RunConfig, folder: Path) -> Any:
    """Figures and weights after three updates on fixed groups, and how they were cut and computed."""
    cut = GROUPS[1].rollouts[1]
    truncated = GROUPS[1].with_rollouts((GROUPS[1].rollouts[0], replace(cut, truncated=True), GROUPS[1].rollouts[2]))
    groups = [GROUPS[0], truncated, *GROUPS[2:]]
    policy = load_policy(config.model, seed=config.seed)
    learner = make_learner(config, policy, folder)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1

    stats = [learner.update(groups, period=Period.POLICY, round=n, check_stop=check)[0] for n in (1, 2, 3)]
    figures = [replace(one, seconds=0.0) for one in stats]
    weights = torch.cat([p.detach().flatten() for _, p in policy.trainable])
    options = {name: value for name, value in learner.optimizer.param_groups[0].items() if name != "params"}
    return figures, weights.tolist(), checks, str(learner.form.form), sorted(options.items(), key=lambda kv: kv[0])


def assembled(config: RunConfig, folder: Path) -> Any:
    """What `assemble` makes: the model as it is loaded, the verifiers' pool, the engine's rows."""
    seen: dict[str, Any] = {}
    original = transformers.AutoConfig.from_pretrained

    def spy(*args: Any, **keywords: Any) -> Any:
        seen.update({name: str(value) for name, value in keywords.items()})
        return original(*args, **{k: v for k, v in keywords.items() if k not in ("revision", "trust_remote_code")})

    class Pool(LocalPool):
        def __init__(self, *arguments: Any) -> None:
            seen["pool"] = arguments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.AutoConfig, "from_pretrained", spy)
        patch.setattr(assembly, "VerifierPool", Pool)
        patch.setattr(torch, "set_num_threads", lambda count: seen.update(threads=count))
        try:
            parts = assembly.assemble(config, images_root=folder)
        except (InputError, ModelError) as error:
            return str(error)
    policy: Any = parts.learner.policy  # type: ignore[attr-defined]
    adapter = policy.adapter()
    text = policy.encoder.text_ids("<mull>well</mull>so")
    return (
        seen,
        parts.model.name,
        str(next(policy.network.parameters()).dtype),
        policy.gradient_checkpointing,
        None if adapter is None else (sorted(adapter.tensors), str(sorted(adapter.config.items()))),
        policy.encoder.chat_text(GROUPS[0].task.messages),
        policy.encoder.decode([text]),
        parts.engine._batch_size,  # type: ignore[attr-defined]
    )


def made_engine(config: RunConfig, folder: Path) -> Any:
    """The engine that is made: its class, and what it is given; of vLLM in this process also what vLLM is given."""
    given: list[Any] = []

    def recorder(name: str) -> Any:
        return lambda _encoder, _source, section, **derived: given.append((name, section, _plain(derived)))

    policy = load_policy(config.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_KEY", "secret")
        patch.setattr(engines, "VllmEngine", recorder("in process"))
        patch.setattr(engines, "VllmServerEngine", recorder("servers"))
        made = engines.make_engine(config, policy, Remarks())
        if config.rollout.engine == "vllm":
            ((_, section, derived),) = given
            keywords = {**derived, "device": "cuda", "folder": "model", "reads_images": False, "adapter": None}
            given.append(start_options(section, **keywords))
    return type(made).__name__, given


def _plain(derived: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in derived.items() if not callable(value)}


# --- the settings

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
