"""Probes of the places that settings reach: each takes a configuration and a folder, and returns what it observes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from spark_kernel.config import RunConfig
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
from tests.helpers.scripted_engine import ScriptedEngine

Probe = Callable[[RunConfig, Path], Any]


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
