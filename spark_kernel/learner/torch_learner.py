"""One update of the policy from a period's scored groups.

    select rollouts -> cut into optimizer steps -> (old log-probabilities) ->
    per step: micro-batches -> token log-probabilities -> loss -> backward;  clip -> step

The gradient of an optimizer step does not depend on how it was cut into micro-batches: every token loss is divided
by the number of loss tokens of the whole step, kind by kind.
"""

from __future__ import annotations

import copy
import gc
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from spark_kernel.config.sections import LearnerSection, ObjectiveSection
from spark_kernel.errors import ModelError, NonFiniteError, PhaseError, StopCheck, Stopped
from spark_kernel.keyed_random import content_hash
from spark_kernel.learner.checkpoint import Standing, load_state, save_state
from spark_kernel.learner.optimizers import make_optimizer
from spark_kernel.learner.progress import Totals, UpdateProgress
from spark_kernel.learner.schedule import learning_rate
from spark_kernel.learner.selection import TrainingGroup, micro_batches, minibatches, select
from spark_kernel.learner.step_loss import (
    BatchSums,
    add_mismatch,
    add_sums,
    batch_sums,
    micro_batch_loss,
    mismatch_figures,
    sampler_logprobs,
    step_scales,
)
from spark_kernel.models.group_forward import GroupForward
from spark_kernel.models.memory import LEAST_TOKENS, MOST_TOKENS
from spark_kernel.models.policy import Policy
from spark_kernel.models.prefix_form import PrefixForm, choose_form
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.records import Exclusion, Group, Period, UpdateStats


class TorchLearner:
    """A `Learner` in this process: owns the optimizer and moves the policy.

    Args:
        policy: the model; at construction it must hold the run's *initial* weights, the KL reference.
        objective: the loss; whether it corrects for the sampler is decided (not "auto").
        settings: optimizer, schedule, batching.
        horizon_steps: planned optimizer steps of the whole run, the length of the schedule.
        constant_length: the divisor per sequence of aggregation "constant_length", in tokens.
        temperature: the sampling temperature of the rollouts, under which log-probabilities are taken.
        seed: keys the order of groups.
        images_root: the folder that image paths of tasks are relative to.
    """

    def __init__(
        self,
        policy: Policy,
        objective: ObjectiveSection,
        settings: LearnerSection,
        *,
        horizon_steps: int,
        constant_length: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
        images_root: Path,
    ) -> None:
        self.policy = policy
        self.objective = objective
        self.settings = settings
        self.horizon_steps = horizon_steps
        self.constant_length = constant_length
        self.temperature = temperature
        self.seed = seed
        self.images_root = images_root
        self.steps_taken = 0
        self.progress: UpdateProgress | None = None
        self.form = choose_form(
            policy.network, shared=settings.shared_prefix, checkpointing=policy.gradient_checkpointing
        )
        self.notes: tuple[str, ...] = (self.form.note,) if self.form.note else ()
        self.budget = self._planned_budget = settings.micro_batch_tokens or MOST_TOKENS["cpu"]
        self.optimizer = make_optimizer([parameter for _, parameter in policy.trainable], settings, policy.device)
        needs_copy = objective.beta > 0 and not policy.has_adapter
        self._reference = GroupForward(copy.deepcopy(policy.network).requires_grad_(False)) if needs_copy else None

    @property
    def version(self) -> int:
        """See `Learner.version`."""
        return self.policy.version

    @property
    def in_update(self) -> bool:
        """See `Learner.in_update`."""
        return self.progress is not None and self.progress.steps_done > 0

    def save(self, folder: Path) -> None:
        """See `Learner.save`; the folder is an ordinary Hugging Face or peft folder (`learner.checkpoint`)."""
        tokens = None if self.budget == self._planned_budget else self.budget
        save_state(folder, self.policy, self.optimizer, Standing(self.steps_taken, self.progress, tokens))

    def load(self, folder: Path) -> None:
        """See `Learner.load`."""
        standing = load_state(folder, self.policy, self.optimizer)
        self.steps_taken, self.progress = standing.steps_taken, standing.update
        self.budget = standing.micro_batch_tokens or self._planned_budget

    def publish(self, wanted: Wanted = Wanted()) -> PublishedWeights:
        """See `Learner.publish`."""
        return self.policy.publish(wanted)

    def update(
        self,
        groups: Sequence[Group],
        *,
        period: Period,
        round: int,
        on_progress: Callable[[int, int], None] = lambda _done, _all: None,
        check_stop: StopCheck = lambda: None,
    ) -> tuple[UpdateStats, tuple[Exclusion, ...]]:
        """See `Learner.update`."""
        started = time.perf_counter()
        selected, exclusions = select(groups, self.objective, round=round, images_root=self.images_root)
        steps = minibatches(
            selected,
            self.settings.minibatch_sequences,
            epochs=self.settings.epochs,
            seed=self.seed,
            period=period,
            round=round,
        )
        key = content_hash(period, round, *(r.id for g in selected for r in g.rollouts), length=32)
        progress = self.progress
        try:
            if progress is not None and progress.key != key and progress.steps_done:
                raise PhaseError(
                    f"An update is half done ({progress.steps_done} optimizer steps are taken) and "
                    "other groups were given: finish it with the groups it was begun with."
                )
            if progress is None or progress.key != key:
                progress = UpdateProgress(key, self.policy.version, 0, None, Totals())
                if len(steps) > 1:
                    progress.old_logprobs = self._all_logprobs(selected, check_stop)
                    if progress.old_logprobs:
                        learner_N = torch.cat(list(progress.old_logprobs.values()))
                        add_mismatch(progress.totals, learner_N, sampler_logprobs(selected))
                self.progress = progress
            self.policy.begin_update()
            for index in range(progress.steps_done, len(steps)):
                totals = self._optimizer_step(steps[index], progress, check_stop)
                progress.totals.absorb(totals)
                progress.steps_done = index + 1
                on_progress(index + 1, len(steps))
        except (Stopped, NonFiniteError, ModelError):
            self.optimizer.zero_grad(set_to_none=True)
            if self.progress is not None:
                self.progress.seconds += time.perf_counter() - started
                if self.progress.steps_done == 0:
                    self.policy.finish_update(self.progress.version)
            raise
        self.policy.finish_update(progress.version + 1)
        self.progress = None
        seconds = progress.seconds + time.perf_counter() - started
        return self._stats(period, progress, len(steps), selected, seconds), tuple(exclusions)

    def _optimizer_step(self, step: list[TrainingGroup], progress: UpdateProgress, check_stop: StopCheck) -> Totals:
        """Gradient of one step over all its micro-batches, then one move of the optimizer.

        Where memory runs out, the step begins again with micro-batches of half the size.

        Raises:
            ModelError: memory runs out at the smallest size too.
        """
        while (totals := self._gradient(step, progress, check_stop)) is None:
            self._halve_budget()
        parameters = [parameter for _, parameter in self.policy.trainable]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError(_non_finite("gradient", step))
        rate = learning_rate(self.steps_taken, self.settings, self.horizon_steps)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps_taken += 1
        totals.add("grad_norm", float(norm))
        totals.add("steps", 1)
        return totals

    def _halve_budget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if self.policy.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.budget <= LEAST_TOKENS:
            raise ModelError(
                f"Memory ran out in a micro-batch of {self.budget} tokens, the smallest there is: switch on "
                "model.gradient_checkpointing or model.lora.enabled, or take shorter outputs (rollout.max_new_tokens) "
                "or a smaller model."
            )
        before, self.budget = self.budget, max(LEAST_TOKENS, self.budget // 2)
        self.notes += (f"Memory ran out at {before} tokens a micro-batch: {self.budget} from here on.",)

    def _gradient(self, step: list[TrainingGroup], progress: UpdateProgress, check_stop: StopCheck) -> Totals | None:
        """The gradient of one step and its sums; None where memory ran out."""
        totals = Totals()
        scales = step_scales(step, self.objective)
        on_policy: list[tuple[Tensor, Tensor]] = []
        self.optimizer.zero_grad(set_to_none=True)
        batches = self._micro_batches(step)
        sums: list[BatchSums] = []
        try:
            with self.policy.recomputing():
                for batch in batches:
                    check_stop()
                    sums.append(self._backward(batch, scales, progress, on_policy))
            check_stop()
            self._read(batches, sums, totals)
        except torch.OutOfMemoryError:
            return None  # here the error, and with it the tensors that its frames hold, is let go
        if on_policy:
            learner_N, sampler_N = (torch.cat(parts) for parts in zip(*on_policy, strict=True))
            add_mismatch(totals, learner_N, sampler_N)
        return totals

    def _backward(
        self,
        batch: list[TrainingGroup],
        scales: dict[str, float],
        progress: UpdateProgress,
        on_policy: list[tuple[Tensor, Tensor]],
    ) -> BatchSums:
        """Forward and backward pass of one micro-batch, and its sums; nothing in it waits for the device."""
        with self.policy.loaded.arithmetic():
            logprobs, entropy = self._logprobs(self.policy.group_forward, batch)
        if progress.old_logprobs is None:
            old = logprobs.detach()
            on_policy.append((old, sampler_logprobs(batch)))
        else:
            rollouts = [rollout for group in batch for rollout in group.rollouts]
            old = torch.cat([progress.old_logprobs[rollout.id] for rollout in rollouts])
            old = old.to(logprobs.device, non_blocking=True)
        reference = self._reference_logprobs(batch) if self.objective.beta > 0 else None
        loss = micro_batch_loss(
            batch, logprobs, old, reference, scales, self.objective, constant_length=self.constant_length
        )
        loss.total.backward()
        return batch_sums(batch, loss, entropy)

    def _read(self, batches: list[list[TrainingGroup]], sums: list[BatchSums], totals: Totals) -> None:
        """Add up a step's sums: one wait for the device.

        Raises:
            NonFiniteError: a loss is not finite; the gradient is thrown away.
        """
        if not sums:
            return
        numbers = iter(torch.cat([part.values for part in sums]).tolist())
        for batch, part in zip(batches, sums, strict=True):
            values = [next(numbers) for _ in part.names]
            if not math.isfinite(values[0]):
                self.optimizer.zero_grad(set_to_none=True)
                raise NonFiniteError(_non_finite("loss", batch))
            add_sums(totals, part, values)

    def _micro_batches(self, groups: Sequence[TrainingGroup]) -> list[list[TrainingGroup]]:
        lengths = [self.policy.encoder.count_tokens(group.prompt) for group in groups]
        shared = self.form.form is not PrefixForm.PADDED
        packed = self.form.form is PrefixForm.PACKED
        return micro_batches(groups, lengths, self.budget, shared_prefix=shared, packed=packed)

    def _logprobs(self, forward: GroupForward, batch: list[TrainingGroup]) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of every output token of the batch [N], under the sampling temperature."""
        groups = self.form.batch(
            self.policy.encoder,
            [group.prompt for group in batch],
            [[rollout.token_ids for rollout in group.rollouts] for group in batch],
            self.policy.device,
        )
        logprobs, entropy = forward(groups, self.temperature)
        return logprobs, entropy

    @torch.no_grad()
    def _reference_logprobs(self, batch: list[TrainingGroup]) -> Tensor:
        with self.policy.loaded.arithmetic():
            if self._reference is not None:
                return self._logprobs(self._reference, batch)[0]
            with self.policy.initial():
                return self._logprobs(self.policy.group_forward, batch)[0]

    @torch.no_grad()
    def _all_logprobs(self, groups: Sequence[TrainingGroup], check_stop: StopCheck) -> dict[str, Tensor]:
        """Log-probabilities of every rollout [T] under the weights as they are, by rollout id, on the CPU."""
        found: dict[str, Tensor] = {}
        for batch in self._micro_batches([group for group in groups if group.rollouts]):
            check_stop()
            with self.policy.loaded.arithmetic():
                logprobs, _ = self._logprobs(self.policy.group_forward, batch)
            rollouts = [rollout for group in batch for rollout in group.rollouts]
            pieces = logprobs.cpu().split([len(rollout.token_ids) for rollout in rollouts])
            found |= {rollout.id: piece.clone() for rollout, piece in zip(rollouts, pieces, strict=True)}
        return {rollout.id: found[rollout.id] for group in groups for rollout in group.rollouts}

    def _stats(
        self, period: Period, progress: UpdateProgress, steps: int, selected: list[TrainingGroup], seconds: float
    ) -> UpdateStats:
        totals = progress.totals
        kinds = sorted({str(group.kind) for group in selected if group.rollouts})
        names = ("loss", "kl", "entropy", "clip_share", "ratio")
        return UpdateStats(
            period=period,
            optimizer_steps=steps,
            sequences=sum(len(group.rollouts) for group in selected),
            loss_tokens=int(totals.get("tokens")),
            loss=totals.mean("total_loss", "steps"),
            kl=totals.mean("kl", "tokens"),
            entropy=totals.mean("entropy", "tokens"),
            clip_share=totals.mean("clip_share", "tokens"),
            ratio_mean=totals.mean("ratio", "tokens"),
            grad_norm=totals.mean("grad_norm", "steps"),
            learning_rate=learning_rate(max(0, self.steps_taken - 1), self.settings, self.horizon_steps),
            seconds=seconds,
            by_kind={
                kind: {name: totals.mean(f"{kind}/{name}", f"{kind}/tokens") for name in names}
                | {"loss_tokens": totals.get(f"{kind}/tokens")}
                for kind in kinds
            },
            sampler_mismatch=mismatch_figures(totals),
            notes=self.notes,
        )


def _non_finite(what: str, groups: Sequence[TrainingGroup]) -> str:
    ids = [rollout.id for group in groups for rollout in group.rollouts]
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return (
        f"The {what} is not finite; nothing of this optimizer step was applied. Rollouts involved: {shown}. "
        "Lower learner.learning_rate, or use float32."
    )
