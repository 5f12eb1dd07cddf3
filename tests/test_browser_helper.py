"""The browser that other tests look through: it opens pages, and its checks can fail."""

from __future__ import annotations

import pytest

from tests.helpers.browser import dom_nodes, screenshot, serious_violations

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_accessibility_check_sees_what_is_wrong_within_the_selector_only(page) -> None:
    page.set_content(
        '<html lang="en"><title>t</title><div id="good"><button>Stop</button></div>'
        '<div id="bad"><button></button></div></html>'
    )
    assert serious_violations(page, "#good") == []
    assert any(line.startswith("button-name") for line in serious_violations(page, "#bad"))
    with pytest.raises(AssertionError, match="nothing to look at"):
        serious_violations(page, "#missing")


def test_nodes_are_counted_and_pictures_kept(page) -> None:
    page.set_content("<div class=x><p>one</p><p>two <b>three</b></p></div><div class=x><i>four</i></div>")
    assert dom_nodes(page, ".x") == 4
    picture = screenshot(page, "helper", ".x")
    assert picture.read_bytes().startswith(b"\x89PNG")
