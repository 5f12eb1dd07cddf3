"""What recycling needs to know of a run's configuration: a plain dataclass, quotas resolved to numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

ViewSetting = Literal["answer", "full", "both"]


@dataclass(frozen=True, slots=True)
class RecycleSettings:
    """The fields of `config.RecycleSection`, under the same names, with J and R as numbers.

    `judge_quota` is J and `reflection_quota` is R, in tasks a round; `max_age` is in rounds, None for no limit.
    """

    pointwise: bool
    pairwise: bool
    reflection: bool
    re_evaluation: bool
    judge_quota: int
    reflection_quota: int
    minimum: int
    max_age: int | None
    order: Literal["mixed_first", "fifo"]
    mixed_pairwise_share: float
    judge_view: ViewSetting
    reflection_view: ViewSetting
    reflection_correct_share: float
    balance_pointwise: bool
    extra: tuple[str, ...] = ()


def settings_from(config: Any) -> RecycleSettings:
    """The settings of a run configuration.

    Args:
        config: a `spark_kernel.config.RunConfig`, or anything with its `recycle` section and its resolved
            `judge_quota` and `reflection_quota`.
    """
    section = config.recycle
    return RecycleSettings(
        pointwise=section.pointwise,
        pairwise=section.pairwise,
        reflection=section.reflection,
        re_evaluation=section.re_evaluation,
        judge_quota=config.judge_quota,
        reflection_quota=config.reflection_quota,
        minimum=section.minimum,
        max_age=section.max_age,
        order=section.order,
        mixed_pairwise_share=section.mixed_pairwise_share,
        judge_view=section.judge_view,
        reflection_view=section.reflection_view,
        reflection_correct_share=section.reflection_correct_share,
        balance_pointwise=section.balance_pointwise,
        extra=tuple(section.extra),
    )
