"""From a source's name and options to the source: built-in, installed (entry point) or `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from spark_kernel.errors import InputError
from spark_kernel.problems.source import ProblemSource

ENTRY_POINT_GROUP = "spark_kernel.problem_sources"

BUILT_IN = {
    "arithmetic": "spark_kernel.problems.arithmetic:ArithmeticSource",
    "files": "spark_kernel.problems.files:FilesSource",
    "puzzles": "spark_kernel.problems.puzzles.source:PuzzlesSource",
    "reasoning_gym": "spark_kernel.problems.reasoning_gym:ReasoningGymSource",
}

Factory = Callable[..., ProblemSource]
"""A class or function whose keyword arguments are the source's options; `seed`, where it has one, is the run's."""


def source_names() -> list[str]:
    """The built-in sources and those that installed packages register."""
    return sorted(BUILT_IN | _installed())


def make_source(name: str, options: Mapping[str, Any], seed: int) -> ProblemSource:
    """The source of this name, made with these options; its `seed` is `seed` unless the options give another.

    A name with a colon is read as `package.module:attribute`. A built-in name cannot be taken over by an entry point.

    Raises:
        InputError: no such source, an unknown, missing or unfit option (says which are allowed), or code that cannot
            be loaded or makes no source.
    """
    factory = _load(name)
    arguments = _arguments(name, factory, options, seed)
    source = factory(**arguments)
    if not hasattr(source, "size") or not callable(getattr(source, "problem", None)):
        raise InputError(
            f'The problem source "{name}" made {type(source).__name__}, which lacks size or problem(index).'
        )
    return source


def _installed() -> dict[str, str]:
    points = entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point.value for point in points if point.name not in BUILT_IN}


def _load(name: str) -> Factory:
    target = BUILT_IN.get(name) or (name if ":" in name else _installed().get(name))
    if target is None:
        names = source_names()
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
        raise InputError(
            f'There is no problem source "{name}"{hint}. Sources: {", ".join(names)}; or name one of your own as '
            "package.module:attribute."
        )
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise InputError(f'The problem source "{name}" cannot be imported from "{module}": {error}.') from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InputError(f'The problem source "{name}" names nothing that can be called: "{target}".')
    return found


def _keywords(factory: Factory) -> list[inspect.Parameter]:
    usable = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in inspect.signature(factory).parameters.values() if parameter.kind in usable]


def _arguments(name: str, factory: Factory, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    keywords = {parameter.name: parameter for parameter in _keywords(factory)}
    allowed = [keyword for keyword in keywords if keyword != "seed"]
    kinds = {parameter.kind for parameter in inspect.signature(factory).parameters.values()}
    for option in options:
        if option not in keywords and inspect.Parameter.VAR_KEYWORD not in kinds:
            nearest = difflib.get_close_matches(option, allowed, n=1)
            hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
            raise InputError(
                f'problems.options.{option} is no option of the source "{name}"{hint}. '
                f"Options: {', '.join(allowed) or 'none'}."
            )
    given = {"seed": seed, **options} if "seed" in keywords else dict(options)
    missing = [key for key, parameter in keywords.items() if parameter.default is parameter.empty and key not in given]
    if missing:
        raise InputError(f'The source "{name}" needs problems.options.{missing[0]}. Options: {", ".join(allowed)}.')
    types = _types(factory)
    return {key: _fit(key, value, types[key]) if key in types else value for key, value in given.items()}


def _types(factory: Factory) -> dict[str, Any]:
    """The annotated types of the options; none where the annotations cannot be resolved here."""
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, AttributeError, TypeError):
        return {}


def _fit(option: str, value: Any, wanted: Any) -> Any:
    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        reason = "; ".join(dict.fromkeys(item["msg"] for item in error.errors()))
        raise InputError(
            f"problems.options.{option} = {value!r} is refused: {reason[0].lower()}{reason[1:]}."
        ) from None
