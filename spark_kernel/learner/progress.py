"""How far an update has come: what a stop must keep so that the update can go on, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(slots=True)
class Totals:
    """Sums over loss tokens of finished optimizer steps; `add` another step's sums when it has been taken."""

    sums: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add to one sum."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def absorb(self, other: Totals) -> None:
        """Add all sums of another."""
        for name, value in other.sums.items():
            self.add(name, value)

    def get(self, name: str) -> float:
        """One sum, 0 where nothing was added."""
        return self.sums.get(name, 0.0)

    def mean(self, name: str, count: str) -> float:
        """One sum divided by another, 0 where that is 0."""
        return self.get(name) / self.get(count) if self.get(count) else 0.0


@dataclass(slots=True)
class UpdateProgress:
    """An update under way. `key` names the period and its rollouts, so that no other update takes it up.

    `version` is the policy version before the update. `old_logprobs`: log-probabilities before the first step, by
    rollout id; None where the period has one step.
    """

    key: str
    version: int
    steps_done: int
    old_logprobs: dict[str, Tensor] | None
    totals: Totals
    seconds: float = 0.0

    def meta(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values."""
        return {
            "key": self.key,
            "version": self.version,
            "steps_done": self.steps_done,
            "rollouts": list(self.old_logprobs) if self.old_logprobs is not None else None,
            "totals": self.totals.sums,
            "seconds": self.seconds,
        }

    @classmethod
    def restore(cls, meta: dict[str, Any], tensors: dict[str, Tensor]) -> UpdateProgress:
        """The inverse of `meta` and the tensors named by position."""
        ids = meta["rollouts"]
        old = None if ids is None else {name: tensors[f"old_logprobs/{i}"] for i, name in enumerate(ids)}
        return cls(
            key=meta["key"],
            version=meta["version"],
            steps_done=meta["steps_done"],
            old_logprobs=old,
            totals=Totals(dict(meta["totals"])),
            seconds=meta["seconds"],
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, named by position."""
        if self.old_logprobs is None:
            return {}
        return {f"old_logprobs/{i}": tensor for i, tensor in enumerate(self.old_logprobs.values())}
