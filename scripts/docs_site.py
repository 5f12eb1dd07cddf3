"""Hooks of the documentation site (mkdocs.yml): repository files as pages, links that hold in both places, no requests.

Pages are written to be read on GitHub as well, so they link to each other and to files by their place in the
repository. Here every such link becomes one that holds in the site:

    docs/training.md, README.md, ...        the page of the site
    recipes/spark_loop.py, LICENSE, ...     a page that shows the file, made because something links to it
    notebooks/01_a_first_run.ipynb, ...     a page that shows the notebook's source, the .py beside it

A link to a file that does not exist stays as it is, and mkdocs, which is strict, ends with its name. After the build
every page is looked through for anything that a browser would fetch from elsewhere (fonts, scripts, images).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "notebooks/README.md": "notebooks.md",
    "benchmarks/results/README.md": "benchmark-files.md",
}
"""Pages that are written outside docs/, and where the site has them."""
FILES = "files"
"""The folder of the site with the pages that show files."""
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)\s*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?P<target>[^()\s]+)(?=\))")
SCHEME = re.compile(r"[a-z][a-z+.-]*:|//", re.IGNORECASE)


def site_place(place: str) -> str | None:
    """Where the site has a file of the repository; None for one that neither docs/ nor the repository holds.

    Args:
        place: a path from the root of the repository, with forward slashes.
    """
    if place in OUTSIDE:
        return OUTSIDE[place]
    if place.startswith(f"{DOCS}/"):
        return place.removeprefix(f"{DOCS}/")
    if (ROOT / place).is_dir():
        return site_place(f"{place.rstrip('/')}/README.md")
    if place.endswith(".ipynb") and (ROOT / place).is_file():
        return site_place(place.removesuffix(".ipynb") + ".py")
    return f"{FILES}/{place}.md" if (ROOT / place).is_file() else None


def repository_place(page: str) -> str:
    """The file of the repository that a page of the site is made from."""
    by_page = {site: place for place, site in OUTSIDE.items()}
    return by_page.get(page, f"{DOCS}/{page}")


def linked_places(text: str, place: str) -> Iterator[tuple[re.Match[str], str, str]]:
    """The relative links of a page: the match, the place in the repository it leads to, and its anchor with the #.

    Links in code are none. A link to an anchor of the same page leads to the page's own place.
    """
    code = [match.span() for match in CODE.finditer(text)]
    for match in LINK.finditer(text):
        if SCHEME.match(match["target"]) or any(start <= match.start() < end for start, end in code):
            continue
        path, mark, anchor = match["target"].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), path)) if path else place
        yield match, target, mark + anchor


def site_links(text: str, page: str) -> str:
    """A page's text with links that hold in the site.

    Args:
        text: Markdown with links by places in the repository.
        page: where the site has the page.
    """
    pieces, end = [], 0
    for match, target, anchor in linked_places(text, repository_place(page)):
        place = site_place(target)
        if place is not None:
            pieces += [text[end : match.start()], posixpath.relpath(place, posixpath.dirname(page) or "."), anchor]
            end = match.end()
    return "".join([*pieces, text[end:]])


def file_page(place: str) -> str:
    """The page that shows a file of the repository."""
    path = ROOT / place
    text = path.read_text(encoding="utf-8")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"# {place}\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


class Requests(HTMLParser):
    """Collects what a browser would fetch for a page from another address; links that a reader follows are not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element."""
        values = dict(attrs)
        addresses = [values.get("src"), values.get("srcset"), values.get("data"), values.get("poster")]
        if tag == "link" and not {"canonical", "next", "prev"} & set((values.get("rel") or "").split()):
            addresses.append(values.get("href"))
        self.found += [address for address in addresses if address and re.match(r"(https?:)?//", address)]


# --- what mkdocs calls


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and a page for every file that some page links to."""
    from mkdocs.structure.files import File

    for place, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text(encoding="utf-8")))
    linked = {
        target
        for file in files.documentation_pages()
        for _, target, _ in linked_places(file.content_string, repository_place(file.src_uri))
    }
    for target in sorted(linked):
        page = site_place(target)
        if page is not None and page.startswith(f"{FILES}/") and files.get_file_from_path(page) is None:
            shown = page.removeprefix(f"{FILES}/").removesuffix(".md")
            files.append(File.generated(config, page, content=file_page(shown)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they hold in the site."""
    place = page.file.src_uri
    return markdown if place.startswith(f"{FILES}/") else site_links(markdown, place)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site of which a page would fetch something from elsewhere."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*.html")):
        parser = Requests()
        parser.feed(path.read_text(encoding="utf-8"))
        if parser.found:
            raise PluginError(f"{path}: the page fetches {parser.found[0]}; the site must need no other address.")
