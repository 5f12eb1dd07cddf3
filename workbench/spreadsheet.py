"""Text from models in a file that a spreadsheet may open."""

from __future__ import annotations

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would take for a formula."""


def inert_cell(text: str) -> str:
    """Text that no spreadsheet runs: with an apostrophe before it where it would be a formula."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text
