"""Two texts, word by word: what was taken out and what was put in."""

from __future__ import annotations

import html
import re
from difflib import SequenceMatcher

WORD = re.compile(r"\s+|\w+|[^\w\s]")
MOST_WORDS = 4_000
"""Words of one text that are compared; difflib's time grows with their product."""


def diff_html(before: str, after: str) -> str:
    """The second text with `<del>` and `<ins>` against the first, escaped."""
    old, new = (WORD.findall(text)[:MOST_WORDS] for text in (before, after))
    pieces = []
    for operation, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        removed, added = html.escape("".join(old[a:b])), html.escape("".join(new[c:d]))
        if operation == "equal":
            pieces.append(added)
            continue
        if removed:
            pieces.append(f"<del>{removed}</del>")
        if added:
            pieces.append(f"<ins>{added}</ins>")
    return "".join(pieces)
