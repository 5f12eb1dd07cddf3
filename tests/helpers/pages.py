"""HTML that panels show, read as text."""

from __future__ import annotations

import html
import re


def page_text(*parts: str) -> str:
    """The text of HTML, without tags, spaces collapsed."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", " ".join(parts))).split())
