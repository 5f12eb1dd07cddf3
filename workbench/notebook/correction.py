"""Panel 6: self-correction. First answer, verdict and reflection side by side, and what the loop gained and lost."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets

from spark_kernel.errors import SparkError
from workbench.notebook.row_table import MOST_ROWS, RowTable
from workbench.notebook.sample_html import details, difference_html, finding, prompt_html, text_html
from workbench.notebook.shared import DataPanel, Shared
from workbench.notebook.style import note, row
from workbench.views import TRANSITIONS, Chain, ChainStep, RunView, SelfCorrection

ALL = "all"
COLUMNS = ("problem", "first", "verdicts", "final", "change", "ended", "tokens")
CHANGES = {
    "right_right": "right → right",
    "wrong_right": "wrong → right",
    "right_wrong": "right → wrong",
    "wrong_wrong": "wrong → wrong",
}


class Correction(DataPanel):
    """The test-time loop of the held-out evaluation at or before the selected round."""

    def __init__(self, shared: Shared) -> None:
        self._found: SelfCorrection | None = None
        self.change = widgets.Dropdown(
            options=[(ALL, ALL), *((words, name) for name, words in CHANGES.items())],
            description="change",
            layout=widgets.Layout(width="300px"),
        )
        self.raw = widgets.Checkbox(False, description="raw text", indent=False)
        self.summary = widgets.HTML()
        self.table = RowTable(COLUMNS, "Problems of the evaluation", self._select)
        self.detail = widgets.HTMLMath()
        self.change.observe(lambda _: self.reload(), "value")
        self.raw.observe(lambda _: self._select(""), "value")
        super().__init__(shared, self.summary, row(self.change, self.raw), self.table.widget, self.detail)

    def show(self, view: RunView) -> None:
        """The loop of the newest evaluation up to the selected round.

        Raises:
            RunFolderError: it cannot be read.
        """
        evaluations = view.evaluations()
        selected = self.shared.selected
        round = max((n for n in evaluations if selected is None or n <= selected), default=None)
        self._found = view.self_correction(round) if round is not None else None
        if self._found is None:
            self.summary.value = note(
                "There is no held-out evaluation with a test-time loop up to this round yet "
                "(evaluation.every says when there is one)."
            )
            self.table.show([])
        else:
            self.summary.value = summary_html(self._found)
            chains = self._found.chains
            if self.change.value != ALL:
                chains = self._found.with_transition(self.change.value)
            self.table.show([(chain.problem_id, _cells(chain)) for chain in chains[:MOST_ROWS]])
        self._show_detail()

    def _show_detail(self) -> None:
        chains = self._found.chains if self._found is not None else ()
        chain = next((c for c in chains if c.problem_id == self.table.selected), None)
        self.detail.value = chain_html(chain, raw=self.raw.value) if chain is not None else ""

    def _select(self, _: str) -> None:
        with self.shared.lock:
            try:
                self._show_detail()
            except (SparkError, OSError) as error:
                self.detail.value = note(" ".join(str(error).split()), error=True)


def summary_html(found: SelfCorrection) -> str:
    """The transition table with what was gained and lost, and whether that is evidence."""
    counts = {name: found.transitions.get(name, 0) for name in TRANSITIONS}
    gained, lost = counts["wrong_right"], counts["right_wrong"]
    lost_class = ' class="spark-lost"' if lost else ""
    caption = f"The test-time loop after round {found.round}: {found.n} problems"
    table = (
        f'<table class="spark-table"><caption>{caption}</caption>'
        '<thead><tr><th scope="col">problems</th><th scope="col">ends right</th><th scope="col">ends wrong</th></tr>'
        "</thead><tbody>"
        f'<tr><th scope="row">first answer right</th><td>{counts["right_right"]}</td><td{lost_class}>{lost}'
        f"{' lost' if lost else ''}</td></tr>"
        f'<tr><th scope="row">first answer wrong</th><td>{gained}{" gained" if gained else ""}</td>'
        f"<td>{counts['wrong_wrong']}</td></tr></tbody></table>"
    )
    low, high = found.difference[1], found.difference[2]
    if found.n == 0 or low is None or high is None:
        verdict = "There is not enough evidence to say whether the loop helps."
    elif low > 0:
        verdict = "The loop helps."
    elif high < 0:
        verdict = "The loop does harm."
    else:
        verdict = "Not enough evidence that the loop helps or harms."
    p = f" McNemar's exact test: p = {found.mcnemar_p:.2g}." if found.mcnemar_p is not None else ""
    cost = f" It used {found.tokens} tokens where the first answers alone took {found.tokens_first}."
    ends = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in found.stops.items())
    line = (
        f"Right before {_share(found.before)}, after {_share(found.after)}, difference "
        f"{_share(found.difference, sign=True)} (95 % intervals). {verdict}{p}{cost}"
    )
    return f"{table}<p>{html.escape(line)}</p>" + (f"<p>{html.escape(f'Chains ended: {ends}.')}</p>" if ends else "")


def chain_html(chain: Chain, *, raw: bool) -> str:
    """One problem in three columns: answer, verdict about it, and what came of the verdict; then what changed."""
    parts = [
        f"<h4>{html.escape(CHANGES.get(chain.transition or '', 'no finding'))}: gold answer "
        f"{html.escape(chain.gold)}</h4>",
        text_html(chain.question, raw=raw),
    ]
    answers = [step for step in chain.steps if step.kind != "pointwise"]
    for position, answer in enumerate(answers):
        verdict = next((s for s in chain.steps if s.kind == "pointwise" and s.about == answer.index), None)
        following = answers[position + 1] if position + 1 < len(answers) else None
        if position and verdict is None and following is None:
            continue
        name = "first answer" if position == 0 else f"reflection {position}"
        columns = [
            _column(name, answer, chain, raw=raw),
            _column("verdict", verdict, chain, raw=raw),
            _column(f"reflection {position + 1}", following, chain, raw=raw),
        ]
        parts.append(f'<div class="spark-columns">{"".join(columns)}</div>')
        if following is not None:
            shown = difference_html(answer.text, following.text)
            parts.append(details(f"what reflection {position + 1} changed", shown, is_open=True))
    unjudged = chain.final_step.kind == "reflection" and not any(
        s.kind == "pointwise" and s.about == chain.final for s in chain.steps
    )
    if unjudged:
        parts.append("<p>The answer that was returned was never judged.</p>")
    return "".join(parts)


def _column(name: str, step: ChainStep | None, chain: Chain, *, raw: bool) -> str:
    if step is None:
        return f'<div class="spark-column"><h5>{html.escape(name)}</h5><p class="spark-muted">none</p></div>'
    judged = step.kind == "pointwise"
    read = step.answer if step.answer is not None else f"nothing ({step.parse})"
    verified = finding(step.correct) if not judged else f"{finding(step.correct)} verdict"
    returned = " · returned" if step.index == chain.final else ""
    head = f"{name}: {read} · {verified} · {step.tokens} tokens{returned}"
    return (
        f'<div class="spark-column"><h5>{html.escape(head)}</h5>{text_html(step.text, raw=raw)}'
        f"{details('prompt', prompt_html(step.messages))}</div>"
    )


def _cells(chain: Chain) -> dict[str, Any]:
    verdicts = [step.answer or "?" for step in chain.steps if step.kind == "pointwise"]
    return {
        "problem": " ".join(chain.question.split())[:80],
        "first": chain.first.answer,
        "verdicts": ", ".join(verdicts),
        "final": chain.final_step.answer,
        "change": CHANGES.get(chain.transition or "", "–"),
        "ended": chain.stop,
        "tokens": chain.tokens,
    }


def _share(figure: tuple[float | None, float | None, float | None], *, sign: bool = False) -> str:
    value, low, high = figure
    if value is None:
        return "unknown"
    form = "+.1%" if sign else ".1%"
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
