r"""Where a text falls into parts: at commas, `or`, relation signs, set operations, outside all brackets."""

from __future__ import annotations

import re

PIECE = re.compile(
    r"\\begin\s*\{|\\end\s*\{|\\[{}]|\\langle(?![A-Za-z])|\\rangle(?![A-Za-z])|\\[lr](?:floor|ceil)(?![A-Za-z])"
    r"|\\text\{[^{}]*\}|\\[A-Za-z]+|\\.|[(\[{]|[)\]}]|.",
    re.DOTALL,
)
OPENING = frozenset(("(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil"))
CLOSING = frozenset((")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil"))
JOINING = re.compile(
    r"\\text\{\s*,?\s*(?:or|and|&)\s*,?\s*\}|\s(?:or|and)\s|(?<=[\d)\]}])\s*(?:or|and)\s*(?=[\d(\[{\\-])|或者?|和|与|及|\s&\s"
)
OR = re.compile(r"or|或")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
RELATION = re.compile(r"\\(?:leq|geq|neq|approx|sim|equiv|in|notin|lt|gt)(?![A-Za-z])|<=|>=|!=|==|:=|=|<|>|≠")
SIGNS = {
    "<=": "\\leq",
    ">=": "\\geq",
    "!=": "\\neq",
    "==": "=",
    ":=": "=",
    "\\sim": "\\approx",
    "\\lt": "<",
    "\\gt": ">",
}
SET_OPERATION = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])|\\text\{\s*U\s*\}|(?<=[)\]])\s*U\s*(?=[(\[])")


def outside(text: str) -> str:
    """The text with everything inside brackets, environments and `\\text` blanked out; same length."""
    out: list[str] = []
    depth = 0
    for match in PIECE.finditer(text):
        token = match[0]
        begins = token in OPENING or token.startswith("\\begin")
        ends = token in CLOSING
        if token.startswith("\\end"):
            depth -= 1
        if ends:
            depth -= 1
        hidden = depth > 0 or begins or ends or token.startswith("\\end")
        out.append("\0" * len(token) if hidden else token)
        if begins:
            depth += 2 if token.startswith("\\begin") else 1
        if token.startswith("\\end"):
            depth += 1  # its name's brace closes what this opens
    return "".join(out)


def split_joined(text: str, *, commas: bool = True) -> tuple[list[str], set[str]]:
    """The parts between commas, semicolons, `and` and `or`; and which of `,`, `or` and `and` there were.

    A comma in a number with thousands does not split, unless commas without a space split elsewhere too. Inside
    brackets of a pair every comma splits (`split_items`).
    """
    shown = outside(text)
    cuts: list[tuple[int, int, str]] = []
    for match in JOINING.finditer(shown):
        cuts.append((match.start(), match.end(), "or" if OR.search(match[0]) else "and"))
    if commas:
        cuts += [(place, place + 1, ",") for place in _separators(shown)]
    cuts.sort()
    parts, position = [], 0
    for start, end, _ in cuts:
        parts.append(text[position:start])
        position = max(end, position)
    parts.append(text[position:])
    parts = [part.strip() for part in parts]
    return [part for part in parts if part], {kind for _, _, kind in cuts}


def split_items(text: str) -> list[str]:
    """The parts between commas or semicolons, every comma counting: the inside of brackets."""
    shown = outside(text)
    places = [place for place, character in enumerate(shown) if character == ";"]
    places = places or [place for place, character in enumerate(shown) if character == ","]
    return _cut(text, places)


def split_rows(text: str) -> list[str]:
    r"""The parts between `\\`."""
    return [row.strip() for row in re.split(r"\\\\(?:\s*\\hline)?", text) if row.strip()]


def split_relations(text: str) -> tuple[list[str], list[str]]:
    """The sides, and the signs between them."""
    shown = outside(text)
    sides, signs, position = [], [], 0
    for match in RELATION.finditer(shown):
        sides.append(text[position : match.start()].strip())
        sign = match[0].strip()
        signs.append(SIGNS.get(sign, sign))
        position = match.end()
    return [*sides, text[position:].strip()], signs


def split_sets(text: str) -> tuple[list[str], list[str]]:
    """The operands, and the operations between them."""
    shown = outside(text)
    operands, operations, position = [], [], 0
    for match in SET_OPERATION.finditer(shown):
        operands.append(text[position : match.start()].strip())
        operations.append(match[0].strip() if match[0].strip().startswith("\\c") or "set" in match[0] else "\\cup")
        position = match.end()
    return [*operands, text[position:].strip()], operations


def _separators(shown: str) -> list[int]:
    places = [place for place, character in enumerate(shown) if character in ",;"]
    inside = {place for match in THOUSANDS.finditer(shown) for place in range(match.start(), match.end())}
    unspaced = [place for place in places if shown[place] == "," and shown[place + 1 : place + 2].isdigit()]
    if unspaced and all(place in inside for place in unspaced):
        places = [place for place in places if place not in inside]
    return places


def _cut(text: str, places: list[int]) -> list[str]:
    parts, position = [], 0
    for place in places:
        parts.append(text[position:place].strip())
        position = place + 1
    parts.append(text[position:].strip())
    return parts
