"""Pieces of HTML for the page. Values are escaped here, so that callers pass plain text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from workbench.value_text import show

TEMPLATE_SIGNS = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})
NUMERIC = (int, float)


def escape(value: Any) -> str:
    """Text as HTML. Gradio's HTML component reads its value as a template: its signs are written as entities."""
    return html.escape(str(value)).translate(TEMPLATE_SIGNS)


def share(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A share in percent, with its 95 % interval where there is one."""
    if value is None:
        return "–"
    return f"{value:.1%}" if low is None or high is None else f"{value:.1%} ({low:.1%} to {high:.1%})"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "", empty: str = "Nothing.") -> str:
    """A table that scrolls within itself on a narrow screen; a sentence where it has no rows."""
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="sw-number">{escape(show(cell))}</td>'
            if isinstance(cell, NUMERIC) and not isinstance(cell, bool)
            else f"<td>{escape(show(cell))}</td>"
            for cell in row
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    if not body:
        return f'<p class="sw-none">{escape(f"{caption}: " if caption else "")}{escape(empty)}</p>'
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in headers)
    label = escape(caption or ", ".join(headers))
    return (
        f'<div class="sw-scroll" tabindex="0" role="region" aria-label="{label}"><table class="sw-table">{title}'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def definitions(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one line each."""
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(show(value))}</dd>" for name, value in rows)
    return f'<dl class="sw-facts">{cells}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` "muted", "warning" or nothing."""
    return f'<p class="{"sw-" + kind if kind else ""}">{escape(text)}</p>'


def heading(text: str, level: int = 3) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"
