r"""What our own reader does not read (integrals, sums, limits, other functions), through math-verify and sympy.

Symbols keep their case, and values are compared by kind here too: an equation never answers a number. sympy's run time
has no bound, so this belongs into a worker with a deadline (`verify.pool`); math-verify's own alarms are switched off,
because they need the main thread and cannot interrupt a long integer operation.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from random import Random
from typing import Any

from spark_kernel.verify.dress import undress
from spark_kernel.verify.library_size import too_large

MAX_LENGTH = 500
MAX_NESTING = 8
"""The library's parser takes time that grows with a power of the nesting."""
MAX_OPERATORS = 4
"""sympy works out integrals, sums and limits one inside the other, in a time that nothing bounds."""
OPERATOR = re.compile(r"\\(?:i{1,3}nt|oint|sum|prod|lim)(?![A-Za-z])")
DIGITS = 40
POINTS = 3
WORD = re.compile(
    r",\s*0\d|(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}"
    r"|\\text\{|(?<![\\A-Za-z])[A-Za-z]{4,}(?![A-Za-z])|[^\x00-\x7f]|\d:\d\d"
)
KNOWN_WORDS = re.compile(r"(?<![\\A-Za-z])(?:sqrt|sinh|cosh|tanh|arcsin|arccos|arctan)(?![A-Za-z])")
ERRORS = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


def load() -> None:
    """Import the library and build its parser's tables, so that no output's deadline pays for it."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    parse("1+x")


@lru_cache(maxsize=512)
def parse(content: str) -> Any:
    """The sympy object that the library reads; None where it reads none, or where there are words in it."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, normalize_latex
    from math_verify.grader import should_treat_as_complex

    text = undress(content)
    if not text or len(text) > MAX_LENGTH or _nesting(text) > MAX_NESTING or WORD.search(KNOWN_WORDS.sub("", text)):
        return None
    if len(OPERATOR.findall(text)) > MAX_OPERATORS:
        return None
    settings = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none")
    try:
        found = latex2sympy(
            normalize_latex(text, settings),
            is_real=not should_treat_as_complex(text),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except Exception:  # its parser raises bare Exception for any text that it cannot read
        return None
    # What holds or fails whatever the symbols are states no answer: 2 + 3 = 6.
    return None if _kind(found) in ("relation", "other") and not getattr(found, "free_symbols", ()) else found


def same(gold: Any, answer: Any) -> bool:
    """Whether two objects are equal.

    Raises:
        ERRORS: the library cannot compare them.
    """
    from math_verify import verify

    kinds = {_kind(gold), _kind(answer)}
    # A set may answer a condition; a condition that is not solved answers no set.
    if len(kinds) == 2 and (_kind(gold), _kind(answer)) != ("relation", "set"):
        return False
    if too_large(gold) or too_large(answer):
        return bool(gold == answer)
    if kinds == {"expression"}:
        return _same_expression(gold, answer)
    return bool(
        verify(gold, answer, strict=True, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    )


def _same_expression(gold: Any, answer: Any) -> bool:
    import sympy

    one, other = gold.doit(), answer.doit()
    if one == other or sympy.simplify(one - other) == 0:
        return True
    names = sorted(one.free_symbols | other.free_symbols, key=str)
    draw = Random(" ".join(map(str, names)))
    for _ in range(POINTS if names else 1):
        point = {name: sympy.Rational(draw.randint(200, 2000), 1009) for name in names}
        ours, theirs = (sympy.N(side.subs(point), DIGITS) for side in (one, other))
        if not (ours.is_number and theirs.is_number and ours.is_finite and theirs.is_finite):
            return False
        floats = gold.has(sympy.Float) or answer.has(sympy.Float)
        scale = max(abs(ours), abs(theirs))
        if abs(ours - theirs) > scale * (sympy.Float("1e-6") if floats else sympy.Float("1e-30")):
            return False
    return True


def _kind(value: Any) -> str:
    import sympy
    from latex2sympy2_extended.logic import And

    if isinstance(value, sympy.core.relational.Relational | sympy.And | sympy.Or | And):
        return "relation"
    if isinstance(value, sympy.Set):
        return "set"
    if isinstance(value, sympy.MatrixBase):
        return "matrix"
    if isinstance(value, sympy.Tuple):
        return "tuple"
    return "expression" if isinstance(value, sympy.Expr) else "other"


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest
