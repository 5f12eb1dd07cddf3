"""From a verifier's name to the verifier: built-in, installed (entry point) or `module:Class`."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points

from spark_kernel.errors import InputError
from spark_kernel.verify.verifier import Verifier

ENTRY_POINT_GROUP = "spark_kernel.verifiers"

BUILT_IN = {
    "math": "spark_kernel.verify.mathematics:MathVerifier",
    "choice": "spark_kernel.verify.choice:ChoiceVerifier",
    "any_of": "spark_kernel.verify.any_of:AnyOfVerifier",
    "exact": "spark_kernel.verify.exact:ExactVerifier",
    "integer": "spark_kernel.verify.integer:IntegerVerifier",
    "numeric": "spark_kernel.verify.numeric:NumericVerifier",
    "property": "spark_kernel.verify.property:PropertyVerifier",
    "verdict": "spark_kernel.verify.verdict:VerdictVerifier",
    "reasoning_gym": "spark_kernel.verify.reasoning_gym:ReasoningGymVerifier",
}


def verifier_names() -> list[str]:
    """The names of the built-in verifiers and of those that installed packages register."""
    return sorted(BUILT_IN | _installed())


def get_verifier(name: str) -> Verifier:
    """The verifier of this name, loaded; a name with a colon is read as `package.module:Class`.

    A built-in name cannot be taken over by an entry point. A class is made without arguments.

    Raises:
        InputError: no such name (says which there are), or its code cannot be loaded or is no verifier.
    """
    target = BUILT_IN.get(name)
    if target is None:
        target = name if ":" in name else _installed().get(name)
    if target is None:
        names = verifier_names()
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
        raise InputError(
            f'There is no verifier "{name}"{hint}. Verifiers: {", ".join(names)}; or name a class of your own as '
            "package.module:Class."
        )
    return _load(name, target)


def _installed() -> dict[str, str]:
    """Entry points by name; the target is written `module:attribute`."""
    points: tuple[EntryPoint, ...] = tuple(entry_points(group=ENTRY_POINT_GROUP))
    return {point.name: point.value for point in points if point.name not in BUILT_IN}


def _load(name: str, target: str) -> Verifier:
    module_name, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise InputError(f'The verifier "{name}" cannot be imported from "{module_name}": {_line(error)}.') from error
    for part in attribute.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    # Only a class that has the two methods is ever called: a name may stand in a problem file of uncertain origin.
    if not (isinstance(found, type) and callable(getattr(found, "score", None)) and hasattr(found, "check_gold")):
        raise InputError(
            f'The verifier "{name}" names no class with the methods score(request) and check_gold(problem): '
            f'"{target}" is {"missing" if found is None else type(found).__name__}.'
        )
    try:
        verifier: Verifier = found()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f'The verifier "{name}" could not be made: {_line(error)}.') from error
    return verifier


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(". ")
