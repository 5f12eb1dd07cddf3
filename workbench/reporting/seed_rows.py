"""Arms over seeds as rows of a table: what each reaches, the difference with its interval, and what may be said."""

from __future__ import annotations

from workbench.views import RunsComparison

ARM_HEADERS = ("measure", "against", "first", "second", "difference, points (95 %)", "seeds", "what may be said")


def arm_cells(found: RunsComparison) -> list[tuple[str, ...]]:
    """The rows under `ARM_HEADERS`."""
    rows = []
    for row in found.arm_rows:
        result = row.result
        ends = [f"{100 * value:.1f} %" if value is not None else "-" for value in (result.first, result.second)]
        difference = "-" if result.difference is None else f"{100 * result.difference:+.1f}"
        if result.low is not None and result.high is not None:
            difference += f" ({100 * result.low:+.1f} to {100 * result.high:+.1f})"
        better = "second" if (result.difference or 0.0) > 0 else "first"
        said = f"the {better} is better" if result.is_evidence else "not enough evidence"
        rows.append((row.label, row.second, *ends, difference, str(len(result.seeds)), said))
    return rows
