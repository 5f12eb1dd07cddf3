"""The six figures of the dashboard.

    figures = make_dashboard(view.series())                    {"accuracy": Figure, "judge": ..., ...}
    widgets = {name: go.FigureWidget(f) for name, f in figures.items()}
    update_dashboard(widgets, view.series())                   again and again; traces never grow
    mark_round(widgets["judge"], 7)                            a vertical line at the selected round

A point's round is its `customdata`, also where a held-out marker stands a little aside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from workbench.figures.combined import combined
from workbench.figures.slots import (
    HIDDEN,
    SHARE_AXIS,
    Data,
    Panel,
    Row,
    Slot,
    grey_slot,
    held_out_slot,
    line_slots,
    make_panel,
    number_text,
    share_text,
    update_panel,
)
from workbench.figures.style import (
    GREY,
    KIND_COLOURS,
    KIND_NAMES,
    MIXED,
    PHASE_COLOURS,
    RIGHT,
    WRONG,
    Theme,
    percent,
    rgba,
)
from workbench.views.lines import Line
from workbench.views.series import RoundSeries

KINDS = ("solve", "pointwise", "pairwise", "reflection")
ROUND_AND_TEXT = "<br>round %{customdata}<br>%{text}<extra></extra>"
MEMORY = KIND_COLOURS["solve"]
PERIODS = ("policy", "reward", "joint")
PHASES = tuple(
    f"{period}/{phase}" for period in ("policy", "reward") for phase in ("roll_out", "verify", "recycle", "update")
)
PANELS = ("accuracy", "judge", "verdicts", "groups", "optimizer", "cost")
"""The names of the figures, in the order in which they are read."""


def make_dashboard(series: RoundSeries, theme: Theme = "light", *, compact: bool = False) -> dict[str, go.Figure]:
    """The six figures by name (`PANELS`); `compact` as in `make_figure`."""
    return {name: make_figure(name, series, theme, compact=compact) for name in PANELS}


def update_dashboard(figures: Mapping[str, go.Figure], series: RoundSeries) -> None:
    """Show a newer series in figures that `make_dashboard` made, or in `FigureWidget`s of them."""
    for name, figure in figures.items():
        update_figure(name, figure, series)


def make_figure(name: str, series: RoundSeries, theme: Theme = "light", *, compact: bool = False) -> go.Figure:
    """One figure of the dashboard, by a name of `PANELS`.

    Args:
        compact: legends above each row instead of beside it, for pages narrower than about 600 pixels.

    Raises:
        KeyError: no such name.
    """
    return make_panel(MAKERS[name](), series, theme, compact=compact)


def update_figure(name: str, figure: go.Figure, series: RoundSeries) -> None:
    """Show a newer series in one figure, in place; `name` as in `make_figure`."""
    update_panel(figure, MAKERS[name](), series)


def accuracy_panel() -> Panel:
    """Verifier accuracy of answers: on-policy, held-out, and after the test-time loop."""
    solve, reflect = KIND_COLOURS["solve"], KIND_COLOURS["reflection"]
    return Panel(
        "accuracy",
        "Answers that the verifier calls right",
        (Row("share correct", SHARE_AXIS),),
        (
            *line_slots(1, "training problems", solve, _kind("solve", "problem"), "accuracy"),
            held_out_slot(1, "held-out, sampled", solve, "diamond", "solve", "accuracy", place=-1),
            held_out_slot(1, "held-out, greedy", solve, "square-open", "greedy", "accuracy", place=0),
            held_out_slot(1, "held-out, after loop", reflect, "triangle-up", "loop", "after", place=1),
        ),
        row_height=280,
    )


def judge_panel() -> Panel:
    """Accuracy of judging by kind with chance and base rate, and success of reflections."""
    slots: list[Slot] = []
    for row, kind in enumerate(("pointwise", "pairwise"), start=1):
        colour = KIND_COLOURS[kind]
        slots += line_slots(row, "training, of answers", colour, _kind(kind, "solve"), "accuracy", show=_judge_text)
        slots += line_slots(
            row,
            "training, of reflections",
            colour,
            _kind(kind, "reflection"),
            "accuracy",
            dash="dot",
            band=False,
            show=_judge_text,
        )
        slots += [
            held_out_slot(row, "held-out, sees answer", colour, "diamond", f"own/{kind}/answer", "accuracy", place=-1),
            held_out_slot(row, "held-out, sees all", colour, "square-open", f"own/{kind}/full", "accuracy", place=1),
            grey_slot(row, "chance (training)", _kind(kind, "solve"), "chance"),
            grey_slot(
                row, f'base rate of "{"Yes" if kind == "pointwise" else "A"}"', _kind(kind, "solve"), "base_rate", "dot"
            ),
            Slot(row, _chance_marks(), lambda series, kind=kind: _held_out_chance(series, f"own/{kind}/answer")),
        ]
    colour = KIND_COLOURS["reflection"]
    slots += line_slots(3, "training, all sources", colour, _kind("reflection", "solve"), "accuracy")
    slots += [
        held_out_slot(3, "held-out, was wrong", colour, "diamond", "reflection", "from_wrong", place=-1),
        held_out_slot(3, "held-out, was right", colour, "square-open", "reflection", "from_correct", place=1),
    ]
    return Panel(
        "judge",
        "Judging and reflecting",
        (
            Row("pointwise: right", SHARE_AXIS),
            Row("pairwise: right", SHARE_AXIS),
            Row("reflection: ends right", SHARE_AXIS),
        ),
        tuple(slots),
        flags=True,
    )


def verdicts_panel() -> Panel:
    """What cannot be read, and how one-sided the verdicts are."""
    slots: list[Slot] = []
    for kind in KINDS:
        slots += line_slots(1, KIND_NAMES[kind], KIND_COLOURS[kind], _combined(kind), "unparseable", band=False)
    pointwise, pairwise = KIND_COLOURS["pointwise"], KIND_COLOURS["pairwise"]
    slots += line_slots(2, "training, of answers", pointwise, _kind("pointwise", "solve"), "yes_rate", band=False)
    slots += line_slots(
        2, "training, of reflections", pointwise, _kind("pointwise", "reflection"), "yes_rate", dash="dot", band=False
    )
    slots += [
        held_out_slot(2, "held-out, sees answer", pointwise, "diamond", "own/pointwise/answer", "yes_rate"),
        grey_slot(2, "labels Yes (training)", _kind("pointwise", "solve"), "base_rate", "dot"),
        held_out_slot(2, "labels Yes (held-out)", GREY, "line-ew-open", "own/pointwise/answer", "base_rate"),
    ]
    slots += line_slots(3, "pairs of answers", pairwise, _kind("pairwise", "solve"), "a_rate", band=False)
    slots += line_slots(3, "pointwise by letter", pointwise, _kind("pointwise", "solve"), "a_rate", band=False)
    slots += [
        held_out_slot(3, "held-out pairs", pairwise, "diamond", "own/pairwise/answer", "a_rate"),
        grey_slot(3, "labels A (training)", _kind("pairwise", "solve"), "base_rate", "dot"),
    ]
    return Panel(
        "verdicts",
        "Unreadable outputs, and verdicts that lean to one side",
        (
            Row("unreadable", {"tickformat": ".0%", "rangemode": "tozero"}),
            Row('says "Yes"', SHARE_AXIS),
            Row('says "A"', SHARE_AXIS),
        ),
        tuple(slots),
        flags=True,
    )


def groups_panel() -> Panel:
    """All-right, mixed and all-wrong groups of each kind: only mixed ones teach."""
    slots = []
    for row, kind in enumerate(KINDS, start=1):
        for figure, name, colour, pattern in (
            ("all_wrong", "all wrong", WRONG, "/"),
            ("mixed", "mixed", MIXED, ""),
            ("all_correct", "all right", RIGHT, "."),
        ):
            style = {
                "name": name,
                "mode": "lines",
                "line": {"width": 0.5, "color": colour},
                "stackgroup": f"row {row}",
                "fillcolor": rgba(colour, 0.55),
                "fillpattern": {
                    "shape": pattern,
                    "fgcolor": colour,
                    "size": 6,
                    "solidity": 0.35,
                    "fillmode": "overlay",
                },
                "showlegend": row == 1,
                "legendgroup": name,
                "hovertemplate": f"<b>{KIND_NAMES[kind]}</b>, {name}{ROUND_AND_TEXT}",
            }
            slots.append(Slot(row, style, _group_data(kind, figure)))
    axis = {**SHARE_AXIS, "range": [0, 1], "dtick": 0.5}
    titles = ("solving", "pointwise", "pairwise", "reflection")
    return Panel(
        "groups",
        "Groups of outputs by how many are right (training)",
        tuple(Row(t, axis) for t in titles),
        tuple(slots),
        row_height=80,
    )


def optimizer_panel() -> Panel:
    """Loss, KL and entropy by kind, gradient norm by period."""
    slots: list[Slot] = []
    more = (("clip_share", "share clipped"), ("loss_tokens", "loss tokens"))
    for row, (figure, unit) in enumerate((("loss", ""), ("kl", "nats"), ("entropy", "nats")), start=1):
        for kind in KINDS:
            slots += line_slots(
                row,
                KIND_NAMES[kind],
                KIND_COLOURS[kind],
                _by_kind(kind),
                figure,
                band=False,
                show=number_text(figure, unit, more),
            )
    more = (
        ("learning_rate", "learning rate"),
        ("clip_share", "share clipped"),
        ("optimizer_steps", "steps"),
        ("mismatch_mean_abs_logprob", "sampler mismatch"),
    )
    for period, colour, dash in zip(
        PERIODS, (KIND_COLOURS["solve"], KIND_COLOURS["pointwise"], GREY), ("solid", "dash", "dot"), strict=True
    ):
        slots += line_slots(
            4,
            f"{period} period",
            colour,
            _update(period),
            "grad_norm",
            dash=dash,
            band=False,
            show=number_text("grad_norm", "", more),
        )
    return Panel(
        "optimizer",
        "Updates",
        (
            Row("loss"),
            Row("KL (nats)", {"rangemode": "tozero"}),
            Row("entropy (nats)", {"rangemode": "tozero"}),
            Row("gradient norm", {"rangemode": "tozero"}),
        ),
        tuple(slots),
        row_height=100,
    )


def cost_panel() -> Panel:
    """Lengths of outputs, where the time went, and peak memory."""
    slots: list[Slot] = []
    for kind in KINDS:
        slots += line_slots(
            1,
            KIND_NAMES[kind],
            KIND_COLOURS[kind],
            _combined(kind),
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
        slots.append(Slot(2, style, _seconds(phase)))
    for name, figure, colour, dash in (("process", "process", GREY, "solid"), ("GPU", "device", MEMORY, "dash")):
        slots += line_slots(3, name, colour, _memory, figure, dash=dash, band=False, show=number_text(figure, "GiB"))
    rows = ("tokens per output", "seconds per round", "peak memory (GiB)")
    return Panel(
        "cost",
        "Length of outputs, time and memory",
        tuple(Row(title, {"rangemode": "tozero"}) for title in rows),
        tuple(slots),
        row_height=140,
    )


MAKERS: Mapping[str, Callable[[], Panel]] = {
    "accuracy": accuracy_panel,
    "judge": judge_panel,
    "verdicts": verdicts_panel,
    "groups": groups_panel,
    "optimizer": optimizer_panel,
    "cost": cost_panel,
}


def _kind(kind: str, origin: str) -> Callable[[RoundSeries], Line | None]:
    return lambda series: series.kind_line(kind, origin)


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


def _combined(kind: str) -> Callable[[RoundSeries], Line | None]:
    return lambda series: combined(series, kind)


def _judge_text(line: Line, index: int) -> str:
    parts = [share_text("accuracy")(line, index)]
    for figure, name in (
        ("balanced_accuracy", "balanced"),
        ("chance", "chance"),
        ("accuracy_mixed", "on mixed groups"),
    ):
        value = line.get(figure)[index]
        if value is not None:
            parts.append(f"{name} {percent(value)}")
    if line.get("one_sided")[index] == 1.0:
        parts.append("<b>nearly always the same verdict</b>")
    return "<br>".join(parts)


def _chance_marks() -> dict[str, object]:
    return {
        "name": "chance (held-out)",
        "mode": "markers",
        "marker": {"symbol": "line-ew-open", "size": 14, "color": GREY, "line": {"width": 2, "color": GREY}},
        "hovertemplate": "chance (held-out)<br>after round %{customdata}<br>%{text}<extra></extra>",
    }


def _held_out_chance(series: RoundSeries, name: str) -> Data:
    line = series.held_out_line(name)
    if line is None or not line.has("chance"):
        return HIDDEN
    values = line.get("chance")
    rounds = list(line.rounds)
    return {"x": rounds, "y": list(values), "text": [percent(v) for v in values], "customdata": rounds, "visible": True}


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
