"""What a format is: a name, the fields of each role, how a gold is read, and how a record of it is recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_kernel.problems.golds import read_golds

Fits = Callable[[Mapping[str, Any]], bool]
ReadGold = Callable[[object], list[str]]

ROLES = ("question", "message", "gold", "id", "images", "choices", "verifier")
"""What a record is asked for, and what `problems.options.columns` may map."""

IMAGE_FIELDS = ("images", "image", "image_path", "image_paths")


def never(_record: Mapping[str, Any]) -> bool:
    """For a format that is only taken by its name."""
    return False


@dataclass(frozen=True, slots=True)
class Layout:
    """One format.

    Attributes:
        name: as given in `problems.options.format`.
        about: its fields in a few words, for messages.
        columns: for a role, the fields (dotted paths) that are tried in order; a role without an entry is absent. For
            choices a tuple of several fields may be one option each: `split_choices`.
        fits: whether a record looks like one of this format.
        read_gold: from the gold's field to the acceptable golds; raises ValueError.
        split_choices: the fields under `choices` are the options, one each.
        index_from: what the first choice counts as where the gold is an index in text; None: see `choices`.
    """

    name: str
    about: str
    columns: Mapping[str, tuple[str, ...]]
    fits: Fits = never
    read_gold: ReadGold = field(default=read_golds)
    split_choices: bool = False
    index_from: int | None = None


def only(read: Callable[[object], str]) -> ReadGold:
    """A reader of one gold as a reader of golds."""
    return lambda value: [read(value)]
