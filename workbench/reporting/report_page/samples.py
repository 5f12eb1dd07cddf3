"""The samples of a page: outputs of the newest round of each run, with the filters that each of them passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.views import Preset, RunView

OF_EACH = 15
"""Outputs that each filter is given, at least."""
MOST = 240
"""Outputs of a run."""
LONGEST = 4_000
"""Characters of a question or an output."""
PRESETS = tuple(preset for preset in Preset if preset is not Preset.ALL)


def sample_rows(views: Mapping[str, RunView]) -> list[dict[str, Any]]:
    """Rows for the page's script, by run name: plain values, each with the names of the filters that it passes.

    Raises:
        RunFolderError: a run is damaged.
    """
    return [row for name, view in views.items() for row in _of_run(name, view)]


def filter_counts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The filters in the order of the menu, with how many rows pass each; those that none passes are left out."""
    counts = Counter(name for row in rows for name in row["filters"])
    return [(str(Preset.ALL), len(rows)), *((str(p), counts[str(p)]) for p in PRESETS if counts[str(p)])]


def _of_run(name: str, view: RunView) -> list[dict[str, Any]]:
    rounds = view.reader.rounds
    if not rounds:
        return []
    table = view.rollouts([rounds[-1]])
    passed: dict[str, list[str]] = {}
    chosen: dict[str, None] = {}
    for preset in PRESETS:
        ids = table.filter(preset).table["id"].to_pylist()
        for id in ids:
            passed.setdefault(id, []).append(str(preset))
        chosen |= dict.fromkeys(ids[:OF_EACH])
    others = [id for id in table.table["id"].to_pylist() if id not in chosen]
    chosen |= dict.fromkeys(others[: max(0, MOST - len(chosen))])
    return [_row(name, row, passed.get(row["id"], [])) for row in table.rows() if row["id"] in chosen]


def _row(name: str, row: Mapping[str, Any], filters: list[str]) -> dict[str, Any]:
    question = (row["question"] or row["problem_id"])[:LONGEST]
    judged = row["judged_right"] + row["judged_wrong"]
    return {
        "run": name,
        "round": row["round"],
        "kind": row["kind"],
        "title": " ".join(question.split())[:90],
        "question": question,
        "answer": row["answer"],
        "wanted": row["gold"] if row["kind"] in ("solve", "reflection") else row["label"],
        "right": row["correct"],
        "advantage": row["advantage"],
        "pair": row["pair"],
        "judged": f"judged right {row['judged_right']} times, wrong {row['judged_wrong']} times" if judged else "",
        "text": (row["text"] or "")[:LONGEST],
        "filters": filters,
    }
