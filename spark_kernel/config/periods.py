"""How a round is cut into updates, and which of its periods a round has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import field_validator

from spark_kernel.config.section import Section

Trains = Literal["policy", "reward", "both"]
STEP = re.compile(r"\s*(?:(\d{1,6})\s+)?(policy|reward|both)\s*")


@dataclass(frozen=True, slots=True)
class ScheduleStep:
    """A step of a schedule: what is trained, and for how many rounds (None: to the end)."""

    trains: Trains
    rounds: int | None

    def __str__(self) -> str:
        return self.trains if self.rounds is None else f"{self.rounds} {self.trains}"


class PeriodSection(Section):
    """How a round is cut into updates."""

    order: Literal["alternating", "joint"] = "alternating"
    """Two updates a round, judging by the updated policy; or one update from both halves."""
    train_policy: bool = True
    """Update on solve rollouts (off: the reward-only arm)."""
    train_reward: bool = True
    """Sample and update on recycled tasks (off: the policy-only arm)."""
    schedule: tuple[str, ...] = ()
    """What is trained by round, where it changes: steps such as "10 reward" or "both", a number of rounds and policy,
    reward or both. The last step may have no number and goes on to the end; where every step has one, they begin again:
    "2 policy" "1 both" has a reward period every third round. Empty: every round as the switches say."""

    @field_validator("schedule")
    @classmethod
    def _steps_that_can_be_read(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        steps = [_read_step(text) for text in texts]
        if any(step.rounds is None for step in steps[:-1]):
            raise ValueError("a step without a number of rounds goes on to the end, so it must be the last one")
        if steps and len({step.trains for step in steps}) == 1:
            raise ValueError(
                f"every step trains {steps[0].trains}: leave it out and use train_policy and train_reward, or name "
                "another step"
            )
        return tuple(map(str, steps))

    @property
    def steps(self) -> tuple[ScheduleStep, ...]:
        """The schedule's steps; none where it is empty."""
        return tuple(_read_step(text) for text in self.schedule)

    def trains(self, round: int) -> Trains:
        """What a round (1, 2, ...) trains."""
        steps = self.steps
        if not steps:
            return "both" if self.train_policy and self.train_reward else "policy" if self.train_policy else "reward"
        place = round - 1
        if steps[-1].rounds is not None:
            place %= sum(step.rounds or 0 for step in steps)
        for step in steps:
            if step.rounds is None or place < step.rounds:
                return step.trains
            place -= step.rounds
        raise AssertionError("a place in the cycle lies in one of its steps")

    def has_reward(self, round: int) -> bool:
        """Whether a round has a reward period."""
        return self.trains(round) != "policy"

    def updates_policy(self, round: int) -> bool:
        """Whether a round trains on its solve rollouts; they are sampled in any case, to be recycled."""
        return self.trains(round) != "reward"

    def rounds_to_reward(self, round: int) -> int | None:
        """In how many rounds the next reward period comes, 0 for this one's; None where none comes."""
        horizon = sum(step.rounds or 1 for step in self.steps) if self.schedule else 0
        return next((wait for wait in range(horizon + 1) if self.has_reward(round + wait)), None)


def _read_step(text: str) -> ScheduleStep:
    match = STEP.fullmatch(text)
    if match is None or (match[1] is not None and int(match[1]) == 0):
        raise ValueError(
            f'"{text}" is no step: a number of rounds from 1 and policy, reward or both, as in "10 reward", or only '
            'one of these words in the last step, as in "both"'
        )
    return ScheduleStep(cast(Trains, match[2]), None if match[1] is None else int(match[1]))
