"""What an address of the page says: any state of it is a link. `page.js` writes these addresses; this reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from spark_kernel.errors import InputError
from workbench.app.samples import ANY, HELD_OUT, KINDS, RIGHT, SCOPES, WRONG, SampleQuery
from workbench.views import Preset

FILTERS = ("scope", "preset", "kind", "finding", "text")
"""Of a table of samples, as `SampleQuery` names them."""
CHOICES = {"scope": SCOPES, "preset": tuple(map(str, Preset)), "kind": KINDS, "finding": (ANY, RIGHT, WRONG)}
NUMBERS = ("temperature", "tokens", "reflections", "seed")
ASKED = ("question", "a", "b", "gold", "verifier", *NUMBERS, "view", "faithful")
"""Of a question: the text, the models, and how it was asked."""
NAMES = ("tab", "run", "round", "sample", "held_out", *FILTERS, *ASKED)


@dataclass(frozen=True, slots=True)
class PageLink:
    """A state of the page; None where the address does not say.

    `round`: of the run. `query`: which samples the table shows, its round 0 where none is named. `asked`: the parts of
    a question by their names in `ASKED`, empty where none is asked; numbers are numbers.
    """

    tab: str | None
    run: str | None
    round: int | None
    sample: str | None
    query: SampleQuery
    asked: Mapping[str, Any]


def read_link(parts: Mapping[str, str]) -> PageLink:
    """The state that an address names; whether what it names is there is found out elsewhere.

    Raises:
        InputError: a number that is none, a filter that is none.
    """
    for name, choices in CHOICES.items():
        if name in parts and parts[name] not in choices:
            raise InputError(f"The link's {name} is none of {', '.join(choices)}.")
    round = _whole(parts["round"], "round") if "round" in parts else None
    query = SampleQuery(round or 0, HELD_OUT) if parts.get("held_out") == "1" else SampleQuery(round or 0)
    named: dict[str, Any] = {name: parts[name] for name in FILTERS if name in parts}
    query = replace(query, **named)
    asked: dict[str, Any] = {name: parts[name] for name in ASKED if name in parts} if "question" in parts else {}
    for name in set(NUMBERS) & set(asked):
        asked[name] = _number(asked[name], name)
    if "faithful" in asked:
        asked["faithful"] = asked["faithful"] == "1"
    return PageLink(parts.get("tab"), parts.get("run"), round, parts.get("sample"), query, asked)


def sample_link(run: str, round: int, sample: str, *, held_out: bool) -> str:
    """An address that opens the page at a sample."""
    place = {"run": run, "round": str(round), "sample": sample}
    return "?" + urlencode(place | ({"held_out": "1"} if held_out else {}))


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"The link's {name} is no whole number.")
    return int(text)


def _number(text: str, name: str) -> float | int:
    try:
        value = float(text[:32])
    except ValueError:
        raise InputError(f"The link's {name} is no number.") from None
    # Whether it is in range, and finite, is checked with the question.
    return int(value) if value.is_integer() else value
