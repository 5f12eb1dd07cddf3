"""Panel 4: the outputs of a round, by problem, filtered and searched; and everything about one of them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd

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
from workbench.views.snapshot import run_config

TRAINING, HELD_OUT = "training round", "held-out evaluation"
KINDS = ("all", "solve", "pointwise", "pairwise", "reflection")
COLUMNS = ("problem", "task", "sample", "verifier", "answer", "wanted", "reward", "advantage", "judged ✓/✗", "tokens")
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
        self._quiet = False
        narrow, wide = widgets.Layout(width="300px"), widgets.Layout(width="420px")
        self.where = widgets.Dropdown(options=[TRAINING, HELD_OUT], description="from", layout=narrow)
        self.preset = widgets.Dropdown(options=[str(p) for p in Preset], description="filter", layout=wide)
        self.kind = widgets.Dropdown(options=KINDS, description="task", layout=narrow)
        self.problem = widgets.Dropdown(options=[ALL_PROBLEMS], description="problem", layout=wide)
        self.search = widgets.Text(
            "", description="search", placeholder="in question, output, answer, reason", continuous_update=False,
            layout=wide,
        )  # fmt: skip
        self.style = widgets.Dropdown(options=[RENDERED, RAW, TOKENS], description="show", layout=narrow)
        self.count = widgets.HTML()
        self.table = RowTable(COLUMNS, "Outputs", self._select)
        self.detail = widgets.HTMLMath()
        for control in (self.where, self.preset, self.kind, self.problem, self.search):
            control.observe(self._filter_changed, "value")
        self.style.observe(lambda _: self._guarded(self._show_detail), "value")
        super().__init__(
            shared,
            row(self.where, self.kind, self.preset),
            row(self.problem, self.search),
            self.count,
            self.table.widget,
            row(self.style),
            self.detail,
        )

    def show(self, view: RunView) -> None:
        """The outputs of the selected round, or of the evaluation at or before it.

        Raises:
            RunFolderError: they cannot be read.
        """
        self._load(view)
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
        held_out = self.where.value == HELD_OUT
        self._table = view.evaluation_rollouts(round) if held_out else view.rollouts([round])
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
        if self.where.value == TRAINING:
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
        self._found = found
        place = f"the evaluation after round {self._loaded[2]}" if self.where.value == HELD_OUT else "this round"  # type: ignore[index]
        most = f"; the first {MOST_ROWS} are listed, narrow the filter for others" if found.count > MOST_ROWS else ""
        self.count.value = (
            f'<span class="spark-muted">{found.count} of {self._table.count} outputs of {place}{most}</span>'
        )
        self.table.show([(r["id"], _cells(r)) for r in found.rows(0, MOST_ROWS)])

    def _show_detail(self) -> None:
        view, selected = self.shared.view, self.table.selected
        if view is None or selected is None or self._table is None:
            self.detail.value = ""
            return
        round = self._loaded[2]  # type: ignore[index]
        decode, problem = None, ""
        if self.style.value == TOKENS:
            decode, problem = self._decoder(view)
        look = view.evaluation_rollout if self.where.value == HELD_OUT else view.rollout
        self.detail.value = problem + detail_html(look(round, selected, decode), self.style.value)

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


def _cells(found: dict[str, Any]) -> dict[str, Any]:
    wanted = found["gold"] if found["kind"] in ("solve", "reflection") else found["label"]
    return {
        "problem": " ".join((found["question"] or found["problem_id"]).split())[:80],
        "task": found["kind"],
        "sample": found["sample"],
        "verifier": finding(found["correct"]),
        "answer": found["answer"] if found["answer"] is not None else f"({found['parse'] or 'not verified'})",
        "wanted": wanted,
        "reward": found["reward"],
        "advantage": None if found["advantage"] is None else round(found["advantage"], 3),
        "judged ✓/✗": f"{found['judged_right']}/{found['judged_wrong']}",
        "tokens": found["tokens"],
    }
