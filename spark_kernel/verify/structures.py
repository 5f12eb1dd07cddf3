r"""Answers made of several values: lists and alternatives, brackets, sets by condition, unions, matrices, cases."""

from __future__ import annotations

import re
from collections.abc import Callable

from spark_kernel.verify.answer_types import Cases, Equation, Labelled, Listing, Matrix, Region, Value, Words
from spark_kernel.verify.formula import Formula, Op, Sym
from spark_kernel.verify.formula_reader import read_formula
from spark_kernel.verify.regions import REALS, UnorderedError, complement, intersected, interval, united
from spark_kernel.verify.relations import as_region, plain_formula
from spark_kernel.verify.splitting import split_items, split_joined, split_rows, split_sets

Read = Callable[[str], Value | None]

ENVIRONMENT = re.compile(
    r"(?P<before>.*?)\\begin\s*\{(?P<name>[a-z]*matrix|array|cases|rcases|dcases)\*?\}(?P<body>.*)\\end\s*\{(?P=name)\*?\}"
    r"(?P<after>.*)",
    re.DOTALL,
)
COLUMNS = re.compile(r"\s*\{[lcr|\s@{}:]*\}")
BUILDER = re.compile(
    r"\s*(?P<variable>\\?[A-Za-z]+(?:_\{?\w+\}?)?)\s*(?P<domain>\\in\s*(?:\\mathbb\{R\}|R)\s*)?(?P<bar>\\mid|\\vert|\||:)\s*(?P<condition>.*)",
    re.DOTALL,
)
REAL_NUMBERS = re.compile(
    r"(?:\\text\{\s*)?(?:(?:all|the(?:\s+set\s+of)?)\s+)*real\s+numbers?(?:\s*\})?|\\mathbb\{R\}", re.IGNORECASE
)
EMPTY_SET = re.compile(
    r"\\emptyset|\\\{\s*\\\}|\{\s*\}|\\text\{\s*(?:the\s+)?empty\s+set\s*\}|(?:the\s+)?empty\s+set", re.IGNORECASE
)
MINUS_SET = re.compile(r"\s*(?:-|\\backslash|/)\s*(?=\\\{)")
VECTOR = re.compile(r"\\langle\s*(.*)\\rangle|<([^<>]*)>", re.DOTALL)
FRENCH = re.compile(r"([\[\]])([^\[\]]*)([\[\]])")
NOUN = re.compile(r"\d\s*(?:\\text\{\s*)?([A-Za-z]{4,})\s*\}?$")
TRANSPOSED = re.compile(r"\s*\^\s*(?:T|\\top|\\intercal|\{\s*(?:T|\\top|\\intercal)\s*\})\s*")
LEADING_ZERO = re.compile(r"0\d+")
UNITS = ("i", "j", "k")


def read_environment(text: str, read: Read) -> Value | None:
    """A matrix, a column as a vector, or cases."""
    match = ENVIRONMENT.fullmatch(text)
    if match is None:
        return None
    if match["name"].endswith("cases"):
        return _cases(match["body"], read)
    if match["name"] in ("vmatrix", "Vmatrix"):
        return None  # a determinant
    body = COLUMNS.sub("", match["body"], count=1) if match["name"] == "array" else match["body"]
    before, after = match["before"].strip(), match["after"].strip()
    if (before[-1:], after[:1]) in (("[", "]"), ("(", ")")):
        before, after = before[:-1].strip(), after[1:].strip()
    turned = TRANSPOSED.fullmatch(after) is not None
    rows = [[read_formula(cell.strip()) for cell in row.split("&")] for row in split_rows(body)]
    if (
        not rows
        or (after and not turned)
        or len({len(row) for row in rows}) != 1
        or any(cell is None for row in rows for cell in row)
    ):
        return None
    cells = tuple(tuple(cell for cell in row if cell is not None) for row in rows)
    if turned:
        cells = tuple(zip(*cells, strict=True))
    if before:
        factor = read_formula(before.removesuffix("\\cdot").strip() if before != "-" else "-1")
        if factor is None:
            return None
        cells = tuple(tuple(Op("*", (factor, cell)) for cell in row) for row in cells)
    return Matrix(cells)


def read_joined(text: str, read: Read) -> Value | None:
    """Several values between commas, `and` and `or`: a list, an assignment of several names, or conditions joined."""
    parts, joints = split_joined(text)
    if len(parts) < 2:
        return None
    if len({noun[1] for part in parts if (noun := NOUN.search(part))}) > 1:
        return None  # "3 apples and 2 oranges" is no set of numbers
    values = [read(part) for part in parts]
    known: list[Value] = [value for value in values if value is not None and not isinstance(value, Words)]
    if len(known) != len(values):
        return None
    if any(isinstance(value, Region) for value in known):
        return _conditions(known, joints)
    if all(isinstance(value, Labelled | Equation) for value in known):
        return _named(known)
    if isinstance(known[0], Labelled) and not any(isinstance(value, Labelled | Equation) for value in known[1:]):
        return Labelled(known[0].label, Listing("list", (known[0].value, *known[1:])), known[0].symbol)
    return Listing("list", _flat(known))


def read_sets(text: str, read: Read) -> Value | None:
    """Unions, intersections and differences of intervals and sets; all real numbers; the empty set."""
    if REAL_NUMBERS.fullmatch(text):
        return REALS
    if EMPTY_SET.fullmatch(text):
        return Listing("set", ())
    operands, operations = split_sets(text)
    if not operations:
        if (match := MINUS_SET.search(text)) is None or not text[: match.start()]:
            return None
        operands, operations = [text[: match.start()], text[match.end() :]], ["\\setminus"]
    values = [read(operand) for operand in operands]
    regions = [as_region(value) if value is not None else None for value in values]
    if any(region is None for region in regions):
        return None
    found, *others = [region for region in regions if region is not None]
    try:
        for operation, other in zip(operations, others, strict=True):
            if operation == "\\cup":
                found = united([found, other])
            elif operation == "\\cap":
                found = intersected([found, other])
            else:
                found = intersected([found, complement(other)])
    except UnorderedError:
        return Region(found.parts + others[0].parts) if operations == ["\\cup"] else None
    return found


def read_brackets(text: str, read: Read) -> Value | None:
    """Tuples, intervals, sets, vectors, nested lists."""
    if match := VECTOR.fullmatch(text):
        return _listing("vector", match[1] or match[2] or "", read)
    if text.startswith(("\\{", "{")) and text.endswith("}"):
        inner = text[2:-2] if text.startswith("\\{") and text.endswith("\\}") else text[1:-1]
        return _builder(inner, read) or _listing("set", inner, read)
    if (match := TRANSPOSED.search(text)) and match.end() == len(text) and match.start() > 1:
        row = text[: match.start()]
        return _listing("vector", row[1:-1], read) if (row[0], row[-1]) in (("(", ")"), ("[", "]")) else None
    opening, closing = text[:1], text[-1:]
    inner = text[1:-1]
    if opening not in ("(", "[", "]") or closing not in (")", "]", "[") or len(text) < 3:
        return _unit_vectors(text)
    if opening == "]" or closing == "[":
        inner = inner.replace("[", "\0").replace("]", "\0")
        if "\0" in inner:
            return None
        opening, closing = "(" if opening == "]" else opening, ")" if closing == "[" else closing
    if not _one_pair(text):
        return _unit_vectors(text)
    if opening == "[" and closing == "]" and (matrix := _nested(inner)) is not None:
        return matrix
    parts = split_items(inner)
    if opening == closing.translate(str.maketrans(")]", "([")):
        if len(parts) == 1:
            return read(inner)
        return _listing("tuple" if opening == "(" else "bracket", inner, read)
    ends = [plain_formula(read(part)) for part in parts]
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return interval(ends[0], ends[1], opening == "[", closing == "]")


def _cases(body: str, read: Read) -> Value | None:
    rows = [[cell.strip().rstrip(",.;").strip() for cell in row.split("&")] for row in split_rows(body)]
    if all(len(row) == 1 for row in rows):
        return read(", ".join(row[0] for row in rows))
    found = []
    for row in rows:
        joined = [
            re.sub(r"^(?:\\text\{\s*(?:if|when|for)\s*\}|if\b|when\b|for\b)\s*", "", cell) for cell in row if cell
        ]
        if len(joined) == 2 and joined[1].startswith("="):
            joined = ["".join(joined)]
        values = [read(cell) for cell in joined]
        if any(value is None for value in values):
            return None
        found.append(tuple(value for value in values if value is not None))
    return Cases(tuple(found))


def _conditions(values: list[Value], joints: set[str]) -> Value | None:
    """Conditions: `or` unites, `and` intersects; a comma intersects unless nothing is left, then it unites."""
    try:
        regions = [as_region(value) for value in values]
        if any(region is None for region in regions):
            return None
        known = [region for region in regions if region is not None]
        if len({region.variable for region in known if region.variable}) > 1:
            return None
        if "or" in joints:
            return united(known)
        both = intersected(known)
        return both if both.parts else united(known)
    except UnorderedError:
        return None


def _named(values: list[Value]) -> Value:
    """`x=1, x=2` are values of one name; `x=1, y=2` are the coordinates of a point, in the order of their names."""
    labelled = [value for value in values if isinstance(value, Labelled)]
    if len(labelled) != len(values):
        return Listing("list", tuple(values))
    labels = [value.symbol or value.label for value in labelled]
    families = {re.sub(r"_.*", "", label) for label in labels}
    if len(set(labels)) == 1 or (len(families) == 1 and all("_" in label for label in labels)):
        return Labelled(labels[0], Listing("list", _flat([value.value for value in labelled])), next(iter(families)))
    if len(set(labels)) == len(labels):
        in_order = sorted(labelled, key=lambda value: value.symbol or value.label)
        return Labelled(", ".join(sorted(labels)), Listing("tuple", tuple(value.value for value in in_order)))
    return Listing("list", tuple(values))


def _flat(values: list[Value]) -> tuple[Value, ...]:
    r"""Lists within a list opened: `0, \pm 2` has three members."""
    items: list[Value] = []
    for value in values:
        items.extend(value.items if isinstance(value, Listing) and value.kind == "list" else [value])
    return tuple(items)


def _listing(kind: str, inner: str, read: Read) -> Value | None:
    if not inner.strip():
        return Listing(kind, ()) if kind == "set" else None
    parts = split_items(inner)
    if any(LEADING_ZERO.fullmatch(part) for part in parts):
        return None  # "(1,000)" is neither a pair nor safely a number
    values = [read(part) for part in parts]
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return None
    return Listing(kind, _flat(known) if kind == "set" else tuple(known))


def _builder(inner: str, read: Read) -> Value | None:
    r"""`\{x \mid x > 2\}`; the condition may be several."""
    match = BUILDER.fullmatch(inner)
    if match is None:
        return None
    variable = read_formula(match["variable"])
    if not isinstance(variable, Sym):
        return None
    found = read(match["condition"])
    region = as_region(found) if found is not None else None
    if region is None or (region.variable and region.variable != variable.name):
        return None
    return Region(region.parts)


def _one_pair(text: str) -> bool:
    """Whether the outermost brackets are one pair."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and place < len(text) - 1:
            return text[0] == "]"
    return True


def _nested(inner: str) -> Matrix | None:
    """`[[1, 2], [3, 4]]`."""
    rows = split_items(inner)
    if len(rows) < 1 or not all(row.startswith("[") and row.endswith("]") for row in rows):
        return None
    cells = [[read_formula(cell) for cell in split_items(row[1:-1])] for row in rows]
    if len({len(row) for row in cells}) != 1 or any(cell is None for row in cells for cell in row):
        return None
    return Matrix(tuple(tuple(cell for cell in row if cell is not None) for row in cells))


def _unit_vectors(text: str) -> Value | None:
    r"""`2\hat{i} + 3\hat{j}` as its coordinates."""
    if "\\hat{" not in text:
        return None
    formula = read_formula(text)
    return None if formula is None else coordinates(formula, tuple(f"\\hat{{{name}}}" for name in UNITS))


def coordinates(formula: Formula, names: tuple[str, ...]) -> Listing | None:
    """The coefficients of a sum of unit vectors; None where it is none."""
    terms = formula.args if isinstance(formula, Op) and formula.name == "+" else (formula,)
    found: dict[str, Formula] = {}
    for term in terms:
        sign = isinstance(term, Op) and term.name == "neg"
        inner = term.args[0] if isinstance(term, Op) and term.name == "neg" else term
        factors = list(inner.args) if isinstance(inner, Op) and inner.name == "*" else [inner]
        vectors = [factor for factor in factors if isinstance(factor, Sym) and factor.name in names]
        if len(vectors) != 1 or vectors[0].name in found:
            return None
        factors.remove(vectors[0])
        coefficient = _coefficient(factors)
        found[vectors[0].name] = Op("neg", (coefficient,)) if sign else coefficient
    from spark_kernel.verify.answer_types import Expression

    width = 3 if names[2] in found else 2
    zero = _coefficient([])
    zero = Op("+", (zero, Op("neg", (zero,))))
    return Listing("vector", tuple(Expression(found.get(name, zero)) for name in names[:width]))


def _coefficient(factors: list[Formula]) -> Formula:
    from fractions import Fraction

    from spark_kernel.verify.formula import Num

    if not factors:
        return Num(Fraction(1))
    return factors[0] if len(factors) == 1 else Op("*", tuple(factors))
