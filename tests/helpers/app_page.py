"""Hands for the app's page in a browser: open it, choose from a menu, open a tab."""

from __future__ import annotations

from playwright.sync_api import Page


def opened(page: Page, url: str) -> Page:
    """The page, once it can be asked."""
    page.goto(url)
    for part in ("#sw-ask", "#sw-answers"):
        page.wait_for_selector(part, state="attached")
    return page


def choose(page: Page, label: str, option: str) -> None:
    """Choose from a menu."""
    page.get_by_label(label, exact=False).first.click()
    page.get_by_role("option", name=option, exact=False).first.click()


def open_tab(page: Page, name: str) -> None:
    """Open a tab, from the menu of those that have no room if need be."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.is_visible():
        tab.click()
    else:
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
