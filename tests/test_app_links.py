"""Addresses of the page: what they say, and what of it is refused."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from spark_kernel.errors import InputError
from workbench.app.links import NAMES, read_link, sample_link
from workbench.app.samples import HELD_OUT, THIS_ROUND


def test_a_sample_and_its_filters() -> None:
    link = read_link(
        {"tab": "samples", "run": "mine", "round": "3", "sample": "a#1", "preset": "unreadable", "kind": "pairwise"}
    )
    assert (link.tab, link.run, link.round, link.sample) == ("samples", "mine", 3, "a#1")
    assert (link.query.round, link.query.preset, link.query.kind) == (3, "unreadable", "pairwise")
    assert link.query.scope == THIS_ROUND
    assert link.asked == {}


def test_what_the_server_writes_is_read_back() -> None:
    for held_out in (False, True):
        written = dict(parse_qsl(sample_link("my run", 2, "x&y#3", held_out=held_out)[1:]))
        assert set(written) <= set(NAMES)
        link = read_link(written)
        assert (link.run, link.round, link.sample) == ("my run", 2, "x&y#3")
        assert (link.query.scope == HELD_OUT) is held_out


def test_a_question_with_numbers_as_numbers() -> None:
    link = read_link(
        {"question": "1 + 1?", "a": "builtin:starter", "seed": "7", "temperature": "0.5", "faithful": "1", "gold": "2"}
    )
    assert link.asked == {
        "question": "1 + 1?", "a": "builtin:starter", "seed": 7, "temperature": 0.5, "faithful": True, "gold": "2",
    }  # fmt: skip
    assert isinstance(link.asked["seed"], int)


def test_settings_without_a_question_ask_nothing() -> None:
    assert read_link({"seed": "x", "temperature": "hot"}).asked == {}


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"round": "-1"}, "round"),
        ({"round": "9" * 12}, "round"),
        ({"round": "²"}, "round"),
        ({"question": "q", "seed": "seven"}, "seed"),
        ({"question": "q", "temperature": ""}, "temperature"),
    ],
)
def test_numbers_that_are_none_are_named(parts: dict[str, str], name: str) -> None:
    with pytest.raises(InputError, match=f"The link's {name} is no"):
        read_link(parts)


@pytest.mark.parametrize("name", ["scope", "preset", "kind", "finding"])
def test_filters_that_are_none_are_named_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match=f"The link's {name} is none of .*, "):
        read_link({"tab": "samples", "run": "mine", "round": "1", name: "no such"})
