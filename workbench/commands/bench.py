"""`workbench bench`: the benchmark of a source checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from spark_kernel.errors import InputError
from workbench.checkout import PLACE, part_of_checkout


def bench(arguments: Sequence[str]) -> int:
    """Run `benchmarks/`, which is part of the checkout and not of the installed package."""
    folder = part_of_checkout("benchmarks")
    if folder is None:
        raise InputError(
            f"workbench bench is part of the source checkout, and this is a package installed in {PLACE}: clone the "
            "repository and run `make bench` there."
        )
    sys.path.insert(0, str(folder.parent))
    return int(importlib.import_module("benchmarks.main").main(arguments))
