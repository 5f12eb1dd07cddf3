"""A small search for one answer that satisfies a property: that a gold can be satisfied is checked before training."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

from spark_kernel.verify.conditions import Made, Property, Values
from spark_kernel.verify.expressions import UndefinedError, operate

REACH = {1: 1000, 2: 60, 3: 12}
"""By the number of unknowns: how far from 0 they are looked for. No search for more."""
MAX_SEARCHED = 4
"""How many given numbers are put together in all ways."""


def find_answer(asked: Property) -> str | None:
    """Something that satisfies the property, in words for a person; None where the search finds nothing."""
    return _reachable(asked) if isinstance(asked, Made) else _satisfying(asked)


def _satisfying(asked: Values) -> str | None:
    reach = REACH.get(len(asked.names))
    if reach is None:
        return None
    outwards = sorted(range(-reach, reach + 1), key=lambda value: (abs(value), value < 0))
    for values in product(outwards, repeat=len(asked.names)):
        if asked.broken(dict(zip(asked.names, values, strict=True))) is None:
            return ", ".join(map(str, values))
    return None


def _reachable(asked: Made) -> str | None:
    if len(asked.numbers) > MAX_SEARCHED:
        return None
    start = tuple(sorted((Fraction(number), str(number)) for number in asked.numbers))
    waiting, seen = [start], {start}
    while waiting:
        held = waiting.pop()
        if len(held) == 1:
            if held[0][0] == asked.target:
                return held[0][1]
            continue
        for first, second in combinations(range(len(held)), 2):
            rest = tuple(item for place, item in enumerate(held) if place not in (first, second))
            for a, b in ((held[first], held[second]), (held[second], held[first])):
                for operation in asked.operations:
                    try:
                        value = operate(operation, a[0], b[0])
                    except UndefinedError:
                        continue
                    following = tuple(sorted((*rest, (value, f"({a[1]} {operation} {b[1]})"))))
                    if following not in seen:
                        seen.add(following)
                        waiting.append(following)
    return None
