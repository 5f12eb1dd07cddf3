"""A value as a person reads it in a cell: panels, the page in the browser and its tables show values alike."""

from __future__ import annotations


def show(value: object) -> str:
    """Plain text, to be escaped by whoever writes HTML: numbers in three digits, None a dash, yes and no for truth."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
