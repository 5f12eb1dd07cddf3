"""What every way to run prompts and outputs through a network yields."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PredictingStates:
    """`hidden` [N, H] predict `targets` [N]; tokens of all outputs one after the other, in the order given.

    `lengths`: tokens of each output [rows], summing to N.
    """

    hidden: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
