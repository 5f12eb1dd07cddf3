"""Panel 5: the tasks made of a round's outputs, what became of each, and what was lost on the way."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets

from spark_kernel.errors import SparkError
from workbench.notebook.row_table import MOST_ROWS, RowTable
from workbench.notebook.sample_html import details, finding, grid, images_html, prompt_html, text_html
from workbench.notebook.shared import DataPanel, Shared
from workbench.notebook.style import note, row, table
from workbench.value_text import show
from workbench.views import FunnelStep, Lineage, RecycledRow, RunView
from workbench.views.words import origin_words, reason_words, view_words

WHOLE_ROUNDS = 100
"""Rounds of the whole run's funnel: the newest ones."""
KINDS = ("all", "pointwise", "pairwise", "reflection")
FATES = ("all", "sampled", "excluded", "waiting")
COLUMNS = ("task", "made from", "shows", "label", "sources", "became", "outputs right", "template")


class Recycled(DataPanel):
    """A funnel of the round, its tasks, and the lineage of one: rollout, template, task, outputs, update."""

    def __init__(self, shared: Shared) -> None:
        self._rows: tuple[RecycledRow, ...] = ()
        self._round: int | None = None
        narrow = widgets.Layout(width="260px")
        self.kind = widgets.Dropdown(options=KINDS, description="task", layout=narrow)
        self.fate = widgets.Dropdown(options=FATES, description="became", layout=narrow)
        self.raw = widgets.Checkbox(False, description="raw text", indent=False)
        self.funnel = widgets.HTML()
        self.whole = widgets.HTML()
        self._whole: object = None
        self.count = widgets.HTML()
        self.table = RowTable(COLUMNS, "Recycled tasks", self._select)
        self.detail = widgets.HTMLMath()
        for control in (self.kind, self.fate):
            control.observe(lambda _: self.reload(), "value")
        self.raw.observe(lambda _: self._select(""), "value")
        super().__init__(
            shared,
            self.funnel,
            self.whole,
            row(self.kind, self.fate, self.raw),
            self.count,
            self.table.widget,
            self.detail,
        )

    def show(self, view: RunView) -> None:
        """The tasks made in the selected round.

        Raises:
            RunFolderError: they cannot be read.
        """
        self._round = self.shared.selected
        if self._round is None:
            self.funnel.value = self.whole.value = self.count.value = self.detail.value = ""
            self.table.show([])
            return
        funnel = view.funnel([self._round])
        steps = funnel.steps if self.kind.value == "all" else funnel.by_kind.get(self.kind.value, ())
        self.funnel.value = funnel_html(steps, f"What became of round {self._round}'s outputs")
        self._show_whole(view)
        self._rows = view.recycled(self._round)
        chosen = [
            r
            for r in self._rows
            if self.kind.value in ("all", r.kind) and self.fate.value in ("all", r.fate)
        ]  # fmt: skip
        more = f"; the first {MOST_ROWS} are listed" if len(chosen) > MOST_ROWS else ""
        said = f"{len(chosen)} of {len(self._rows)} tasks made in round {self._round}{more}"
        self.count.value = f'<span class="spark-muted">{said}</span>'
        self.table.show([(r.id, _cells(r)) for r in chosen])
        self._show_detail(view)

    def _show_whole(self, view: RunView) -> None:
        """The funnel of the run, folded beside the round's; read again only where it may have changed."""
        rounds = view.rounds()[-WHOLE_ROUNDS:]
        key = (view.reader.path, rounds, self._shown, self.kind.value)
        if key == self._whole:
            return
        funnel = view.funnel(rounds)
        steps = funnel.steps if self.kind.value == "all" else funnel.by_kind.get(self.kind.value, ())
        newest = f", the newest {WHOLE_ROUNDS}" if len(view.rounds()) > WHOLE_ROUNDS else ""
        caption = f"What became of the outputs of rounds {rounds[0]} to {rounds[-1]}{newest}"
        self.whole.value = details("the whole run", funnel_html(steps, caption))
        self._whole = key

    def _show_detail(self, view: RunView) -> None:
        if self.table.selected is None or self._round is None:
            self.detail.value = ""
            return
        self.detail.value = lineage_html(view.lineage(self.table.selected, self._round), raw=self.raw.value)

    def _select(self, _: str) -> None:
        with self.shared.lock:
            view = self.shared.view
            if view is None:
                return
            try:
                self._show_detail(view)
            except (SparkError, OSError) as error:
                self.detail.value = note(" ".join(str(error).split()), error=True)


def funnel_html(steps: tuple[FunnelStep, ...], caption: str) -> str:
    """The funnel as a table with bars: what entered each step, what went on, and why the rest did not."""
    most = max((step.entered for step in steps), default=0)
    rows = []
    for step in steps:
        share = 100 * step.remained / most if most else 0.0
        left = "; ".join(
            f"{count} {html.escape(reason_words(reason))}"
            for reason, count in sorted(step.left.items(), key=lambda item: -item[1])
        )
        rows.append(
            f'<tr><th scope="row">{html.escape(step.name)}</th><td>{step.entered} {html.escape(step.unit)}</td>'
            f'<td><span class="spark-bar" style="width:{max(share, 0.5):.1f}px"></span> {step.remained}</td>'
            f"<td>{left or 'nothing'}</td></tr>"
        )
    head = "<tr><th>step</th><th>entered</th><th>went on</th><th>left out, and why</th></tr>"
    return (
        f'<table class="spark-table"><caption>{html.escape(caption)}</caption><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def lineage_html(lineage: Lineage, *, raw: bool) -> str:
    """One task from its sources to the update."""
    task = lineage.row
    became = {
        "sampled": f"{task.outputs} outputs in round {task.fate_round}, {task.right} right",
        "excluded": f"left out in round {task.fate_round}: {reason_words(task.reason)}",
        "waiting": "waiting in the queue",
    }[task.fate]
    count = f"{len(task.sources)} output{'s' if len(task.sources) != 1 else ''}"
    way = [
        f"{count} of policy version {lineage.source_policy_version}",
        f"template {task.template_id}",
        f"{task.kind} task of round {task.made_round}",
        became,
        "update" + (f" of round {task.fate_round}" if lineage.update else " not done yet"),
    ]
    facts: list[tuple[str, object]] = [("label", task.label)]
    if lineage.order is not None:
        facts.append(("order", f"the correct candidate stands at {lineage.order}"))
    if lineage.label_map:
        facts.append(("letters", ", ".join(f"{letter} means {word}" for letter, word in lineage.label_map.items())))
    facts += [("shows of a candidate", view_words(task.view)), ("from a mixed group", task.from_mixed_group)]
    sources = "".join(
        f"<h5>{html.escape(f'{source.position}: ' if source.position else '')}"
        f"{html.escape(finding(source.correct))}, answer {html.escape(str(source.answer))}</h5>"
        + (text_html(source.text, raw=raw) if source.text is not None else "<p>This run does not hold it any more.</p>")
        for source in lineage.sources
    )
    outputs = grid(
        ("sample", "answer", "verifier", "reward", "advantage", "in the update"),
        [
            (o.sample, o.answer, finding(o.correct), o.reward, o.advantage, _used(o.in_update, o.left_out))
            for o in lineage.outputs
        ],
    )
    answers = grid(
        ("policy version", "round", "asked as", "right", "commonest answer"),
        [(a.policy_version, a.round, a.kind, f"{a.right} of {a.n}", a.commonest) for a in lineage.answers],
        "The same problem before and after updates",
    )
    parts = [
        "<p>" + " → ".join(html.escape(step) for step in way) + "</p>",
        "<h4>problem</h4>",
        images_html(lineage.images),
        text_html(lineage.question, raw=raw),
        grid(("gold answer", *(name for name, _ in facts)), [(lineage.gold, *(value for _, value in facts))]),
        f"<h4>made from</h4>{sources}",
        details("the exact prompt", prompt_html(lineage.messages)),
    ]
    if lineage.outputs:
        texts = "".join(
            f"<h5>sample {o.sample}, {html.escape(finding(o.correct))}</h5>{text_html(o.text, raw=raw)}"
            for o in lineage.outputs
        )
        parts += [f"<h4>outputs</h4>{outputs}", details("their texts", texts)]
    if lineage.update:
        parts.append(table([(name, show(value)) for name, value in lineage.update.items()], "The update it went into"))
    parts.append(answers)
    return "".join(parts)


def _used(in_update: bool | None, left_out: str) -> str:
    if in_update is None:
        return "not done yet"
    return "yes" if in_update else f"no: {left_out}"


def _cells(r: RecycledRow) -> dict[str, Any]:
    became = {"sampled": f"sampled in round {r.fate_round}", "excluded": reason_words(r.reason), "waiting": "waiting"}[
        r.fate
    ]
    return {
        "task": r.kind,
        "made from": origin_words(r.origin),
        "shows": view_words(r.view),
        "label": r.label,
        "sources": " ".join({True: "✓", False: "✗", None: "–"}[c] for c in r.source_correct),
        "became": became,
        "outputs right": f"{r.right}/{r.outputs}" if r.outputs else "",
        "template": r.template_id,
    }
