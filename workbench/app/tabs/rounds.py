"""The tab "Rounds": one round, phase by phase, and the six figures over all rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from spark_kernel.records import RoundReport
from workbench.app.context import AppContext
from workbench.app.markup import definitions, heading, paragraph, share, table
from workbench.app.plots import plot_data, stamp
from workbench.figures import PANELS, Theme, funnel_figure, make_figure
from workbench.views import RunView
from workbench.views.words import origin_words, reason_words, view_words

SHOWN_GROUPS = 60
SHOWN_TASKS = 60
FIGURES = tuple(name for name in PANELS if name != "overview")
"""The figures of the dashboard but the one that stands in the tab "Reward accuracy"."""


@dataclass(frozen=True, slots=True)
class RoundsTab:
    """The components of the tab: figures over rounds, then a text for each phase, and the funnel."""

    figures: tuple[gr.Plot, ...]
    note: gr.HTML
    phases: Mapping[str, gr.HTML]
    funnel: gr.Plot

    @property
    def outputs(self) -> list[Any]:
        """Everything that `fill_rounds` fills."""
        return [*self.figures, self.note, *self.phases.values(), self.funnel]


PHASES = ("Summary", "Roll out", "Verify", "Recycle", "Update")


def build_rounds() -> RoundsTab:
    """Make the tab's components; call it inside `gr.Tab`."""
    phases = {}
    with gr.Tabs():
        for name in PHASES:
            with gr.Tab(name):
                if name == "Recycle":
                    funnel = gr.Plot(show_label=False, elem_classes="sw-plot")
                phases[name] = gr.HTML("", js_on_load=None, elem_classes="sw-phase")
    gr.HTML(heading("Over all rounds", 2), js_on_load=None)
    note = gr.HTML("", js_on_load=None)
    figures = []
    for start in range(0, len(FIGURES), 2):
        with gr.Row(equal_height=False):
            for _ in FIGURES[start : start + 2]:
                figures.append(gr.Plot(show_label=False, elem_classes="sw-plot", min_width=340))
    return RoundsTab(tuple(figures), note, phases, funnel)


def fill_rounds(tab: RoundsTab, context: AppContext, view: RunView, round: int | None, theme: Theme) -> dict[Any, Any]:
    """What the tab shows of a run and a round; `round` None where the run has none yet."""
    fresh = stamp(view)
    series = context.kept.get(("series", fresh), view.series)
    figures = context.kept.get(
        ("figures", fresh, theme), lambda: [plot_data(make_figure(name, series, theme)) for name in FIGURES]
    )
    out: dict[Any, Any] = dict(zip(tab.figures, figures, strict=True))
    out[tab.note] = "".join(paragraph(text, "muted") for text in (series.thinned, *series.flags) if text)
    if round is None:
        empty = paragraph("No phase of this run is recorded yet.", "muted")
        return out | dict.fromkeys(tab.phases.values(), empty) | {tab.funnel: None}
    out |= fill_texts(tab, context, view, round)
    out[tab.funnel] = context.kept.get(
        ("funnel", fresh, round, theme), lambda: plot_data(funnel_figure(view.funnel([round]), theme))
    )
    return out


def fill_texts(tab: RoundsTab, context: AppContext, view: RunView, round: int) -> dict[Any, Any]:
    """The texts of a round."""
    texts = context.kept.get(("texts", stamp(view), round), lambda: round_texts(view, round))
    return {tab.phases[name]: text for name, text in texts.items()}


def round_texts(view: RunView, round: int) -> dict[str, str]:
    """A text for each of `PHASES`.

    Raises:
        RunFolderError: no such round.
    """
    tables = view.tables(round)
    report = None if tables.in_flight else view.reader.report(round)
    rollouts = tables.rollouts.drop_columns(["token_ids", "logprobs"]).to_pylist()
    return {
        "Summary": _summary(round, report),
        "Roll out": _rolled_out(rollouts, tables.problems.to_pylist()),
        "Verify": _verified(rollouts),
        "Recycle": _recycled(view, round),
        "Update": _updated(report),
    }


def _summary(round: int, report: RoundReport | None) -> str:
    if report is None:
        return paragraph(f"Round {round} is not finished. The phases that are recorded stand under the other tabs.")
    rows = [
        (
            line.period, line.kind, line.origin, line.groups, line.n,
            share(line.accuracy, *((line.reward_low, line.reward_high) if line.accuracy == line.reward_mean else ())),
            share(line.unparseable), share(line.truncated), line.length_mean,
            " / ".join(share(value) for value in (line.all_correct, line.mixed, line.all_wrong)),
        )
        for line in report.kinds
    ]  # fmt: skip
    headers = (
        "period", "kind", "made from", "groups", "outputs", "correct (95 % interval)", "unreadable", "cut off",
        "tokens, mean", "groups all right / mixed / all wrong",
    )  # fmt: skip
    judged = [
        (line.period, line.kind, line.origin, *(share(line.judge.get(name)) for name in JUDGE_FIGURES))
        for line in report.kinds
        if line.judge
    ]
    return (
        table(headers, rows, caption=f"Training outputs of round {round}")
        + table(
            ("period", "kind", "made from", *JUDGE_NAMES), judged, caption="Judging", empty="No judge task was sampled."
        )
        + definitions(
            (
                ("policy version", report.policy_version),
                ("tasks waiting", report.queue_length),
                ("seconds", f"{sum(report.seconds_by_phase.values()):.1f}"),
                *((f"seconds, {name}", f"{value:.2f}") for name, value in report.seconds_by_phase.items()),
            )
        )
        + "".join(paragraph(note, "muted") for note in report.notes)
    )


JUDGE_FIGURES = ("balanced_accuracy", "base_rate", "chance", "yes_rate", "a_rate", "coverage", "accuracy_mixed")
JUDGE_NAMES = (
    "balanced accuracy", "base rate", "chance line", "says Yes", "says A", "readable", "accuracy in mixed groups",
)  # fmt: skip


def _rolled_out(rollouts: list[dict[str, Any]], problems: list[dict[str, Any]]) -> str:
    questions = {row["id"]: (row["question"], row["gold"]) for row in problems}
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rollouts:
        groups.setdefault((row["period"], row["group_index"]), []).append(row)
    rows = []
    for (period, _), members in list(groups.items())[:SHOWN_GROUPS]:
        first = members[0]
        question, gold = questions.get(first["problem_id"], ("(asked in an earlier round)", None))
        answers = Counter(row["answer"] if row["answer"] is not None else "none" for row in members)
        said = ", ".join(f"{_short(answer, 24)} x{n}" for answer, n in answers.most_common(5))
        right = sum(row["correct"] is True for row in members)
        rows.append((period, first["kind"], _short(question), gold, f"{right} of {len(members)}", said))
    more = len(groups) - len(rows)
    return table(
        ("period", "kind", "problem", "gold", "right", "answers or verdicts"), rows,
        caption="Groups in the order of the update", empty="Nothing is rolled out yet.",
    ) + (paragraph(f"{more} more groups; the tab Samples has every output.", "muted") if more > 0 else "")  # fmt: skip


def _verified(rollouts: list[dict[str, Any]]) -> str:
    parses = ("ok", "none", "ambiguous", "timeout", "crash")
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in rollouts:
        counts.setdefault((row["period"], row["kind"]), Counter())[row["parse"] or "not verified"] += 1
    rows = [
        (period, kind, found.total(), *(found[name] for name in parses), found["not verified"])
        for (period, kind), found in counts.items()
    ]
    reasons = Counter(row["reason"] for row in rollouts if row["reason"])
    return table(
        ("period", "kind", "outputs", "read", "no answer", "ambiguous", "timeout", "crash", "not verified"), rows,
        caption="What the verifiers could read", empty="Nothing is verified yet.",
    ) + table(
        ("reason", "outputs"), [(_short(reason, 160), n) for reason, n in reasons.most_common(20)],
        caption="Reasons, the commonest first", empty="No reasons are recorded.",
    )  # fmt: skip


def _recycled(view: RunView, round: int) -> str:
    made = view.recycled(round)
    rows = [
        (
            row.kind, origin_words(row.origin), view_words(row.view), row.label,
            "mixed" if row.from_mixed_group else "uniform",
            row.fate if row.fate_round is None else f"{row.fate} in round {row.fate_round}",
            reason_words(row.reason), f"{row.right} of {row.outputs}" if row.outputs else "", row.template_id,
        )
        for row in made[:SHOWN_TASKS]
    ]  # fmt: skip
    headers = ("kind", "made from", "shows", "label", "group", "what became of it", "reason", "right", "template")
    more = len(made) - len(rows)
    return table(headers, rows, caption=f"Tasks made in round {round}", empty="No task was made.") + (
        paragraph(f"{more} more tasks.", "muted") if more > 0 else ""
    )


def _updated(report: RoundReport | None) -> str:
    if report is None:
        return paragraph("The updates of this round are not finished.", "muted")
    rows = [
        (
            update.period, update.optimizer_steps, update.sequences, update.loss_tokens, update.loss, update.kl,
            update.entropy, share(update.clip_share), update.grad_norm, f"{update.learning_rate:.2e}", update.seconds,
        )
        for update in report.updates
    ]  # fmt: skip
    headers = (
        "period", "optimizer steps", "outputs", "loss tokens", "loss", "KL (nats)", "entropy (nats)", "clipped",
        "gradient norm", "learning rate", "seconds",
    )  # fmt: skip
    kinds = [
        (update.period, kind, *(figures.get(name) for name in ("loss", "kl", "entropy", "clip_share", "loss_tokens")))
        for update in report.updates
        for kind, figures in update.by_kind.items()
    ]
    return (
        table(headers, rows, caption="Updates", empty="No update was made.")
        + table(("period", "kind", "loss", "KL", "entropy", "clipped", "loss tokens"), kinds, caption="By kind")
        + "".join(paragraph(note, "muted") for update in report.updates for note in update.notes)
    )


def _short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
