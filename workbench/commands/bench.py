"""`workbench bench`: the benchmark of a source checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from spark_kernel.errors import InputError


def bench(arguments: Sequence[str]) -> int:
    """Run `benchmarks/`, which is part of the checkout and not of the installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "main.py").is_file():
        raise InputError("workbench bench needs a source checkout: clone the repository and run make bench there.")
    sys.path.insert(0, str(root))
    return int(importlib.import_module("benchmarks.main").main(arguments))
