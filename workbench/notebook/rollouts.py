"""Panel 4: the outputs of a round, by problem, filtered and searched; and everything about one of them."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
import pyarrow as pa

from spark_kernel.errors import SparkError
from workbench.notebook.row_table import MOST_ROWS, RowTable
from workbench.notebook.sample_html import (
    details,
    facts_html,
    finding,
    images_html,
    prompt_html,
    siblings_html,
    text_html,
    tokens_html,
    verdicts_html,
)
from workbench.notebook.shared import DataPanel, Shared
from workbench.notebook.style import note, row
from workbench.views import COLUMNS as OUTPUT_COLUMNS
from workbench.views import Preset, RolloutDetail, RolloutTable, RunView
from workbench.views.notes import RunNotes, SampleNote, agreement, key_of
from workbench.views.snapshot import run_config

TRAINING, ALL_ROUNDS, HELD_OUT = "training round", "all training rounds", "held-out evaluation"
MOST_ROUNDS = 20
"""Rounds that are listed together: the newest ones up to the selected one."""
KINDS = ("all", "solve", "pointwise", "pairwise", "reflection")
COLUMNS = (
    "problem", "task", "round", "sample", "verifier", "answer", "wanted", "sources", "made in", "reward", "advantage",
    "judged ✓/✗", "tokens", "yours",
)  # fmt: skip
ANY, MARKED, JUDGED, DISAGREED = "any", "bookmarked", "judged by me", "where I and the verifier disagree"
MINE = (ANY, MARKED, JUDGED, DISAGREED)
YOURS = {"no verdict": None, "right": True, "wrong": False}
ALL_PROBLEMS = "all problems"
RENDERED, RAW, TOKENS = "rendered", "raw text", "tokens by probability"
Decode = Callable[[Sequence[int]], Sequence[str]]


class Rollouts(DataPanel):
    """Filter on the left of the mind, one output below: question, image, answer against gold, reason, reward."""

    def __init__(self, shared: Shared) -> None:
        self._table: RolloutTable | None = None
        self._found: RolloutTable | None = None
        self._loaded: object = None
        self._decoders: dict[Path, Decode | None] = {}
        self._notes: dict[str, SampleNote] = {}
        self._rounds: dict[str, int] = {}
        self._quiet = False
        narrow, wide = widgets.Layout(width="300px"), widgets.Layout(width="420px")
        self.where = widgets.Dropdown(options=[TRAINING, ALL_ROUNDS, HELD_OUT], description="from", layout=narrow)
        self.preset = widgets.Dropdown(options=[str(p) for p in Preset], description="filter", layout=wide)
        self.kind = widgets.Dropdown(options=KINDS, description="task", layout=narrow)
        self.problem = widgets.Dropdown(options=[ALL_PROBLEMS], description="problem", layout=wide)
        self.search = widgets.Text(
            "", description="search", placeholder="in question, output, answer, reason", continuous_update=False,
            layout=wide,
        )  # fmt: skip
        self.style = widgets.Dropdown(options=[RENDERED, RAW, TOKENS], description="show", layout=narrow)
        self.mine = widgets.Dropdown(options=MINE, description="yours", layout=narrow)
        self.yours = widgets.ToggleButtons(
            options=list(YOURS), description="you say", style=widgets.ToggleButtonsStyle(button_width="86px"),
            tooltips=["take it back", "this output is right", "this output is wrong"],
        )  # fmt: skip
        self.mark = widgets.Checkbox(False, description="bookmark", indent=False, layout=widgets.Layout(width="110px"))
        self.words = widgets.Text("", description="note", continuous_update=False, layout=wide)
        self.agreed = widgets.HTML()
        self.count = widgets.HTML()
        self.table = RowTable(COLUMNS, "Outputs", self._select)
        self.detail = widgets.HTMLMath()
        for control in (self.where, self.preset, self.kind, self.problem, self.search, self.mine):
            control.observe(self._filter_changed, "value")
        for said in (self.yours, self.mark, self.words):
            said.observe(lambda _: self._guarded(self._keep), "value")
        self.style.observe(lambda _: self._guarded(self._show_detail), "value")
        super().__init__(
            shared,
            row(self.where, self.kind, self.preset),
            row(self.problem, self.search, self.mine),
            self.count,
            self.table.widget,
            row(self.yours, self.mark, self.words),
            self.agreed,
            row(self.style),
            self.detail,
        )

    def show(self, view: RunView) -> None:
        """The outputs of the selected round, of all rounds up to it, or of the evaluation at or before it.

        Raises:
            RunFolderError: they, or the notes about them, cannot be read.
        """
        self._load(view)
        self._notes = RunNotes(view.reader.path).read()
        self._show_rows()
        self._show_detail()

    @property
    def selection(self) -> pd.DataFrame:
        """The outputs that the filters leave, all of them, a row each (`workbench.views.COLUMNS`)."""
        with self.shared.lock:
            found = self._found
        if found is None:
            return pd.DataFrame(columns=list(OUTPUT_COLUMNS))
        frame: pd.DataFrame = found.table.to_pandas()
        return frame

    def _load(self, view: RunView) -> None:
        round = self._round(view)
        if round is None:
            self._table, self._loaded = None, None
            return
        key = (view.reader.path, self.where.value, round, self._shown)
        if key == self._loaded:
            return
        if self.where.value == HELD_OUT:
            self._table = view.evaluation_rollouts(round)
        elif self.where.value == ALL_ROUNDS:
            self._table = view.rollouts([n for n in view.rounds() if n <= round][-MOST_ROUNDS:])
        else:
            self._table = view.rollouts([round])
        self._loaded = key
        solved: dict[str, list[Any]] = {}
        for found in self._table.table.select(["problem_id", "question", "kind", "correct"]).to_pylist():
            entry = solved.setdefault(found["problem_id"], [found["question"] or "", 0, 0])
            if found["kind"] == "solve":
                entry[1] += found["correct"] is True
                entry[2] += 1
        options = [(ALL_PROBLEMS, ALL_PROBLEMS)]
        options += [(_problem_label(name, *entry), name) for name, entry in solved.items()]
        if tuple(options) != self.problem.options:
            kept = self.problem.value
            self._quiet = True
            self.problem.options = options
            self.problem.value = kept if kept in solved else ALL_PROBLEMS
            self._quiet = False

    def _round(self, view: RunView) -> int | None:
        if self.where.value != HELD_OUT:
            return self.shared.selected
        selected = self.shared.selected or 0
        evaluations = view.evaluations()
        return max((n for n in evaluations if n <= selected), default=evaluations[0] if evaluations else None)

    def _show_rows(self) -> None:
        self._found = None
        if self._table is None:
            missing = "There is no evaluation yet." if self.where.value == HELD_OUT else "There is no round yet."
            self.count.value = note(missing)
            self.table.show([])
            return
        found = self._table.filter(
            self.preset.value,
            text=self.search.value,
            kind=None if self.kind.value == "all" else self.kind.value,
            problem_id=None if self.problem.value == ALL_PROBLEMS else self.problem.value,
        )
        found = self._of_mine(found)
        self._found = found
        place = {
            TRAINING: "this round",
            ALL_ROUNDS: f"the rounds up to this one (the newest {MOST_ROUNDS})",
            HELD_OUT: f"the evaluation after round {self._loaded[2]}",  # type: ignore[index]
        }[self.where.value]
        most = f"; the first {MOST_ROWS} are listed, narrow the filter for others" if found.count > MOST_ROWS else ""
        self.count.value = (
            f'<span class="spark-muted">{found.count} of {self._table.count} outputs of {place}{most}</span>'
        )
        rows = found.rows(0, MOST_ROWS)
        self._rounds = {r["id"]: r["round"] for r in rows}
        self.table.show([(r["id"], _cells(r, self._note_of(r))) for r in rows])

    def _show_detail(self) -> None:
        view, selected = self.shared.view, self.table.selected
        self._show_note(selected)
        if view is None or selected is None or self._table is None:
            self.detail.value = ""
            return
        round = self._rounds[selected]
        decode, problem = None, ""
        if self.style.value == TOKENS:
            decode, problem = self._decoder(view)
        look = view.evaluation_rollout if self.where.value == HELD_OUT else view.rollout
        self.detail.value = problem + detail_html(look(round, selected, decode), self.style.value)

    def _kind_of_place(self) -> str:
        return "evaluation" if self.where.value == HELD_OUT else "round"

    def _note_of(self, output: Mapping[str, Any]) -> SampleNote | None:
        return self._notes.get(key_of(f"{self._kind_of_place()} {output['round']}", output["id"]))

    def _of_mine(self, found: RolloutTable) -> RolloutTable:
        """The rows of which a person has said what the filter asks for."""
        if self.mine.value == ANY:
            return found
        keep = []
        for output in found.table.select(["round", "id", "correct"]).to_pylist():
            said = self._note_of(output) or SampleNote("", "")
            both = said.right is not None and output["correct"] is not None
            keep.append(
                {
                    MARKED: said.bookmark,
                    JUDGED: said.right is not None,
                    DISAGREED: both and said.right != output["correct"],
                }[self.mine.value]
            )
        return RolloutTable(found.table.filter(pa.array(keep, pa.bool_())))

    def _show_note(self, selected: str | None) -> None:
        """The chosen output's note in the fields, and what all notes say of the verifier."""
        said = None
        if selected is not None:
            said = self._notes.get(key_of(f"{self._kind_of_place()} {self._rounds[selected]}", selected))
        self._quiet = True
        self.yours.value = next(text for text, right in YOURS.items() if right == (said.right if said else None))
        self.mark.value = said.bookmark if said else False
        self.words.value = said.text if said else ""
        self._quiet = False
        self.agreed.value = f'<span class="spark-muted">{html.escape(agreement(self._notes.values()).sentence)}</span>'

    def _keep(self) -> None:
        """Keep what a person says of the chosen output."""
        view, selected = self.shared.view, self.table.selected
        if self._quiet or view is None or selected is None or self._found is None:
            return
        found = self._found.table
        place = found["id"].to_pylist().index(selected)
        said = SampleNote(
            selected, f"{self._kind_of_place()} {self._rounds[selected]}",
            YOURS[self.yours.value], self.mark.value, self.words.value,
            verifier=found["correct"][place].as_py(),
        )  # fmt: skip
        self._notes = RunNotes(view.reader.path).write(said)
        self._show_rows()
        self._show_detail()

    def _decoder(self, view: RunView) -> tuple[Decode | None, str]:
        """Token ids to texts by the run's own tokenizer; a sentence where it cannot be had."""
        path = view.reader.path
        if self._decoders.get(path) is not None:
            return self._decoders[path], ""
        from spark_kernel.models.load import load_encoder

        try:
            encoder, _ = load_encoder(run_config(view.reader.config_yaml).model)
        except (SparkError, OSError) as error:
            reason = " ".join(str(error).split())
            return None, note(
                f"Tokens are shown by number, because the tokenizer cannot be loaded: {reason}", error=True
            )
        self._decoders[path] = decode = lambda ids: [encoder.tokenizer.decode([i]) for i in ids]
        return decode, ""

    def _select(self, _: str) -> None:
        self._guarded(self._show_detail)

    def _filter_changed(self, _: object) -> None:
        if not self._quiet:
            self.reload()

    def _guarded(self, work: Callable[[], None]) -> None:
        with self.shared.lock:
            try:
                work()
            except (SparkError, OSError) as error:
                self.detail.value = note(" ".join(str(error).split()), error=True)


def detail_html(detail: RolloutDetail, style: str) -> str:
    """Everything about one output."""
    found = detail.row
    raw = style != RENDERED
    title = f"{found['kind']} · problem {found['problem_id']} · sample {found['sample']}"
    asked = detail.messages if found["kind"] not in ("solve", "reflection") else ()
    parts = [
        f"<h3>{html.escape(title)}</h3>",
        images_html(detail.images),
        text_html(found["question"] or "", raw=raw),
        details("the exact prompt", prompt_html(detail.messages), is_open=bool(asked) and style == RAW),
        "<h4>output</h4>",
        tokens_html(detail.tokens) if style == TOKENS else text_html(found["text"] or "", raw=raw),
        facts_html(found),
        details(f"all {len(detail.siblings)} outputs of this task", siblings_html(detail.siblings)),
    ]
    if detail.verdicts:
        parts.append(details(f"{len(detail.verdicts)} verdicts about it", verdicts_html(detail.verdicts)))
    return "".join(parts)


def _problem_label(name: str, question: str, right: int, count: int) -> str:
    words = " ".join(question.split())
    share = f" ({right} of {count} right)" if count else ""
    return f"{words[:60]}{'…' if len(words) > 60 else ''}{share} [{name[:12]}]"


def _cells(found: dict[str, Any], said: SampleNote | None) -> dict[str, Any]:
    wanted = found["gold"] if found["kind"] in ("solve", "reflection") else found["label"]
    return {
        "problem": " ".join((found["question"] or found["problem_id"]).split())[:80],
        "task": found["kind"],
        "round": found["round"],
        "sample": found["sample"],
        "verifier": finding(found["correct"]),
        "answer": found["answer"] if found["answer"] is not None else f"({found['parse'] or 'not verified'})",
        "wanted": wanted,
        "sources": " ".join({True: "✓", False: "✗", None: "–"}[c] for c in found["source_correct"] or ()),
        "made in": found["made_round"] if found["kind"] != "solve" else None,
        "reward": found["reward"],
        "advantage": None if found["advantage"] is None else round(found["advantage"], 3),
        "judged ✓/✗": f"{found['judged_right']}/{found['judged_wrong']}",
        "tokens": found["tokens"],
        "yours": "" if said is None else _said(said),
    }


def _said(said: SampleNote) -> str:
    words = {True: "✓ right", False: "✗ wrong", None: ""}[said.right]
    return " ".join(filter(None, (words, "★" if said.bookmark else "", "✎" if said.text else "")))
