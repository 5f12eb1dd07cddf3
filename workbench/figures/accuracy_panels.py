"""The figures that say what was right: answers, judging and reflecting, and which way verdicts lean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spark_kernel.evaluate.judge_words import one_sided_sentence
from workbench.figures.panel import HIDDEN, Data, Panel, Row, Slot
from workbench.figures.slots import (
    SHARE_AXIS,
    grey_slot,
    held_out_slot,
    line_slots,
    of_all_origins,
    of_kind,
    share_text,
)
from workbench.figures.style import GREY, KIND_COLOURS, KIND_NAMES, percent
from workbench.views.lines import Line
from workbench.views.series import RoundSeries

CHANCE_MARKS: Mapping[str, Any] = {
    "name": "chance (held-out)",
    "mode": "markers",
    "marker": {"symbol": "line-ew-open", "size": 14, "color": GREY, "line": {"width": 2, "color": GREY}},
    "hovertemplate": "chance (held-out)<br>after round %{customdata}<br>%{text}<extra></extra>",
}
CHANCE_LINE: Mapping[str, Any] = {
    "name": "chance of that",
    "mode": "lines",
    "line": {"color": GREY, "width": 1.3, "dash": "dash"},
    "hovertemplate": "chance of balanced judging: 50 %<extra></extra>",
}


def overview_panel() -> Panel:
    """The headline's three figures, held-out, over rounds: solved, judges its own answers, right after the loop."""
    solve, judge, reflect = (KIND_COLOURS[kind] for kind in ("solve", "pointwise", "reflection"))
    return Panel(
        "overview",
        "On held-out problems",
        (Row("share", "share right", SHARE_AXIS),),
        (
            held_out_slot(
                "share", "judges its answers (balanced)", judge, "circle", "own/pointwise/answer", "balanced_accuracy",
                place=-1, dash="solid",
            ),
            Slot("share", "chance of that", CHANCE_LINE, _coin("own/pointwise/answer")),
            held_out_slot("share", "solved, greedy", solve, "square-open", "greedy", "accuracy", dash="solid"),
            held_out_slot("share", "after the loop", reflect, "triangle-up", "loop", "after", place=1, dash="solid"),
        ),
        row_height=230,
    )  # fmt: skip


def accuracy_panel() -> Panel:
    """Verifier accuracy of answers: on-policy, held-out, and after the test-time loop."""
    solve, reflect = KIND_COLOURS["solve"], KIND_COLOURS["reflection"]
    return Panel(
        "accuracy",
        "Answers that the verifier calls right",
        (Row("share", "share correct", SHARE_AXIS),),
        (
            *line_slots("share", "training problems", solve, of_kind("solve", "problem"), "accuracy"),
            held_out_slot("share", "held-out, sampled", solve, "diamond", "solve", "accuracy", place=-1),
            held_out_slot("share", "held-out, greedy", solve, "square-open", "greedy", "accuracy", place=0),
            held_out_slot("share", "held-out, after loop", reflect, "triangle-up", "loop", "after", place=1),
        ),
        row_height=280,
    )


def judge_panel() -> Panel:
    """Accuracy of judging by kind with chance and base rate, and success of reflections."""
    slots: list[Slot] = []
    for kind in ("pointwise", "pairwise"):
        colour = KIND_COLOURS[kind]
        slots += line_slots(kind, "training, of answers", colour, of_kind(kind, "solve"), "accuracy", show=_judge_text)
        slots += line_slots(
            kind,
            "training, of reflections",
            colour,
            of_kind(kind, "reflection"),
            "accuracy",
            dash="dot",
            band=False,
            show=_judge_text,
        )
        slots += [
            held_out_slot(kind, "held-out, sees answer", colour, "diamond", f"own/{kind}/answer", "accuracy", place=-1),
            held_out_slot(kind, "held-out, sees all", colour, "square-open", f"own/{kind}/full", "accuracy", place=1),
            grey_slot(kind, "chance (training)", of_kind(kind, "solve"), "chance"),
            grey_slot(
                kind,
                f'base rate of "{"Yes" if kind == "pointwise" else "A"}"',
                of_kind(kind, "solve"),
                "base_rate",
                "dot",
            ),
            Slot(kind, "chance (held-out)", CHANCE_MARKS, _held_out_chance(f"own/{kind}/answer")),
        ]
    colour = KIND_COLOURS["reflection"]
    slots += line_slots("reflection", "training, all sources", colour, of_kind("reflection", "solve"), "accuracy")
    slots += [
        held_out_slot("reflection", "held-out, was wrong", colour, "diamond", "reflection", "from_wrong", place=-1),
        held_out_slot(
            "reflection", "held-out, was right", colour, "square-open", "reflection", "from_correct", place=1
        ),
    ]
    return Panel(
        "judge",
        "Judging and reflecting",
        (
            Row("pointwise", "pointwise: right", SHARE_AXIS),
            Row("pairwise", "pairwise: right", SHARE_AXIS),
            Row("reflection", "reflection: ends right", SHARE_AXIS),
        ),
        tuple(slots),
        flags=True,
    )


def verdicts_panel() -> Panel:
    """What cannot be read, and how one-sided the verdicts are."""
    slots: list[Slot] = []
    for kind in KIND_NAMES:
        slots += line_slots(
            "unreadable", KIND_NAMES[kind], KIND_COLOURS[kind], of_all_origins(kind), "unparseable", band=False
        )
    pointwise, pairwise = KIND_COLOURS["pointwise"], KIND_COLOURS["pairwise"]
    slots += line_slots(
        "says yes", "training, of answers", pointwise, of_kind("pointwise", "solve"), "yes_rate", band=False
    )
    slots += line_slots(
        "says yes",
        "training, of reflections",
        pointwise,
        of_kind("pointwise", "reflection"),
        "yes_rate",
        dash="dot",
        band=False,
    )
    slots += [
        held_out_slot("says yes", "held-out, sees answer", pointwise, "diamond", "own/pointwise/answer", "yes_rate"),
        grey_slot("says yes", "labels Yes (training)", of_kind("pointwise", "solve"), "base_rate", "dot"),
        held_out_slot("says yes", "labels Yes (held-out)", GREY, "line-ew-open", "own/pointwise/answer", "base_rate"),
    ]
    slots += line_slots("says a", "pairs of answers", pairwise, of_kind("pairwise", "solve"), "a_rate", band=False)
    slots += line_slots("says a", "pointwise by letter", pointwise, of_kind("pointwise", "solve"), "a_rate", band=False)
    slots += [
        held_out_slot("says a", "held-out pairs", pairwise, "diamond", "own/pairwise/answer", "a_rate"),
        grey_slot("says a", "labels A (training)", of_kind("pairwise", "solve"), "base_rate", "dot"),
    ]
    return Panel(
        "verdicts",
        "Unreadable outputs, and verdicts that lean to one side",
        (
            Row("unreadable", "unreadable", {"tickformat": ".0%", "rangemode": "tozero"}),
            Row("says yes", 'says "Yes"', SHARE_AXIS),
            Row("says a", 'says "A"', SHARE_AXIS),
        ),
        tuple(slots),
        flags=True,
    )


def _coin(name: str) -> Callable[[RoundSeries], Data]:
    """The chance of balanced accuracy, one half, as far as a held-out line reaches."""

    def data(series: RoundSeries) -> Data:
        line = series.held_out_line(name)
        if line is None or not line.has("balanced_accuracy"):
            return HIDDEN
        rounds = [line.rounds[0], line.rounds[-1]]
        return {"x": rounds, "y": [0.5, 0.5], "text": ["50 %"] * 2, "customdata": rounds, "visible": True}

    return data


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
        told = one_sided_sentence({name: line.get(name)[index] for name in line.figures})
        parts.append(f"<b>one-sided: {told}</b>")
    return "<br>".join(parts)


def _held_out_chance(name: str) -> Callable[[RoundSeries], Data]:
    def data(series: RoundSeries) -> Data:
        line = series.held_out_line(name)
        if line is None or not line.has("chance"):
            return HIDDEN
        values, rounds = line.get("chance"), list(line.rounds)
        said = [percent(value) for value in values]
        return {"x": rounds, "y": list(values), "text": said, "customdata": rounds, "visible": True}

    return data
