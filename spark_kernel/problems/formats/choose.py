"""Which format a file has: by name, or recognised by the fields of its first records."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.problems.fields import find_field
from spark_kernel.problems.formats.choice_sets import AQUA, ARC, LETTERED, MMLU, MMLU_PRO
from spark_kernel.problems.formats.columns import COLUMNS, FIRST, OTHER_GOLDS, OTHER_QUESTIONS
from spark_kernel.problems.formats.gsm8k import GSM8K
from spark_kernel.problems.formats.image_sets import GEOMETRY3K, VIRL39K
from spark_kernel.problems.formats.layout import Layout
from spark_kernel.problems.formats.math_sets import MATH, MATH_500, OLYMPIADBENCH
from spark_kernel.problems.formats.spark import SPARK
from spark_kernel.problems.formats.verl import DAPO, SLIME, VERL

AUTO = "auto"
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        *(COLUMNS, GSM8K, MATH, MATH_500, OLYMPIADBENCH, VERL, DAPO, SLIME, SPARK),
        *(MMLU, MMLU_PRO, ARC, AQUA, LETTERED, VIRL39K, GEOMETRY3K, FIRST),
    )
}
"""Every format by its name. What is recognised is asked of each but `dapo`, which is `verl`."""
LOOKED_AT = 64
"""Records from which a format is recognised."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A format and a sentence that says how it came to be: named, or recognised by what."""

    layout: Layout
    said: str


def check_format(name: str) -> None:
    """Refuse an unknown format.

    Raises:
        InputError: no such format; says which there are.
    """
    if name == AUTO or name in LAYOUTS:
        return
    nearest = difflib.get_close_matches(name, [AUTO, *LAYOUTS], n=1)
    hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
    raise InputError(
        f'problems.options.format = "{name}" is refused{hint}: auto, {", ".join(LAYOUTS)}; or map the fields by '
        "problems.options.columns."
    )


def choose_layout(name: str, records: Sequence[Mapping[str, Any]], mapped: Mapping[str, object]) -> Chosen:
    """The format of this name; for "auto" the one that at least half of the first records fit.

    Records that fit none, and records whose question or gold is mapped, are read by columns.

    Raises:
        InputError: records that fit several formats, or several fields that may hold question or gold; says which.
    """
    if name != AUTO:
        return Chosen(LAYOUTS[name], f"format {name} ({LAYOUTS[name].about})")
    if {"question", "message", "gold"} & set(mapped):
        return Chosen(_completed(records, mapped), "columns as mapped")
    fitting = [
        layout
        for layout in LAYOUTS.values()
        if layout is not DAPO and 2 * sum(map(layout.fits, records)) >= max(1, len(records))
    ]
    if len(fitting) > 1:
        names = " and ".join(f"{layout.name} ({layout.about})" for layout in fitting)
        raise InputError(f"The records fit the formats {names}: say which by problems.options.format.")
    if fitting:
        return Chosen(fitting[0], f"recognised as {fitting[0].name} ({fitting[0].about})")
    layout = _completed(records, mapped)
    fields = [name for role in ("question", "gold") for name in _present(layout.columns[role], records)[:1]]
    about = f"{fields[0]} and {fields[1]}" if len(fields) == 2 else COLUMNS.about
    return Chosen(layout, f"read by columns ({about})")


def _completed(records: Sequence[Mapping[str, Any]], mapped: Mapping[str, object]) -> Layout:
    """The columns, with a less usual name for question or gold where only that one is there.

    Raises:
        InputError: several such names are.
    """
    columns = dict(COLUMNS.columns)
    asked = _present((*columns["question"], *columns["message"]), records) or {"question", "message"} & set(mapped)
    if not asked:
        columns["question"] += _the_one("question", OTHER_QUESTIONS, records)
    if not _present(columns["gold"], records) and "gold" not in mapped:
        columns["gold"] += _the_one("gold", OTHER_GOLDS, records)
    return replace(COLUMNS, columns=columns)


def _the_one(role: str, names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    present = _present(names, records)
    if len(present) > 1:
        raise InputError(
            f"The {role} may be in {' or '.join(present)}: say which by problems.options.columns = "
            f'{{"{role}": "{present[0]}"}}.'
        )
    return tuple(present)


def _present(names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in names if any(find_field(record, name) is not None for record in records)]
