"""Keys in panels, in a real Chromium against a real JupyterLab: they move rows and delete no cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.helpers.browser import new_page
from tests.helpers.jupyter_lab import lab_server, write_notebook
from tests.helpers.lab_panels import PANEL, PATIENCE, notebook

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_keys_stay_in_a_panel_and_move_its_rows_over_pages(chromium: Any, tmp_path: Path) -> None:
    write_notebook(tmp_path / "start.ipynb", ["print(1)"])
    with lab_server(tmp_path, "start.ipynb", "--folder", str(tmp_path)) as server:
        page = new_page(chromium, width=1280, height=1300)
        page.on("dialog", lambda dialog: dialog.accept())
        cells = [
            "import workbench\nwb = workbench.open()\nwb.rollouts",
            "print(1)",
            "print(2)",
            "wb.rollouts.selection",
        ]
        nb = notebook(page, server, "keys", cells)
        panel = nb.run(0).locator(PANEL).first
        shown = panel.locator(".spark-rows tbody tr")
        expect(shown).to_have_count(8, timeout=PATIENCE * 1000)
        places = "rows => rows.map(row => row.classList.contains('selected')).indexOf(true)"

        # In the panel beside any control, and in its table: what deletes and pastes cells elsewhere does nothing.
        for place in (panel.locator(".spark-muted").first, shown.nth(1)):
            place.click()
            for key in ("d", "d", "x", "v", "a", "Shift+Enter"):
                page.keyboard.press(key)
        assert page.locator(".jp-Notebook .jp-Cell").count() == 4

        # Rows move, over the page's end and back; what is shown below is the chosen one.
        for key, place in (("ArrowDown", 2), ("j", 3), ("k", 2), *(("j", n) for n in range(3, 8)), ("ArrowDown", 0)):
            page.keyboard.press(key)
            assert shown.evaluate_all(places) == place
        expect(panel).to_contain_text("Showing 9 to 16")
        sample = shown.nth(0).locator("td").nth(3).inner_text()
        expect(panel.locator("h3").first).to_contain_text(f"sample {sample}", timeout=PATIENCE * 1000)
        page.keyboard.press("k")
        assert shown.evaluate_all(places) == 7
        # A letter in a search field is a letter.
        search = panel.locator("input[type=text]").last
        search.fill("")
        search.press_sequentially("jkdd")
        assert search.input_value() == "jkdd"
        # Chords are Lab's: the notebook is saved.
        expect(page.locator(".jp-mod-dirty").first).to_be_attached()
        shown.nth(1).click()
        page.keyboard.press("Control+s")
        expect(page.locator(".jp-mod-dirty")).to_have_count(0, timeout=PATIENCE * 1000)

        # Negative control: outside of panels the same keys do what they do in a notebook.
        page.locator(".jp-InputPrompt").nth(2).click()
        page.keyboard.press("d")
        page.keyboard.press("d")
        expect(page.locator(".jp-Notebook .jp-Cell")).to_have_count(3)
        page.context.close()
