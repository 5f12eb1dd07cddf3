"""The report of a run: one file that asks for nothing, in which text from the run stays text; and its tables."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spark_kernel.config import load_config
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.evaluate.kind_stats import kind_stats
from spark_kernel.runs.reader import TABLES, RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import ENVIRONMENT, make_evaluation, make_round
from workbench.cli import main
from workbench.recorded import recorded_run
from workbench.reporting.report_page.page import page_html, write_page
from workbench.reporting.report_page.samples import MOST, OF_EACH, PRESETS
from workbench.reporting.report_page.several import comparison_page, write_comparison
from workbench.reporting.report_page.tables import write_tables
from workbench.views import RunView

pytestmark = pytest.mark.slow
HOSTILE = (
    "</script><script>window.hacked = 1</script><img src='http://evil.example/x.png' onerror='window.hacked = 2'>"
    '{{ 7 * 7 }}<!-- </pre><a href="javascript:window.hacked=3">'
)
INK_SUM = (
    "getComputedStyle(document.querySelector('.xtick text')).fill.match(/[0-9]+/g).slice(0, 3)"
    ".reduce((sum, part) => sum + Number(part), 0)"
)
"""Brightness of a figure's text, 0 to 765."""
CONFIG = load_config("quickstart", rounds=3).to_yaml()


class Elements(HTMLParser):
    """Every element with its attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] != ["script"]:
            self.texts.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every text that a model, a problem's author or a stranger writes is hostile."""
    run = tmp_path_factory.mktemp("runs") / "<b>run<img src=x onerror=alert(1)>"
    with RunWriter.create(run, CONFIG, ENVIRONMENT | {"cpu": {"model": HOSTILE}}) as writer:
        for round in (1, 2):
            records, _, report = make_round(round)
            groups = {
                period: tuple(
                    g.with_rollouts(
                        tuple(
                            dataclasses.replace(
                                r, text=HOSTILE, score=r.score and dataclasses.replace(r.score, reason=HOSTILE)
                            )
                            for r in g.rollouts
                        )
                    )
                    for g in members
                )
                for period, members in records.groups.items()
            }
            problems = tuple(dataclasses.replace(p, question=HOSTILE, gold="=1+1") for p in records.problems)
            kinds = tuple(s for period, members in groups.items() for s in kind_stats(members, period))
            writer.finish_round(
                dataclasses.replace(records, problems=problems, groups=groups),
                dataclasses.replace(report, kinds=kinds, notes=(HOSTILE,)),
            )
        evaluation, summary = make_evaluation(2)
        lines: Any = summary["lines"]
        lines["own/" + HOSTILE] = {"n": 12, "one_sided": True, "accuracy": 0.5}
        writer.write_evaluation(evaluation, summary)
        writer.close("failed", HOSTILE)
    return run


def test_nothing_in_the_page_leads_elsewhere(hostile: Path) -> None:
    for run in (hostile, recorded_run()):
        elements = Elements(page_html(RunView(run))).found
        tags = [tag for tag, _ in elements]
        assert not {"link", "iframe", "object", "embed", "base", "form", "img", "video", "audio"} & set(tags)
        for _, attributes in elements:
            assert not {"src", "srcset", "data", "action", "poster", "background"} & set(attributes)
            assert not any(name.startswith("on") for name in attributes)
            assert attributes.get("href", "#").startswith("#")
            assert "url(" not in attributes.get("style", "")
        policy = next(a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none';")
        assert tags.count("script") == 6  # plotly, two of figures, ours, the samples and theirs


def test_text_from_the_run_is_text(hostile: Path) -> None:
    page = page_html(RunView(hostile))
    text = "".join(Elements(page).texts)
    assert text.count(HOSTILE) > 2
    rows = json.loads(re.findall(r'<script type="application/json" id="sample-rows">(.*?)</script>', page)[0])
    assert rows
    assert {row["text"] for row in rows} == {row["question"] for row in rows} == {HOSTILE}
    assert HOSTILE not in page  # only escaped, as JSON or as text
    assert "<b>run<img src=x onerror=alert(1)>" in text
    assert "49<!--" not in page
    assert "<img" not in page.replace(_plotly(page), "")


def _plotly(page: str) -> str:
    """The library inside a page, which holds markup of its own."""
    return max(re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL), key=len)


def test_figures_and_tables_hold_the_snapshot(tmp_path: Path) -> None:
    view = RunView(recorded_run())
    page = page_html(view)
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.DOTALL)
    assert data is not None
    figures = json.loads(data.group(1))
    places = re.findall(r'data-figure="([^"]+)"', page)
    assert sorted(places) == sorted(figures)
    assert {"accuracy", "cost", "funnel", "transitions", "calibration", "confusion own/pairwise/full"} <= set(figures)
    line = next(
        trace for trace in figures["accuracy"]["data"] if trace["name"] == "training problems" and trace["text"]
    )
    assert line["x"] == list(range(1, 13))
    text = "".join(Elements(page).texts)
    for setting in view.snapshot().differences:
        assert setting.setting in text
    assert view.snapshot().config_yaml in text
    for step in view.funnel(view.rounds()).steps:
        assert step.name in text
    assert page.count("Plotly.newPlot") >= 1
    assert page.count("plotly.js v") == 1


def test_a_run_before_its_first_round_has_a_page(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "new", CONFIG, ENVIRONMENT):
        text = "".join(Elements(page_html(RunView(tmp_path / "new"))).texts)
    assert "No round is finished yet." in text
    assert "No held-out evaluation yet." in text


@pytest.mark.slow
def test_in_a_browser_the_page_draws_everything_and_runs_nothing_else(hostile: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for run in (hostile, recorded_run()):
            file = tmp_path / "page.html"
            write_page(RunView(run), file)
            page = browser.new_page(color_scheme="light")
            page.set_default_timeout(120_000)
            asked: list[str] = []
            said: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.goto(file.as_uri())
            drawn = "() => [...document.querySelectorAll('.figure')].every((p) => p.querySelector('svg.main-svg'))"
            page.wait_for_function(drawn)
            assert page.locator(".figure").count() >= 7
            assert page.evaluate(INK_SUM) < 380
            page.emulate_media(color_scheme="dark")
            page.wait_for_function(f"() => ({INK_SUM}) > 380")
            assert page.evaluate("window.hacked") is None
            assert asked == [file.as_uri()]
            assert said == []
            page.close()
        browser.close()


@pytest.mark.slow
def test_the_command_writes_page_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = str(recorded_run())
    page, tables = tmp_path / "run.html", tmp_path / "tables"
    page.write_text("an older one")
    command = [sys.executable, "-m", "workbench", "report", shipped, "--html", str(page), "--tables", str(tables)]
    done = subprocess.run([*command, "--format", "csv"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert {path.name for path in tables.iterdir()} == {f"{name}.csv" for name in TABLES}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for arguments, sentence in (
        ((shipped,), "Say what to write"),
        ((str(tmp_path), "--html", "x.html"), "There is no run"),
        ((shipped, "--html", str(tmp_path / "no" / "x.html")), "folder that exists"),
        ((shipped, "--tables", str(page)), "is a file"),
    ):
        assert main(["report", *arguments]) == 2
        refused = capsys.readouterr().err
        assert refused.startswith("error: ")
        assert sentence in refused


def test_tables_are_those_of_the_reader(hostile: Path, tmp_path: Path) -> None:
    reader = RunReader(hostile)
    write_tables(reader, tmp_path / "parquet", "parquet")
    write_tables(reader, tmp_path / "csv", "csv")
    for name in TABLES:
        expected = reader.table(name)
        table = pq.read_table(tmp_path / "parquet" / f"{name}.parquet")
        assert table.equals(expected.cast(table.schema)), name
        with (tmp_path / "csv" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == expected.num_rows
        assert not rows or list(rows[0]) == expected.schema.names
        assert not any(cell.startswith(("=", "@")) for row in rows for cell in row.values())
    with (tmp_path / "csv" / "rollouts.csv").open(newline="", encoding="utf-8") as file:
        for mine, theirs in zip(csv.DictReader(file), reader.table("rollouts").to_pylist(), strict=True):
            assert mine["text"] == theirs["text"] == HOSTILE
            assert json.loads(mine["token_ids"]) == theirs["token_ids"]
            assert json.loads(mine["logprobs"]) == theirs["logprobs"]
            assert mine["reward"] == ("" if theirs["reward"] is None else repr(theirs["reward"]))
    with (tmp_path / "csv" / "problems.csv").open(newline="", encoding="utf-8") as file:
        assert {row["gold"] for row in csv.DictReader(file)} == {"'=1+1"}


def test_the_run_is_never_written_into(tmp_path: Path) -> None:
    shipped = recorded_run()
    with pytest.raises(InputError, match="only read"):
        write_page(RunView(shipped), shipped / "page.html")
    with pytest.raises(InputError, match="only read"):
        write_tables(RunReader(shipped), shipped / "rounds" / "csv", "csv")
    with pytest.raises(InputError, match='no format "xls"'):
        write_tables(RunReader(shipped), tmp_path, "xls")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_page(RunView(shipped), tmp_path / "missing" / "page.html")


def test_several_runs_are_one_page_with_comparison_problems_and_samples(hostile: Path, tmp_path: Path) -> None:
    views = [RunView(recorded_run()), RunView(hostile)]
    page = comparison_page(views)
    elements = Elements(page)
    text = "".join(elements.texts)
    assert "<b>run<img src=x onerror=alert(1)>" in text
    assert HOSTILE not in page
    assert "<img" not in page.replace(_plotly(page), "")
    figures = json.loads(
        re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.DOTALL)[0]
    )
    places = [html.unescape(name) for name in re.findall(r'data-figure="([^"]+)"', page)]
    assert set(places) <= set(figures)
    assert {"comparison", "arms", f"{views[0].reader.info.name}: overview"} <= set(places)
    rows = json.loads(re.findall(r'<script type="application/json" id="sample-rows">(.*?)</script>', page)[0])
    assert len({row["run"] for row in rows}) == 2
    last = views[0].reader.rounds[-1]
    shown = [row for row in rows if row["run"] == views[0].reader.info.name]
    assert len(shown) >= MOST
    for preset in PRESETS:
        passing = {row["text"] for row in views[0].rollouts([last]).filter(preset).rows()}
        listed = [row["text"] for row in shown if str(preset) in row["filters"]]
        assert len(listed) >= min(len(passing), OF_EACH), preset
        assert set(listed) <= passing
    with pytest.raises(InputError, match="lies inside the run"):
        write_comparison(views, hostile / "page.html")
    write_comparison(views, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
