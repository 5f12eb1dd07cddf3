"""Whether sympy would build a number too long to be worth it, found without building it."""

from __future__ import annotations

import math
from typing import Any

MAX_DIGITS = 5000


def too_large(expression: Any) -> bool:
    """Whether evaluating would build a number of more than 5000 digits."""
    from sympy import Pow, factorial, preorder_traversal

    return any(
        (isinstance(node, Pow) and _digits(node) > MAX_DIGITS)
        or (isinstance(node, factorial) and _magnitude(node.args[0]) > 3)
        for node in preorder_traversal(expression)
    )


def _digits(power: Any) -> float:
    """About how many digits a numeric power has, without computing it; 0 where the base holds a symbol."""
    base, exponent = power.args
    if base.free_symbols or exponent.free_symbols:
        return 0.0
    exponent_magnitude = _magnitude(exponent)
    if exponent_magnitude > 9:
        return math.inf
    return float(10**exponent_magnitude * max(abs(_magnitude(base)), 0.3))


def _magnitude(expression: Any) -> float:
    """An upper bound of log10 |value| of a numeric expression, for the node types that can grow fast."""
    from sympy import Add, Float, Mul, Pow, Rational, factorial

    if isinstance(expression, Rational):
        top, low = abs(int(expression.p)), int(expression.q)
        return (_log10(top) - _log10(low)) if top else 0.0
    if isinstance(expression, Float):
        return math.log10(abs(float(expression)) or 1.0)
    if isinstance(expression, Pow):
        return _digits(expression)
    if isinstance(expression, Mul):
        return sum(_magnitude(arg) for arg in expression.args)
    if isinstance(expression, Add):
        return max(_magnitude(arg) for arg in expression.args) + math.log10(len(expression.args))
    if isinstance(expression, factorial):
        magnitude = _magnitude(expression.args[0])
        return math.inf if magnitude > 9 else 10**magnitude * max(magnitude, 1.0)
    return 1.0


def _log10(number: int) -> float:
    return math.log10(number) if number.bit_length() < 1000 else number.bit_length() * math.log10(2)
