"""The rows of the table. Each measures one kind of work, ours beside a peer's, and asserts that the work is equal."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from benchmarks.measuring import Row, Timing, interleaved, matrix_rate, seconds_of, timed_row
from benchmarks.shapes import (
    NEVER,
    SCALES,
    Scale,
    make_groups,
    make_model,
    make_prompts,
    output_lengths,
    parameter_count,
    prompt_texts,
)
from spark_kernel.config.sections import LearnerSection, ModelSection, ObjectiveSection
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.records import Group, Parse, Period, Problem, Score
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.verify.pool import VerifierPool
from spark_kernel.verify.score_groups import score_groups

UPDATE_TARGETS = {"solver": 3.0, "judge": 9.0}
SAMPLING_TARGETS = {"solver": 2.5, "judge": 4.0}
GRADIENT_TOLERANCE = {"cpu": 1e-3, "cuda": 0.05}
"""Relative, between the norms of our gradient and the peer's: float32, and bfloat16 autocast."""


@dataclass(frozen=True)
class Bench:
    """What every row is given."""

    scale: Scale
    device: str
    folder: Path
    passes: dict[str, int] = field(default_factory=dict)
    """By shape, the rows a pass with which TRL was fastest."""
    clock: str = "wall"

    @property
    def model(self) -> Path:
        folder = self.folder / "model"
        return folder if folder.exists() else make_model(folder, self.scale)

    def policy(self) -> Policy:
        # The peers compute in float32 on a CPU and under bfloat16 autocast on a GPU: so do we.
        dtype = "float32" if self.device == "cpu" else "auto"
        policy = load_policy(ModelSection(path=str(self.model), dtype=dtype, device=self.device))
        policy.encoder.eos_ids = NEVER
        return policy

    def learner(self, policy: Policy) -> TorchLearner:
        settings = LearnerSection(learning_rate=1e-6, minibatch_sequences=None)
        return TorchLearner(
            policy, ObjectiveSection(importance_correction="off"), settings, horizon_steps=1000, images_root=Path()
        )


def update_rows(bench: Bench) -> list[Row]:
    """One optimizer step on the same rollouts, TRL's against ours."""
    if missing := _missing("trl"):
        return [Row("update", left_out=missing)]
    rows = []
    dtype = torch.float32 if bench.device == "cpu" else torch.bfloat16
    rate = matrix_rate(bench.device, dtype, bench.clock)
    for shape, prompt, output in bench.scale.shapes:
        for ragged in (False, True):
            rows.append(_update_row(bench, shape, prompt, output, ragged=ragged, rate=rate))
    return rows


def _update_row(bench: Bench, shape: str, prompt: int, output: int, *, ragged: bool, rate: float) -> Row:
    lengths = output_lengths(bench.scale, output, ragged=ragged)
    groups = make_groups(bench.scale, prompt, lengths)
    policy = bench.policy()
    learner = bench.learner(policy)
    texts = prompt_texts(bench.scale.groups, prompt)
    trainer = peers.make_trl(bench.model, bench.folder / "trl", bench.scale, texts, output=output, device=bench.device)
    ids = [list(policy.encoder.prompt_ids(p)) for p in make_prompts(bench.scale, prompt)]
    assert all(len(row) == prompt for row in ids)
    batch = peers.trl_inputs(trainer, ids, groups, bench.device)

    def ours() -> Any:
        return learner.update(groups, period=Period.POLICY, round=1)[0]

    # Equal work: the same tokens and, from the same weights, the same loss and gradient. With ratio 1 the loss alone
    # would not depend on the model.
    first, (loss, norm) = ours(), peers.trl_update(trainer, batch, bench.scale.samples)
    tokens = int(batch["completion_mask"].sum())
    assert first.loss_tokens == tokens
    assert abs(first.loss - loss) < 1e-4, (first.loss, loss)
    assert abs(first.grad_norm / norm - 1) < GRADIENT_TOLERANCE[bench.device], (first.grad_norm, norm)
    trials = _trials(bench, lambda rows: peers.trl_update(trainer, batch, rows))
    best = bench.passes[shape] = min(trials, key=lambda micro: trials[micro])
    contestants: dict[str, Callable[[], Any]] = {
        "ours": ours,
        f"TRL, {best} rows a pass": lambda: peers.trl_update(trainer, batch, best),
    }
    timings = interleaved(contestants, bench.scale.repeats, bench.device, bench.clock)
    for micro in trials.keys() - {best}:  # measured once, to show what the choice is worth
        if math.isfinite(trials[micro]):
            timings[f"TRL, {micro} rows a pass"] = Timing(f"TRL, {micro} rows a pass", (trials[micro],))
    computed = tokens + bench.scale.groups * prompt
    head = policy.network.get_output_embeddings().weight.numel()
    flops = 6.0 * ((parameter_count(policy.network) - head) * computed + head * tokens)
    return timed_row(
        f"update, {shape} shape ({prompt} + {output}, n {bench.scale.samples}{', ragged' if ragged else ''})",
        timings,
        target=None if ragged else UPDATE_TARGETS[shape],
        tokens=computed,
        flops_utilisation=round(flops / timings["ours"].median / rate, 3),
    )


def _trials(bench: Bench, work: Callable[[int], Any]) -> dict[int, float]:
    """Seconds of the peer's work by rows a pass: all of them, or one group. The faster one is its best."""
    sizes = (bench.scale.groups * bench.scale.samples, bench.scale.samples)
    return {rows: seconds_of(lambda rows=rows: work(rows), bench.device, bench.clock) for rows in sizes}


def round_rows(bench: Bench) -> list[Row]:
    """Both periods of a SPARK round against two GRPO steps of TRL on as many rollouts of the same lengths."""
    if missing := _missing("trl"):
        return [Row("whole round", left_out=missing)]
    policy = bench.policy()
    learner, engine = bench.learner(policy), TransformersEngine(policy)
    halves = [(name, prompt, output, make_prompts(bench.scale, prompt)) for name, prompt, output in bench.scale.shapes]
    trainers = {
        name: peers.make_trl(
            bench.model,
            bench.folder / "trl",
            bench.scale,
            prompt_texts(bench.scale.groups, prompt),
            output=output,
            device=bench.device,
        )
        for name, prompt, output, _ in halves
    }
    size = bench.scale.groups * bench.scale.samples
    pool = VerifierPool(1, 5.0)

    def ours() -> int:
        tokens = 0
        for name, prompt, output, prompts in halves:
            groups = make_groups(bench.scale, prompt, output_lengths(bench.scale, output, ragged=False))
            sampled = engine.sample(prompts, Sampling(output))
            groups = [_with_outputs(group, completions) for group, completions in zip(groups, sampled, strict=True)]
            problems = {g.task.problem_id: Problem(g.task.problem_id, "?", "x", "exact") for g in groups}
            scored = score_groups(pool, groups, problems, estimator="group_std_ddof1", delta=1e-4)
            # Random text is never right: rewards are made as TRL's are, so that every rollout is trained on.
            trained = [_with_rewards(group) for group in scored]
            stats, _ = learner.update(trained, period=Period.POLICY if name == "solver" else Period.REWARD, round=1)
            engine.take(policy.publish(engine.wanted))
            tokens += stats.loss_tokens
        return tokens

    def half(name: str, prompt: int, rows: int) -> int:
        return peers.trl_step(trainers[name], prompt_texts(bench.scale.groups, prompt), bench.scale.samples, rows)

    for name, prompt, _, _ in halves:
        if name not in bench.passes:  # the update rows were not asked for
            trials = _trials(bench, lambda rows, name=name, prompt=prompt: half(name, prompt, rows))
            bench.passes[name] = min(trials, key=lambda rows: trials[rows])

    def theirs() -> int:
        return sum(half(name, prompt, bench.passes[name]) for name, prompt, _, _ in halves)

    try:
        assert ours() == theirs() == sum(output for _, _, output, _ in halves) * size
        timings = interleaved(
            {"ours": ours, "TRL, two steps": theirs}, max(1, bench.scale.repeats - 1), bench.device, bench.clock
        )
    finally:
        pool.close()
    tokens = sum(bench.scale.groups * prompt + size * output for _, prompt, output, _ in halves)
    row = timed_row("whole round, solver and judge half", timings, target=0.35, tokens=tokens)
    ratio = timings["ours"].median / timings["TRL, two steps"].median
    return [replace(row, ratio=ratio, at_least=False, details={"ratio_is": "ours over TRL's two steps"})]


def sampling_rows(bench: Bench) -> list[Row]:
    """Sampling against `model.generate` on the same prompts, outputs of equal length."""
    rows = []
    policy = bench.policy()
    engine = TransformersEngine(policy)
    for shape, prompt, output in bench.scale.shapes:
        for samples, target in ((bench.scale.samples, SAMPLING_TARGETS[shape]), (1, 1.0)):
            prompts = make_prompts(bench.scale, prompt, samples)
            ids = [list(policy.encoder.prompt_ids(p)) for p in prompts]

            def ours(prompts: Any = prompts, output: int = output) -> int:
                return sum(len(c.token_ids) for group in engine.sample(prompts, Sampling(output)) for c in group)

            def theirs(ids: Any = ids, samples: int = samples, output: int = output) -> int:
                return peers.generate(policy.network, ids, samples, output, policy.encoder.pad_id, bench.device).numel()

            assert ours() == theirs() == bench.scale.groups * samples * output
            timings = interleaved(
                {"ours": ours, "model.generate": theirs}, bench.scale.repeats, bench.device, bench.clock
            )
            tokens = bench.scale.groups * samples * output
            rows.append(
                timed_row(
                    f"sampling, {shape} shape ({prompt} + {output}, n {samples})",
                    timings,
                    target=target,
                    tokens=tokens,
                )
            )
        rows.append(ragged_sampling_row(bench, shape, prompt, output))
    return rows


def ragged_sampling_row(bench: Bench, shape: str, prompt: int, output: int) -> Row:
    """Outputs that end by themselves: both sides draw until a token of a set comes whose share gives the mean length of
    a recorded run. The numbers of tokens differ a little, so the rates are compared."""
    policy = bench.policy()
    mean = statistics.mean(length for row in output_lengths(bench.scale, output, ragged=True) for length in row)
    ends = tuple(
        range(bench.scale.vocabulary - _end_tokens(mean, output, bench.scale.vocabulary), bench.scale.vocabulary)
    )
    policy.encoder.eos_ids = ends
    engine, prompts = TransformersEngine(policy), make_prompts(bench.scale, prompt)
    ids = [list(policy.encoder.prompt_ids(p)) for p in prompts]
    tokens: dict[str, int] = {}

    def ours() -> None:
        tokens["ours"] = sum(len(c.token_ids) for group in engine.sample(prompts, Sampling(output)) for c in group)

    def theirs() -> None:
        torch.manual_seed(0)
        rows = peers.generate(
            policy.network, ids, bench.scale.samples, output, policy.encoder.pad_id, bench.device, ends=ends
        )
        ended = torch.isin(rows, torch.tensor(ends, device=rows.device))
        tokens["model.generate"] = int((ended.cumsum(dim=1) - ended.long() == 0).sum())

    timings = interleaved({"ours": ours, "model.generate": theirs}, bench.scale.repeats, bench.device, bench.clock)
    rates = {name: tokens[name] / timing.median for name, timing in timings.items()}
    return Row(
        f"sampling, {shape} shape ({prompt} + at most {output}, n {bench.scale.samples}, ragged)",
        unit="tokens/s",
        values=rates,
        spread={n: (tokens[n] / max(t.seconds), tokens[n] / min(t.seconds)) for n, t in timings.items()},
        ratio=rates["ours"] / rates["model.generate"],
        target=SAMPLING_TARGETS[shape],
        tokens_per_second=round(rates["ours"]),
        details={"tokens": tokens},
    )


def _end_tokens(mean: float, longest: int, vocabulary: int) -> int:
    """How many of equally likely tokens must end an output for outputs of at most `longest` to have this mean."""
    return min(
        range(1, vocabulary // 2),
        key=lambda count: abs((1 - (1 - count / vocabulary) ** longest) * vocabulary / count - mean),
    )


def vllm_rows(bench: Bench) -> list[Row]:
    """Our vLLM engine against bare vLLM, and what a weight sync costs."""
    from benchmarks.vllm_rows import in_a_process

    name = next(name for name, scale in SCALES.items() if scale == bench.scale)
    return in_a_process(bench.model, bench.device, name, bench.clock, bench.folder)


def memory_rows(bench: Bench) -> list[Row]:
    """Peak memory of the log-probability pass and its backward pass, at two vocabularies with the same chunk."""
    rows, toy = 2048 if bench.scale.hidden > 64 else 64, bench.scale.hidden <= 64
    vocabularies = (1024, 4096) if toy else (8192, 131_072)
    values = {
        f"{name}, V = {vocabulary}": _peak_in_a_process(form, rows, bench.scale.hidden, vocabulary, bench.device)
        for name, form in (("ours", "chunks"), ("all logits", "plain"))
        for vocabulary in vocabularies
    }
    small, large = (values[f"ours, V = {vocabulary}"] for vocabulary in vocabularies)
    return [
        Row(
            f"log-probability memory, {rows} tokens",
            unit="MiB",
            values=values,
            ratio=large / small if small else None,
            target=1.1,
            at_least=False,
            details={
                "ratio_is": "ours at the large vocabulary over ours at the small one, head's own gradient left out"
            },
        )
    ]


def _peak_in_a_process(form: str, rows: int, hidden: int, vocabulary: int, device: str) -> float:
    command = [sys.executable, "-m", "benchmarks.logprob_memory", form, str(rows), str(hidden), str(vocabulary), device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["mib"])


def _with_outputs(group: Group, completions: Any) -> Group:
    rollouts = tuple(
        replace(r, token_ids=c.token_ids, logprobs=c.logprobs, text=c.text, score=None, advantage=None)
        for r, c in zip(group.rollouts, completions, strict=True)
    )
    return group.with_rollouts(rollouts)


def _with_rewards(group: Group) -> Group:
    rollouts = tuple(
        replace(r, score=Score(float(k % 2), k % 2 == 1, Parse.OK), advantage=1.0 if k % 2 else -1.0, truncated=False)
        for k, r in enumerate(group.rollouts)
    )
    return group.with_rollouts(rollouts)


def _missing(package: str) -> str:
    try:
        version(package)
    except PackageNotFoundError:
        return f"{package} is not installed: make bench installs it, or pip install -e '.[bench]'"
    return ""


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "update": update_rows,
    "memory": memory_rows,
    "round": round_rows,
    "sampling": sampling_rows,
    "vllm": vllm_rows,
}
