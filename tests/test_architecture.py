"""The rules of docs/architecture.md about imports, read from the source: nothing is imported here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("spark_kernel", "workbench", "benchmarks")
BARE_MACHINE = {"torch", "transformers", "peft", "safetensors", "PIL", "packaging", "httpx", "pydantic", "yaml"}
"""What objective, learner and rollout may need: torch, its models, what these bring along anyway, and the schema."""
CHOSEN_BY_NAME = {"vllm", "bitsandbytes"}
"""An engine or optimizer of the user's choice, imported when it is made."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


@cache
def body_of(module: str) -> list[ast.stmt]:
    return ast.parse(MODULES[module].read_text(encoding="utf-8")).body


@cache
def imported(module: str, *, later: bool) -> frozenset[str]:
    """Modules that a module imports by name; with `later`, also those inside functions."""
    found: set[str] = set()
    for node in _imports(body_of(module), later):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module is not None:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & MODULES.keys()) or {node.module}
    return frozenset(found)


def _imports(body: list[ast.stmt], later: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif later or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody", "handlers"):
                parts = getattr(node, name, [])
                inner = [part for part in parts if isinstance(part, ast.stmt)]
                inner += [part for handler in parts if isinstance(handler, ast.ExceptHandler) for part in handler.body]
                yield from _imports(inner, later)


def reached(start: set[str], *, later: bool) -> set[str]:
    """Our own modules that these import, directly or by others."""
    seen: set[str] = set()
    waiting = set(start)
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= (imported(module, later=later) & MODULES.keys()) - seen
    return seen


def test_no_module_imports_itself_by_a_detour() -> None:
    for module in MODULES:
        assert module not in reached(set(imported(module, later=False)) & MODULES.keys(), later=False), module


def test_the_kernel_knows_nothing_of_the_workbench() -> None:
    for module in MODULES:
        if module.startswith("spark_kernel"):
            odd = {name for name in imported(module, later=True) if name.split(".")[0] in ("workbench", "benchmarks")}
            assert not odd, module


@pytest.mark.parametrize("package", ["objective", "learner", "rollout"])
def test_what_runs_on_a_bare_machine_needs_little(package: str) -> None:
    start = {module for module in MODULES if module.startswith(f"spark_kernel.{package}.")}
    assert len(start) > 3
    needed = {name.split(".")[0] for module in reached(start, later=False) for name in imported(module, later=False)}
    assert needed - sys.stdlib_module_names - {"spark_kernel"} <= BARE_MACHINE
    later = {name.split(".")[0] for module in reached(start, later=True) for name in imported(module, later=True)}
    assert later - sys.stdlib_module_names - {"spark_kernel"} <= BARE_MACHINE | CHOSEN_BY_NAME


def test_the_walk_sees_imports_inside_functions_and_follows_them() -> None:
    """Negative control: the learner's optimizer is found to import bitsandbytes, and the trainer to reach pyarrow."""
    assert "bitsandbytes" in imported("spark_kernel.learner.optimizers", later=True)
    assert "bitsandbytes" not in imported("spark_kernel.learner.optimizers", later=False)
    below = reached({"spark_kernel.training.trainer"}, later=False)
    assert any(name.startswith("pyarrow") for module in below for name in imported(module, later=False))
