"""The figures that say how training goes: groups that teach, updates, and what a round costs."""

from __future__ import annotations

from collections.abc import Callable

from workbench.figures.combined import combined
from workbench.figures.panel import HIDDEN, Data, Panel, Row, Slot
from workbench.figures.slots import SHARE_AXIS, line_slots, number_text, of_all_origins
from workbench.figures.style import (
    GREY,
    KIND_COLOURS,
    KIND_NAMES,
    MIXED,
    PHASE_COLOURS,
    RIGHT,
    WRONG,
    percent,
    rgba,
)
from workbench.views.lines import Line
from workbench.views.series import RoundSeries

ROUND_AND_TEXT = "<br>round %{customdata}<br>%{text}<extra></extra>"
MEMORY = KIND_COLOURS["solve"]
PERIODS = ("policy", "reward", "joint")
PHASES = tuple(
    f"{period}/{phase}" for period in ("policy", "reward") for phase in ("roll_out", "verify", "recycle", "update")
)


def groups_panel() -> Panel:
    """All-right, mixed and all-wrong groups of each kind: only mixed ones teach."""
    slots = []
    for kind in KIND_NAMES:
        for figure, name, colour, pattern in (
            ("all_wrong", "all wrong", WRONG, "/"),
            ("mixed", "mixed", MIXED, ""),
            ("all_correct", "all right", RIGHT, "."),
        ):
            style = {
                "name": name,
                "mode": "lines",
                "line": {"width": 0.5, "color": colour},
                "stackgroup": f"groups of {kind}",
                "fillcolor": rgba(colour, 0.55),
                "fillpattern": {
                    "shape": pattern,
                    "fgcolor": colour,
                    "size": 6,
                    "solidity": 0.35,
                    "fillmode": "overlay",
                },
                "showlegend": kind == "solve",
                "legendgroup": name,
                "hovertemplate": f"<b>{KIND_NAMES[kind]}</b>, {name}{ROUND_AND_TEXT}",
            }
            slots.append(Slot(kind, name, style, _group_data(kind, figure)))
    axis = {**SHARE_AXIS, "range": [0, 1], "dtick": 0.5}
    titles = {kind: "solving" if kind == "solve" else kind for kind in KIND_NAMES}
    return Panel(
        "groups",
        "Groups of outputs by how many are right (training)",
        tuple(Row(kind, title, axis) for kind, title in titles.items()),
        tuple(slots),
        row_height=80,
    )


def optimizer_panel() -> Panel:
    """Loss, KL and entropy by kind, gradient norm by period."""
    slots: list[Slot] = []
    of_kinds = (("clip_share", "share clipped"), ("loss_tokens", "loss tokens"))
    for figure, unit in (("loss", ""), ("kl", "nats"), ("entropy", "nats")):
        for kind in KIND_NAMES:
            slots += line_slots(
                figure,
                KIND_NAMES[kind],
                KIND_COLOURS[kind],
                _by_kind(kind),
                figure,
                band=False,
                show=number_text(figure, unit, of_kinds),
            )
    of_updates = (
        ("learning_rate", "learning rate"),
        ("clip_share", "share clipped"),
        ("optimizer_steps", "steps"),
        ("mismatch_mean_abs_logprob", "sampler mismatch"),
    )
    for period, colour, dash in zip(
        PERIODS, (KIND_COLOURS["solve"], KIND_COLOURS["pointwise"], GREY), ("solid", "dash", "dot"), strict=True
    ):
        slots += line_slots(
            "grad_norm",
            f"{period} period",
            colour,
            _update(period),
            "grad_norm",
            dash=dash,
            band=False,
            show=number_text("grad_norm", "", of_updates),
        )
    return Panel(
        "optimizer",
        "Updates",
        (
            Row("loss", "loss"),
            Row("kl", "KL (nats)", {"rangemode": "tozero"}),
            Row("entropy", "entropy (nats)", {"rangemode": "tozero"}),
            Row("grad_norm", "gradient norm", {"rangemode": "tozero"}),
        ),
        tuple(slots),
        row_height=100,
    )


def cost_panel() -> Panel:
    """Lengths of outputs, where the time went, and peak memory."""
    slots: list[Slot] = []
    for kind in KIND_NAMES:
        slots += line_slots(
            "tokens",
            KIND_NAMES[kind],
            KIND_COLOURS[kind],
            of_all_origins(kind),
            "length_mean",
            band=False,
            show=number_text("length_mean", "tokens", (("truncated", "share cut off"),)),
        )
    for phase, colour in zip((*PHASES, "joint/update"), PHASE_COLOURS, strict=True):
        name = phase.replace("/", ": ").replace("_", " ")
        style = {
            "name": name,
            "mode": "lines",
            "line": {"width": 0.5, "color": colour},
            "stackgroup": "seconds",
            "fillcolor": colour,
            "hovertemplate": f"<b>{name}</b><br>round %{{customdata}}<br>%{{text}}<extra></extra>",
        }
        slots.append(Slot("seconds", phase, style, _seconds(phase)))
    for name, figure, colour, dash in (("process", "process", GREY, "solid"), ("GPU", "device", MEMORY, "dash")):
        show = number_text(figure, "GiB")
        slots += line_slots("memory", name, colour, _memory, figure, dash=dash, band=False, show=show)
    titles = {"tokens": "tokens per output", "seconds": "seconds per round", "memory": "peak memory (GiB)"}
    return Panel(
        "cost",
        "Length of outputs, time and memory",
        tuple(Row(name, title, {"rangemode": "tozero"}) for name, title in titles.items()),
        tuple(slots),
        row_height=140,
    )


def _by_kind(kind: str) -> Callable[[RoundSeries], Line | None]:
    return lambda series: series.update_kind_line(kind)


def _update(period: str) -> Callable[[RoundSeries], Line | None]:
    return lambda series: series.update_line(period)


def _memory(series: RoundSeries) -> Line:
    """Peaks in GiB; where a process was resumed, its own count begins anew."""
    figures = {
        name: tuple(None if value is None else value / 2**30 for value in column)
        for name, column in series.memory.figures.items()
    }
    return Line(series.memory.name, series.memory.rounds, figures)


def _group_data(kind: str, figure: str) -> Callable[[RoundSeries], Data]:
    def data(series: RoundSeries) -> Data:
        line = combined(series, kind)
        if line is None or not line.has(figure):
            return HIDDEN
        values, groups = line.get(figure), line.get("groups")
        return {
            "x": list(line.rounds),
            "y": list(values),
            "text": [f"{percent(v)} of {g or 0:.0f} groups" for v, g in zip(values, groups, strict=True)],
            "customdata": list(line.rounds),
            "visible": True,
        }

    return data


def _seconds(phase: str) -> Callable[[RoundSeries], Data]:
    def data(series: RoundSeries) -> Data:
        line = next((line for line in series.seconds if line.name == (phase,)), None)
        if line is None:
            return HIDDEN
        values = line.get("seconds")
        return {
            "x": list(line.rounds),
            "y": list(values),
            "text": ["-" if v is None else f"{v:.3g} s" for v in values],
            "customdata": list(line.rounds),
            "visible": True,
        }

    return data
