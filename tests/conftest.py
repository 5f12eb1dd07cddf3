"""Order of the suite, and what happens to tests whose means are missing here."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TEST_MODEL = "smollm2-135m"
FAST = "not slow and not model and not vllm"
"""What `make test-fast` asks for, to the letter."""
ALL_SLOW = re.compile(r"^pytestmark = .*\bmark\.slow\b", re.MULTILINE)


settings.register_profile("local", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
"""Fifty examples each, where a test does not say otherwise. No deadlines: a loaded machine is no failure. CI draws the
same examples every time, so that red means a change; at a desk they are drawn anew, and what fails is kept in
.hypothesis."""


def pytest_configure() -> None:
    """Have Ctrl-C work in the processes that tests start, also where the suite itself runs in the background.

    setuptools comes first: it replaces the standard library's distutils and refuses to once that was imported, which
    some test does before vLLM and TRL import setuptools in the same process.
    """
    import setuptools  # noqa: F401

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file whose tests are all slow unread where the quick ones are asked for: its imports take seconds."""
    if config.option.markexpr != FAST or collection_path.suffix != ".py":
        return None
    return True if ALL_SLOW.search(collection_path.read_text(encoding="utf-8")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, so that a plain mistake shows early."""
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("slow", "model", "vllm")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here; where CI says so (CI, REQUIRE_MODEL, REQUIRE_VLLM) it is a failure instead."""
    if item.get_closest_marker("model"):
        from spark_kernel.models.load import models_folder

        if not (models_folder() / TEST_MODEL / "config.json").is_file():
            sentence = f"needs the model {TEST_MODEL}: workbench models get {TEST_MODEL}"
            if os.environ.get("CI") or os.environ.get("REQUIRE_MODEL"):
                pytest.fail(sentence, pytrace=False)
            pytest.skip(sentence)
    if item.get_closest_marker("vllm"):
        from spark_kernel.errors import InputError
        from spark_kernel.rollout.vllm_install import check_vllm

        try:
            check_vllm()
        except InputError as error:
            if os.environ.get("REQUIRE_VLLM"):
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("browser"):
        from tests.helpers.browser import find_chromium

        if find_chromium() is None:
            sentence = "needs a browser: install Debian's chromium, or name one in SPARK_CHROMIUM"
            if os.environ.get("CI"):
                pytest.fail(sentence, pytrace=False)
            pytest.skip(sentence)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless browser for the tests of a module."""
    from tests.helpers.browser import launched_chromium

    with launched_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page with a profile of its own."""
    from tests.helpers.browser import new_page

    page = new_page(chromium)
    yield page
    page.context.close()
