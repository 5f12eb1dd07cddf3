"""The tab "Samples": a table to filter and search, and one sample in detail; j, k and n go through it by key."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from spark_kernel.errors import InputError
from workbench.app.cards import notice, one_block
from workbench.app.context import AppContext
from workbench.app.detail import sample_html
from workbench.app.links import sample_link
from workbench.app.markup import escape, paragraph
from workbench.app.samples import ANY, HELD_OUT, KINDS, RIGHT, SCOPES, THIS_ROUND, WRONG, SamplePage, SampleQuery
from workbench.app.tabs.live_form import LATEX
from workbench.value_text import show
from workbench.views import Preset

READY = (
    Preset.JUDGED_WRONG, Preset.PAIRS_WRONG, Preset.REJECTED_RIGHT, Preset.FOOLED, Preset.SPOILT, Preset.MENDED,
    Preset.UNPARSEABLE, Preset.ALL,
)  # fmt: skip
"""The filters that one click sets."""
PICK = """
element.addEventListener('click', event => {
  const row = event.target.closest('tr[data-id]');
  if (row) { window.swSelect(row); trigger('pick', {id: row.dataset.id, round: row.dataset.round}); }
});
"""
"""A click on a row; `swSelect` (page.js) marks it at once, the detail comes from the server."""
CHOOSE = "Choose a row: its prompt, output, verdicts and group stand here."
SHORTCUTS = "Keys: j next, k previous, n next disagreement between judge and verifier."
DOWNLOAD = """(text, name) => {
  if (!text) return;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/csv'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""
REMEMBER = "link => { window.swSample(link); }"
FILTERED = "(...values) => { window.swFilters(values); return values; }"


@dataclass(frozen=True, slots=True)
class SamplesTab:
    """The components of the tab."""

    scope: gr.Dropdown
    preset: gr.Dropdown
    kind: gr.Dropdown
    finding: gr.Dropdown
    text: gr.Textbox
    table: gr.HTML
    summary: gr.HTML
    detail: gr.Markdown
    number: gr.Number
    picked: gr.Textbox
    link: gr.Textbox

    @property
    def filters(self) -> list[Any]:
        """What a table depends on, besides run and round."""
        return [self.scope, self.preset, self.kind, self.finding, self.text]

    @property
    def outputs(self) -> list[Any]:
        """What a new table changes."""
        return [self.table, self.summary, self.number]


def build_samples(context: AppContext, run: gr.Dropdown, round: gr.Slider) -> SamplesTab:
    """Make the tab's components and wire them; call it inside `gr.Tab`."""
    with gr.Row(equal_height=False):
        scope = gr.Dropdown(list(SCOPES), value=THIS_ROUND, label="From", min_width=220, elem_id="sw-scope")
        preset = gr.Dropdown(
            [str(p) for p in Preset], value=str(Preset.ALL), label="Show", min_width=220, elem_id="sw-preset"
        )
        kind = gr.Dropdown(list(KINDS), value=ANY, label="Kind", min_width=120, elem_id="sw-kind")
        finding = gr.Dropdown(
            [ANY, RIGHT, WRONG], value=ANY, label="Verifier says", min_width=120, elem_id="sw-finding"
        )
        text = gr.Textbox(
            label="Search", placeholder="question, output, answer, reason or id", max_length=200, min_width=220,
            elem_id="sw-search",
        )  # fmt: skip
    with gr.Row(elem_id="sw-ready", elem_classes="sw-pager"):
        for ready in READY:
            button = gr.Button(str(ready), size="sm", min_width=90)
            # The menu's own change then asks for the table and changes the address.
            button.click(None, outputs=[preset], js=f"() => {json.dumps(str(ready))}", api_visibility="private")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            with gr.Row(elem_classes="sw-pager"):
                summary = gr.HTML("", js_on_load=None, elem_id="sw-summary", scale=3, min_width=160)
                back = gr.Button("Previous page", size="sm", min_width=90, elem_id="sw-page-back")
                forth = gr.Button("Next page", size="sm", min_width=90, elem_id="sw-page-forth")
            table = gr.HTML("", js_on_load=PICK, elem_id="sw-samples")
            with gr.Row(elem_classes="sw-pager"):
                disagree = gr.Button("Next disagreement (n)", size="sm", min_width=140, elem_id="sw-disagree")
                export = gr.Button("Export these rows (CSV)", size="sm", min_width=140, elem_id="sw-export")
            gr.HTML(paragraph(SHORTCUTS, "muted"), js_on_load=None)
        with gr.Column(scale=2, min_width=320):
            detail = gr.Markdown(
                one_block(notice(CHOOSE)),
                elem_id="sw-detail",
                latex_delimiters=LATEX,
                sanitize_html=True,
                container=False,
            )
    number = gr.Number(0, visible=False, precision=0)
    picked = gr.Textbox("", visible=False)
    link = gr.Textbox("", visible=False)
    csv, name = gr.Textbox("", visible=False), gr.Textbox("samples.csv", visible=False)
    tab = SamplesTab(scope, preset, kind, finding, text, table, summary, detail, number, picked, link)
    silent: dict[str, Any] = {
        "queue": False, "show_progress": "hidden", "api_visibility": "private", "preprocess": False,
    }  # fmt: skip
    place = [run, round, *tab.filters]

    def again(step: int | None) -> Callable[..., Any]:
        def turn(run: Any, round: Any, scope: Any, preset: Any, kind: Any, finding: Any, text: Any, number: Any) -> Any:
            query = make_query(round, scope, preset, kind, finding, text)
            wanted = 0 if step is None else int(number or 0) + step
            return fill_table(tab, context, run, query, wanted)

        return context.told(turn)

    for component in tab.filters:
        component.change(again(None), [*place, number], tab.outputs, trigger_mode="always_last", js=FILTERED, **silent)
    back.click(again(-1), [*place, number], tab.outputs, **silent)
    forth.click(again(1), [*place, number], tab.outputs, **silent)

    def pick(run: Any, scope: Any, event: gr.EventData) -> Any:
        # Two strings, as payload.py has checked.
        round = str(event.round)
        if not (round.isascii() and round.isdigit() and len(round) < 10):
            raise InputError("The round must be a number.")
        return fill_detail(context, run, round, event.id, held_out=scope == HELD_OUT)

    chosen = table.pick(context.told(pick), [run, scope], [detail, picked, link], **silent)
    chosen.then(None, [link], js=REMEMBER, api_visibility="private")

    def jump(run: Any, round: Any, scope: Any, preset: Any, kind: Any, finding: Any, text: Any, picked: Any) -> Any:
        query = make_query(round, scope, preset, kind, finding, text)
        view = context.catalog.open_run(str(run))
        found = context.samples.next_disagreement(view, query, str(picked or ""))
        if found is None:
            return {tab.summary: paragraph("There is no further sample here on which judge and verifier disagree.")}
        return fill_sample(tab, context, run, query, found)

    jumped = disagree.click(context.told(jump), [*place, picked], [*tab.outputs, detail, picked, link], **silent)
    jumped.then(None, [link], js=REMEMBER, api_visibility="private")

    def make_csv(run: Any, round: Any, scope: Any, preset: Any, kind: Any, finding: Any, text: Any) -> Any:
        query = make_query(round, scope, preset, kind, finding, text)
        view = context.catalog.open_run(str(run))
        return context.samples.csv(view, query), f"{run}-round-{query.round}-samples.csv"

    made = export.click(context.told(make_csv), place, [csv, name], **silent)
    made.then(None, [csv, name], js=DOWNLOAD, api_visibility="private")
    return tab


def make_query(round: Any, scope: Any, preset: Any, kind: Any, finding: Any, text: Any) -> SampleQuery:
    """The query that the page sent; names are checked where they are used.

    Raises:
        InputError: the round is no number.
    """
    if isinstance(round, bool) or not isinstance(round, int | float):
        raise InputError("The round must be a number.")
    return SampleQuery(int(round), str(scope), str(preset), str(kind), str(finding), str(text or ""))


def fill_table(
    tab: SamplesTab, context: AppContext, run: Any, query: SampleQuery, number: int = 0, keep: str = ""
) -> dict[Any, Any]:
    """A page of the table: the one that holds the sample `keep`, where it is among the rows, else the one asked for."""
    view = context.catalog.open_run(str(run))
    page = context.samples.page_of(view, query, keep) if keep else None
    if page is not None:
        return _table_updates(tab, page, keep)
    return _table_updates(tab, context.samples.page(view, query, number), "")


def fill_sample(tab: SamplesTab, context: AppContext, run: Any, query: SampleQuery, sample: str) -> dict[Any, Any]:
    """The page that holds a sample, with it selected, and its detail.

    Raises:
        InputError: the sample is not among the rows that match.
    """
    view = context.catalog.open_run(str(run))
    page = context.samples.page_of(view, query, sample)
    if page is None:
        raise InputError(f"Round {query.round} of this run has no sample of that id.")
    row = next(row for row in page.rows if row["id"] == sample)
    detail, picked, link = fill_detail(context, run, row["round"], sample, held_out=query.scope == HELD_OUT)
    return _table_updates(tab, page, sample) | {tab.detail: detail, tab.picked: picked, tab.link: link}


def fill_detail(context: AppContext, run: Any, round: Any, sample: Any, *, held_out: bool) -> tuple[str, str, str]:
    """A sample's detail, its id, and the link to it."""
    view = context.catalog.open_run(str(run))
    number = int(round)
    found = view.evaluation_rollout(number, str(sample)) if held_out else view.rollout(number, str(sample))
    text = sample_html(str(run), found, held_out=held_out, image_pixels=context.limits.image_pixels)
    return text, str(sample), sample_link(str(run), number, str(sample), held_out=held_out)


def table_html(page: SamplePage, selected: str) -> str:
    """The rows, each with its id: what a click or a key finds it by."""
    if not page.rows:
        return paragraph("No sample matches.", "muted")
    return (
        '<div class="sw-scroll" tabindex="0" role="region" aria-label="samples"><table class="sw-table sw-pick">'
        '<thead><tr><th scope="col">kind</th><th scope="col">question</th><th scope="col">read</th>'
        '<th scope="col">should be</th><th scope="col">verifier</th><th scope="col">judges: right / wrong</th>'
        '<th scope="col">tokens</th></tr></thead><tbody>'
        + "".join(_row(row, selected) for row in page.rows)
        + "</tbody></table></div>"
    )


def _row(row: Any, selected: str) -> str:
    word, style = {True: ("right", "good"), False: ("wrong", "bad"), None: ("–", "unverified")}[row["correct"]]
    judged = f"{row['judged_right']} / {row['judged_wrong']}" if row["judged_right"] or row["judged_wrong"] else ""
    mark = ' class="sw-selected" aria-current="true"' if row["id"] == selected else ""
    answer = row["answer"] if row["answer"] is not None else f"({row['parse'] or 'not verified'})"
    return (
        f'<tr data-id="{escape(row["id"])}" data-round="{row["round"]}"{mark}><td>{escape(row["kind"])}</td>'
        f"<td>{escape(_short(row['question'] or '(asked in an earlier round)'))}{_pair(row['pair'])}</td>"
        f"<td>{escape(_short(str(answer), 24))}</td><td>{escape(_short(str(show(row['label'])), 24))}</td>"
        f'<td><span class="sw-chip sw-{style}">{word}</span></td><td>{judged}</td>'
        f'<td class="sw-number">{row["tokens"]}</td></tr>'
    )


def _pair(answers: Sequence[str | None] | None) -> str:
    """The two answers that a comparison showed."""
    if not answers:
        return ""
    shown = [f"{letter}: {_short(answer or 'no answer', 30)}" for letter, answer in zip("AB", answers, strict=False)]
    return f'<br><span class="sw-muted">{escape(" | ".join(shown))}</span>'


def _table_updates(tab: SamplesTab, page: SamplePage, selected: str) -> dict[Any, Any]:
    last = page.start + len(page.rows)
    text = (
        f"{page.start + 1} to {last} of {page.total} ({page.scanned} in all)" if page.total else f"0 of {page.scanned}"
    )
    summary = paragraph(text) + (paragraph(page.note, "muted") if page.note else "")
    return {tab.table: table_html(page, selected), tab.summary: summary, tab.number: page.number}


def _short(text: str, most: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
