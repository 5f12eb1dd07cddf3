"""`spark_kernel` offers its public names lazily: one list for interpreter, type checker and reader, and no torch."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spark_kernel

ROOT = Path(__file__).resolve().parent.parent
DOOR = ROOT / "spark_kernel" / "__init__.py"
ASKED_FOR = ("load_config", "start_run", "resume_run", "fork_run", "go_back", "Trainer", "RunReader", "RunConfig")


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Only the door itself and the standard library are loaded; a record brings only the ground floor."""
    done = alone(
        "import sys; before = set(sys.modules); import spark_kernel; dir(spark_kernel)\n"
        "ours = {name for name in sys.modules if name.split('.')[0] == 'spark_kernel'}\n"
        "assert ours == {'spark_kernel'}, ours\n"
        "spark_kernel.Problem, spark_kernel.InputError, spark_kernel.Verifier, spark_kernel.ProblemSource\n"
        "third = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert third == {'spark_kernel'}, third"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_reading_a_run_or_a_configuration_does_not_need_torch() -> None:
    done = alone(
        "import sys; from spark_kernel import RunConfig, RunReader, RunState, load_config; load_config('quickstart')\n"
        "assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_what_the_type_checker_reads_is_what_the_interpreter_gives() -> None:
    """The three lists of the door agree, and each name comes from the module that the type checker is told."""
    (block,) = (node for node in ast.parse(DOOR.read_text(encoding="utf-8")).body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*told, "__version__"} == set(spark_kernel.__all__)
    assert spark_kernel.__all__ == sorted(spark_kernel.__all__)
    listed = [(name, f"spark_kernel.{place}") for place, names in spark_kernel._PLACES.items() for name in names]
    assert dict(listed) == told
    assert len(listed) == len(told)
    for name, module in told.items():
        assert getattr(spark_kernel, name) is getattr(importlib.import_module(str(module)), name)


def test_the_names_that_a_run_needs_are_there_and_listed() -> None:
    from spark_kernel.errors import SparkError

    assert set(ASKED_FOR) <= set(spark_kernel.__all__) <= set(dir(spark_kernel))
    own = [value for value in vars(importlib.import_module("spark_kernel.errors")).values() if isinstance(value, type)]
    assert {error.__name__ for error in own if issubclass(error, SparkError)} <= set(spark_kernel.__all__)
    own = [value for value in vars(importlib.import_module("spark_kernel.records")).values() if isinstance(value, type)]
    records = {record.__name__ for record in own if record.__module__ == "spark_kernel.records"}
    assert records <= set(spark_kernel.__all__)


def test_an_unknown_name_is_an_attribute_error_and_an_import_error() -> None:
    with pytest.raises(AttributeError, match="module 'spark_kernel' has no attribute 'start_rum'"):
        spark_kernel.start_rum  # noqa: B018 - the access is the test
    assert not hasattr(spark_kernel, "torch")
    done = alone("from spark_kernel import start_rum")
    assert "ImportError: cannot import name 'start_rum' from 'spark_kernel'" in done.stderr


def test_the_kernel_itself_does_not_enter_by_the_door() -> None:
    """A module that imported a public name from the package would close a circle as soon as that name needed it."""
    for path in (ROOT / "spark_kernel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "spark_kernel":
                assert {alias.name for alias in node.names} <= {"__version__"}, path


def test_readme_and_notebooks_import_public_names_from_the_package() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    texts = {"README.md": example}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.py")}
    assert len(texts) > 7
    for name, text in texts.items():
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", text, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("spark_kernel."):
                assert not {alias.name for alias in node.names} & set(spark_kernel.__all__), (name, node.module)
