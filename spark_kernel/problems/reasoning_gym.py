"""Procedurally generated problems from the `reasoning-gym` package: any family by name, or a weighted mixture.

Unlimited: problem i is item i % CHUNK of a reasoning-gym data set of CHUNK items whose seed is keyed by (seed, family,
i // CHUNK). Chunks are needed because some families build or bound something by their size; the keyed seed is needed
because reasoning-gym gives item i of seed s and item i - 1 of seed s + 1 the same problem.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.keyed_random import content_hash, derive_seed, keyed_random
from spark_kernel.records import Problem

CHUNK = 500
"""Items per generated data set, reasoning-gym's own default size."""
HASH_ORDERED = frozenset(
    {
        "intermediate_integration",
        "isomorphic_strings",
        "knight_swap",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)
"""Families of release 0.1.25 that iterate over Python sets: equal seeds give other problems in another process."""
GENERATOR_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a family raises for a configuration it cannot satisfy."""


@dataclass(frozen=True, slots=True)
class Family:
    """One part of a mixture: a reasoning-gym data set, its share, and its settings (JSON values)."""

    name: str
    weight: float
    config: Mapping[str, Any]


class ReasoningGymSource:
    """Problems of one reasoning-gym family or of a mixture; verifier "reasoning_gym".

    Args:
        dataset: a family, e.g. "chain_sum", or a list of {"name": ..., "weight": 1.0, "config": {...}}.
        config: settings of the one family, e.g. {"max_terms": 4}; a mixture has them in its list.
        seed: together with the index it determines a problem.

    Raises:
        InputError: the package is absent, a family or setting is unknown, a setting is refused, or the family cannot
            serve (no reference answer; problems that differ per process).
    """

    size: ClassVar[int | None] = None

    def __init__(
        self,
        *,
        dataset: str | list[dict[str, Any]],
        config: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        self._families = _families(dataset, config)
        self._weights = [family.weight for family in self._families]
        self._chunks: dict[str, tuple[int, Any]] = {}
        for family in self._families:
            _check_settings(family)
            self._check_usable(family)

    def problem(self, index: int) -> Problem:
        """The problem at an index.

        Raises:
            ProblemError: the family could not make this item, or its entry cannot be stored.
        """
        rng = keyed_random(self._seed, "reasoning_gym family", index)
        return self._make(rng.choices(self._families, self._weights)[0], index)

    def _make(self, family: Family, index: int) -> Problem:
        dataset = self._dataset(family, index // CHUNK)
        try:
            with _seeded_globals(derive_seed(self._seed, "reasoning_gym item", family.name, index)):
                entry = dataset[index % CHUNK]
        except GENERATOR_ERRORS as error:
            raise ProblemError(
                f"reasoning-gym {family.name}: item {index} could not be made: {_line(error)}."
            ) from None
        if not isinstance(entry["answer"], str) or not entry["answer"].strip():
            raise ProblemError(f"reasoning-gym {family.name}: item {index} has no reference answer.")
        stored = _as_json(entry)
        question, gold = stored["question"], stored["answer"]
        return Problem(
            id=f"{family.name}-{content_hash(question, gold)}",
            question=question,
            gold=gold,
            verifier="reasoning_gym",
            meta={"reasoning_gym": {"dataset": family.name, "config": _as_json(family.config), "entry": stored}},
        )

    def _dataset(self, family: Family, chunk: int) -> Any:
        """The data set of a chunk; the last one of each family is kept."""
        held = self._chunks.get(family.name)
        if held is None or held[0] != chunk:
            seed = derive_seed(self._seed, "reasoning_gym chunk", family.name, chunk) % 2**31
            held = self._chunks[family.name] = (chunk, _create(family, seed))
        return held[1]

    def _check_usable(self, family: Family) -> None:
        """Refuse a family that cannot make its first item, or not the same one in another process."""
        if family.name in HASH_ORDERED and sys.flags.hash_randomization:
            raise InputError(
                f"The reasoning-gym family {family.name} makes other problems in every process because it depends on "
                "the order of Python sets: set the environment variable PYTHONHASHSEED=0, or choose another family."
            )
        try:
            self._make(family, 0)
        except ProblemError as error:
            raise InputError(f"The reasoning-gym family {family.name} cannot be used: {error}") from None


def family_names() -> list[str]:
    """Every family of the installed package.

    Raises:
        InputError: the package is absent.
    """
    return sorted(set(_registry()) - {"composite"})


def _registry() -> Mapping[str, tuple[type, type]]:
    try:
        # Slow to import and an optional dependency.
        import reasoning_gym  # noqa: F401 - registers the families
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise InputError(
            'The source reasoning_gym needs the package reasoning-gym: pip install "spark-workbench[reasoning-gym]".'
        ) from None
    return DATASETS


def _families(dataset: str | Sequence[Mapping[str, Any]], config: Mapping[str, Any] | None) -> list[Family]:
    if isinstance(dataset, str):
        return [Family(dataset, 1.0, dict(config or {}))]
    if config is not None:
        raise InputError(
            "problems.options.config belongs to a single family: in a mixture each entry has its own config."
        )
    families = [_family(number, item) for number, item in enumerate(dataset)]
    names = [family.name for family in families]
    if not names or len(set(names)) < len(names):
        raise InputError("problems.options.dataset must list one or more different families.")
    return families


def _family(number: int, item: Mapping[str, Any]) -> Family:
    where = f"problems.options.dataset[{number}]"
    if unknown := sorted(set(item) - {"name", "weight", "config"}):
        raise InputError(f'{where} has the field "{unknown[0]}", which is refused: name, weight, config.')
    name, weight, config = item.get("name"), item.get("weight", 1.0), item.get("config") or {}
    if not isinstance(name, str):
        raise InputError(f'{where} needs a "name", such as "chain_sum".')
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise InputError(f"{where}.weight = {weight!r} is refused: a number above 0.")
    if not isinstance(config, Mapping):
        raise InputError(f"{where}.config = {config!r} is refused: a mapping of settings.")
    return Family(name, float(weight), dict(config))


def _check_settings(family: Family) -> None:
    names = family_names()
    if family.name not in names:
        nearest = difflib.get_close_matches(family.name, names, n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else f"; for example {', '.join(names[:5])}"
        raise InputError(f'reasoning-gym has no family "{family.name}"{hint}.')
    settings = [
        field.name for field in dataclasses.fields(_registry()[family.name][1]) if field.name not in ("seed", "size")
    ]
    for name in family.config:
        if name not in settings:
            raise InputError(
                f'The reasoning-gym family {family.name} has no setting "{name}": {", ".join(settings) or "none"} '
                "can be set here."
            )


def _create(family: Family, seed: int) -> Any:
    from reasoning_gym import create_dataset

    try:
        with _seeded_globals(seed):
            return create_dataset(family.name, **family.config, seed=seed, size=CHUNK)
    except (*GENERATOR_ERRORS, OSError, ImportError) as error:
        settings = json.dumps(_as_json(family.config))
        raise InputError(
            f"The reasoning-gym family {family.name} refuses the settings {settings}: {_line(error)}."
        ) from None


@contextmanager
def _seeded_globals(seed: int) -> Iterator[None]:
    """Some families draw from, or reseed, the process-wide generators: seed these and leave them as they were."""
    import numpy

    states = random.getstate(), numpy.random.get_state()
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])


def _as_json(value: Any) -> Any:
    """The value as JSON gives it back: tuples as lists, keys as text, anything else (a Fraction) as its text."""
    return json.loads(json.dumps(value, default=str))


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(". ") or type(error).__name__
