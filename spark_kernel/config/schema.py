"""The one schema of a run: preset, YAML file, command line, Python and notebook form all become a `RunConfig`.

Its sections are in `sections`; learner, objective, engine and recycling take them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from pydantic import Field, model_validator

from spark_kernel.config.periods import PeriodSection
from spark_kernel.config.section import Section
from spark_kernel.config.sections import (
    CheckpointSection,
    EvaluationSection,
    LearnerSection,
    LoopSection,
    ModelSection,
    ObjectiveSection,
    ProblemsSection,
    RecycleSection,
    RolloutSection,
    TrainedKind,
    VerifySection,
)


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many recycled tasks a reward period takes: `judge` is J, `reflection` is R."""

    judge: int
    reflection: int


class RunConfig(Section):
    """A whole run."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of every random draw."""
    rounds: int = Field(10, ge=1)
    """Rounds to train; also the horizon of the learning-rate schedule."""
    threads: int | None = Field(None, ge=1)
    """CPU threads for torch; none: the number that a short measurement at the start finds fastest. Stored with the run,
    because results depend on it."""
    model: ModelSection = ModelSection()
    problems: ProblemsSection = ProblemsSection()
    rollout: RolloutSection = RolloutSection()
    verify: VerifySection = VerifySection()
    recycle: RecycleSection = RecycleSection()
    period: PeriodSection = PeriodSection()
    objective: ObjectiveSection = ObjectiveSection()
    learner: LearnerSection = LearnerSection()
    loop: LoopSection = LoopSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if not (self.period.train_policy or self.period.train_reward):
            raise ValueError("period.train_policy and period.train_reward are both off: there is nothing to train")
        if self.period.schedule and not (self.period.train_policy and self.period.train_reward):
            raise ValueError(
                "period.schedule says what each round trains: leave period.train_policy and period.train_reward on, or "
                "the schedule out"
            )
        if self.period.train_reward and not self.recycle.recycles:
            raise ValueError(
                "period.train_reward is on but recycle.pointwise, recycle.pairwise and recycle.reflection are all "
                "off: switch one on, or train_reward off"
            )
        self._check_objective()
        if self.period.train_reward:
            self._check_quotas()
        if self.rollout.engine == "vllm-server" and not self.rollout.server.urls:
            raise ValueError(
                "rollout.engine = vllm-server needs rollout.server.urls: the addresses of running servers, as "
                "http://host:8000"
            )
        return self

    def _check_objective(self) -> None:
        section = self.objective
        if section.dual_clip is not None and section.loss == "cispo":
            raise ValueError(
                "objective.dual_clip has no part in objective.loss = cispo, whose ratio is bounded by "
                "objective.ratio_cap: leave dual_clip out"
            )
        if section.dual_clip is not None and section.dual_clip <= 1.0 + section.eps_high:
            raise ValueError(
                f"objective.dual_clip = {section.dual_clip} must be above 1 + objective.eps_high = "
                f"{1.0 + section.eps_high}: raise it, or leave it out"
            )
        if self.rollout.samples == 1:
            raise ValueError(
                "rollout.samples = 1 leaves no group to compare with: whatever objective.advantage is, every advantage "
                "would be 0 and no step be taken: use at least 2 samples"
            )
        trained = self._trained_kinds()
        if trained and not any(section.kind_weights.get(kind, 1.0) for kind in trained):
            raise ValueError(
                f"objective.kind_weights are 0 for every kind that this run trains on ({', '.join(trained)}): nothing "
                "would be trained: give one of them a weight above 0, or switch another kind on"
            )

    def _trained_kinds(self) -> tuple[TrainedKind, ...]:
        """The kinds whose outputs reach an update, in some round."""
        recycle, quotas = self.recycle, self.quotas
        periods = {step.trains for step in self.period.steps} or {self.period.trains(1)}
        rewarded, others = periods != {"policy"}, bool(recycle.extra)
        kinds: dict[TrainedKind, bool] = {
            "solve": periods != {"reward"},
            "pointwise": rewarded and quotas.judge > 0 and (recycle.pointwise or others),
            "pairwise": rewarded and quotas.judge > 0 and (recycle.pairwise or others),
            "reflection": rewarded and quotas.reflection > 0 and (recycle.reflection or others),
        }
        return tuple(kind for kind, trained in kinds.items() if trained)

    def _check_quotas(self) -> None:
        recycle, quotas = self.recycle, self.quotas
        judges = (recycle.pointwise or recycle.pairwise) and quotas.judge > 0
        reflects = recycle.reflection and quotas.reflection > 0
        extra = bool(recycle.extra) and quotas.judge + quotas.reflection > 0
        if not (judges or reflects or extra):
            raise ValueError(
                f"recycle.judge_quota = {quotas.judge} and recycle.reflection_quota = {quotas.reflection} leave a "
                "reward period nothing of the kinds that are on: raise one, or switch period.train_reward off"
            )
        most = self._most_waiting(judges=judges, reflects=reflects)
        if most is not None and recycle.minimum > most:
            raise ValueError(
                f"recycle.minimum = {recycle.minimum} is never reached: at most {most} tasks wait at a time (quotas "
                f"{quotas.judge} and {quotas.reflection}, recycle.max_age = {recycle.max_age}): lower it, raise the "
                "quotas, or set max_age to none"
            )

    def _most_waiting(self, *, judges: bool, reflects: bool) -> int | None:
        """Most tasks that can wait when a reward period begins; None where there is no bound."""
        recycle, quotas = self.recycle, self.quotas
        if recycle.max_age is None or recycle.extra:
            return None
        judge_cap, reflection_cap = quotas.judge, quotas.reflection
        if recycle.order == "mixed_first":  # each may be made up to what both may take (`recycle`)
            judge_cap = reflection_cap = judge_cap + reflection_cap
        offered = int(self.problems.per_round * (1 + self.rollout.refill))
        fresh = (min(offered, judge_cap) if judges else 0) + (min(offered, reflection_cap) if reflects else 0)
        again = quotas.judge if reflects and judges and recycle.re_evaluation else 0
        return (recycle.max_age + 1) * fresh + recycle.max_age * again

    @property
    def quotas(self) -> Quotas:
        """J and R, each by default half the problems of a round."""
        half = max(1, self.problems.per_round // 2)
        judge, reflection = self.recycle.judge_quota, self.recycle.reflection_quota
        return Quotas(half if judge is None else judge, half if reflection is None else reflection)

    def to_yaml(self) -> str:
        """The complete configuration as YAML; `load_config` reads it back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
