"""The documentation: every page is in guide and site, every link and name leads somewhere, and nothing is fetched."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import spark_kernel

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "README.md", *PAGES]
OURS = re.compile(
    r"(?:[\w.-]+/)*[\w-]+\.py|(?:spark_kernel|workbench|tests|scripts)/[\w./-]+|(?:spark_kernel|workbench)(?:\.\w+)+"
)
SITE_PARTS = ("docs", "scripts", "notebooks", "benchmarks", "recipes", "spark_kernel", "workbench", "constraints")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/docs_site.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("docs_site")


def menu() -> list[str]:
    """The pages of the site's menu."""

    class Loader(yaml.SafeLoader):
        """Passes over the one object that mkdocs makes from a tag."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for item in (entry.values() if isinstance(entry, dict) else entry) for page in pages(item)]

    return pages(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])


def test_every_page_is_in_the_menu_once_and_in_the_guide(site: Any) -> None:
    names = [str(page.relative_to(DOCS)) for page in PAGES]
    assert sorted(menu()) == sorted([*names, *site.OUTSIDE.values()])
    guide = (DOCS / "guide.md").read_text(encoding="utf-8")
    for name in names:
        if not name.startswith("api/") and name != "guide.md":
            assert f"]({name})" in guide, name


def test_links_hold_in_the_site_as_they_do_in_the_repository(site: Any) -> None:
    text = (
        "[a](training.md) [b](../README.md) [c](../CONTRIBUTING.md#tests) [d](results/quickstart.md) [e](#here)\n"
        "[f](https://example.org/x.md) [g](../notebooks) [h](../LICENSE) ![i](images/round.svg) "
        "[j](../no-such-file.py)\n"
        "`[k](../README.md)` [l](../notebooks/01_a_first_run.ipynb)\n\n```\n[m](../README.md)\n```\n"
    )
    assert site.site_links(text, "training.md") == (
        "[a](training.md) [b](index.md) [c](contributing.md#tests) [d](results/quickstart.md) [e](training.md#here)\n"
        "[f](https://example.org/x.md) [g](notebooks.md) [h](files/LICENSE.md) ![i](images/round.svg) "
        "[j](../no-such-file.py)\n"
        "`[k](../README.md)` [l](files/notebooks/01_a_first_run.py.md)\n\n```\n[m](../README.md)\n```\n"
    )
    assert site.site_links("[a](docs/api/runs.md) [b](recipes)", "index.md") == "[a](api/runs.md) [b](recipes)"
    assert site.site_links("[a](../../README.md) [b](../x.md)", "api/runs.md") == "[a](../index.md) [b](../x.md)"
    assert site.site_links("[a](01_a_first_run.ipynb)", "notebooks.md") == "[a](files/notebooks/01_a_first_run.py.md)"


def test_what_a_page_fetches_from_elsewhere_is_found_and_what_a_reader_follows_is_not(site: Any) -> None:
    parser = site.Requests()
    parser.feed(
        '<link rel="canonical" href="https://a/"><a href="https://b/"></a><script src="assets/x.js"></script>'
        '<link rel="stylesheet" href="https://fonts/c.css"><img src="//d/e.png"><script src="http://f/g.js"></script>'
    )
    assert parser.found == ["https://fonts/c.css", "//d/e.png", "http://f/g.js"]


def test_every_public_name_is_in_the_api_reference() -> None:
    """By its own entry, or by that of the module that it lives in."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE))
    for name in set(spark_kernel.__all__) - {"__version__"}:
        value = getattr(spark_kernel, name)
        assert shown & {value.__module__, f"{value.__module__}.{name}"}, name
    assert {"workbench.open", "workbench.new"} <= shown


def test_lists_and_tables_begin_as_the_site_needs_it() -> None:
    """GitHub takes a list straight after a line of text, Python-Markdown takes it for more of that text."""
    for page in [*WRITTEN, ROOT / "CHANGELOG.md"]:
        blocks = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for block in re.split(r"\n[ \t]*\n", blocks):
            lines = [line for line in block.splitlines() if not line.startswith("#")]
            if lines and not re.match(r"\s|- |\d+\. |\|", lines[0]):
                late = [line for line in lines if re.match(r"- |\d+\. |\|", line)]
                assert not late, f"{page.name}: a blank line is missing above {late[0]!r}"


def code_names() -> list[tuple[str, str]]:
    """Every file and dotted name of ours that stands as code in a page."""
    found = []
    for page in WRITTEN:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        found += [(page.name, span) for span in re.findall(r"`([^`\n]+)`", text) if OURS.fullmatch(span)]
    return found


def test_files_and_modules_that_pages_name_are_there() -> None:
    """A page names `config/sections.py` or `spark_kernel.keyed_random`: it must still be so after files have moved."""
    paths = {
        str(path.relative_to(ROOT)) for folder in (*SITE_PARTS, "tests") for path in ROOT.joinpath(folder).rglob("*.py")
    }
    names = code_names()
    assert len(names) > 60
    for page, name in names:
        if "/" in name or name.endswith(".py"):
            there = (ROOT / name).exists() or any(path.endswith(f"/{name}") for path in paths)
            assert there or "NN_" in name, f"{page} names {name}, which is nowhere"
        elif name not in ("spark_kernel.verifiers", "spark_kernel.problem_sources", "spark_kernel.recyclers"):
            assert is_defined(name), f"{page} names {name}, which is no module or name of ours"


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module, or stands at the top of one; nothing is imported."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return length == len(parts) or parts[length] in _top_names(path)
        if length == len(parts) and place.is_dir():
            return True
    return False


def _top_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", ""),
        ("[x](../spark_kernel/no_such_file.py) [y](training.md#no-such-heading)", "no_such_file.py no-such-heading"),
        ("::: spark_kernel.no_such_name", "no_such_name"),
        ('<img src="https://example.org/picture.png">', "fetches https://example.org/picture.png"),
    ],
    ids=["as it is", "file and anchor", "api name", "request"],
)
def test_the_site_is_built_and_a_broken_link_ends_the_build(tmp_path: Path, broken: str, message: str) -> None:
    left_out = shutil.ignore_patterns("__pycache__", "starter", "recorded")
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in SITE_PARTS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    with (tmp_path / "docs" / "guide.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{broken}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert (done.returncode == 0) == (not broken), done.stderr[-2000:]
    assert all(word in done.stderr for word in message.split())
    if not broken:
        index = (tmp_path / "build" / "site" / "index.html").read_text(encoding="utf-8")
        assert 'href="files/recipes/spark_loop.py.html"' in index
        runs = (tmp_path / "build" / "site" / "api" / "runs.html").read_text(encoding="utf-8")
        assert 'id="spark_kernel.training.lifecycle.start_run"' in runs
