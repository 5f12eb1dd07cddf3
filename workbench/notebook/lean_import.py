"""Importing a library without what it only asks for its version."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType


@contextmanager
def version_only(package: str) -> Iterator[None]:
    """Within the block an import of `package` gives a module that knows its version and nothing else.

    In a kernel plotly imports nbformat to look at its version; nbformat brings jsonschema, which with the formats that
    JupyterLab installs builds 38 grammars: three seconds before the first figure. A package that is imported already,
    or not installed, stays as it is.
    """
    try:
        known = None if package in sys.modules else version(package)
    except PackageNotFoundError:
        known = None
    if known is None:
        yield
        return
    stand_in = ModuleType(package)
    stand_in.__version__ = known  # type: ignore[attr-defined]
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(package) is stand_in:
            del sys.modules[package]
