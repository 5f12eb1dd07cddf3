"""The panels in a real Chromium, against a real JupyterLab that `workbench lab` has started.

Every notebook has a kernel of its own. Asserted is what stands on the page, and what lies in the run folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState
from tests.helpers.browser import dom_nodes, new_page, screenshot, serious_violations
from tests.helpers.hostile_runs import ACTIVE, write_hostile_run
from tests.helpers.jupyter_lab import ROOT, LabServer, NotebookPage, lab_server, write_notebook
from tests.helpers.lab_panels import CONFIG, PANEL, PATIENCE, events, notebook, press, says, train_for_long, until
from tests.helpers.runs import tiny_config
from workbench.figures import PANELS

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """JupyterLab on a scratch folder that has a tiny model and problems in base/."""
    folder = tmp_path_factory.mktemp("lab")
    tiny_config(folder / "base")
    write_notebook(folder / "start.ipynb", ["print(1)"])
    with lab_server(folder, "start.ipynb", "--folder", str(folder)) as server:
        yield server


@pytest.fixture
def lab_page(chromium: Any) -> Iterator[Page]:
    """A page that is high enough for the panels."""
    page = new_page(chromium, width=1280, height=1300)
    page.on("dialog", lambda dialog: dialog.accept())
    yield page
    page.context.close()


def test_start_stop_resume_fork_reload_second_tab_and_theme(lab_page: Page, server: LabServer, chromium: Any) -> None:
    run = server.folder / "runs" / "demo"
    nb = notebook(
        lab_page,
        server,
        "controls",
        [
            f"import workbench\n{CONFIG}wb = workbench.new(config, 'runs/demo')\nwb.controls",
            "print('the kernel is free while the worker is', wb.driver.state.mode)",
            "wb = workbench.open('runs/demo')\nwb",
        ],
    )
    controls = nb.run(0).locator(PANEL).first
    says(controls, "not started")
    expect(nb.button("Stop", controls)).to_be_disabled()

    # Start: the cell was done at once, and another one runs while the worker trains. It has more rounds to do than
    # the quickest machine is through with before it is told to stop.
    train_for_long(nb, controls)
    says(nb.run(1), "the kernel is free while the worker is working")

    # Stop in mid-round, pressed twice as people do: acknowledged, and effective before the round is over.
    says(controls, re.compile(r"round \d+: update [1-9]\d* of \d+"))
    begun = events(run, "phase_started")[-1]["round"]
    press(nb, "Stop", controls)
    says(controls, re.compile("stopping|Stopped in round"))
    acknowledged = events(run, "phase_started")[-1]["round"]
    says(controls, re.compile(r"Stopped in round \d+, .* is due; a checkpoint is written"))
    stopped = events(run, "stopped")[-1]
    stopped_in = stopped["round"]
    assert begun <= stopped_in <= acknowledged + 1
    assert RunReader(run).rounds == list(range(1, stopped_in))
    assert RunReader(run).checkpoints[-1].in_progress == (stopped["due"] != "roll_out (policy period)")
    press(nb, "Release", controls)
    says(controls, "viewing")
    assert RunReader(run).status().state is RunState.STOPPED

    # Resume, and finish the round that was stopped.
    press(nb, "Resume", controls)
    says(controls, "ready")
    press(nb, "Finish round", controls)
    until(lambda: RunReader(run).rounds[-1:] == [stopped_in], "the stopped round is finished")

    # While it trains: reload the page and open the panels again. Nothing is lost, nobody notices.
    train_for_long(nb, controls)
    says(controls, "working")
    lab_page.reload()
    nb.wait()
    everything = nb.run(2)
    again = everything.locator(f"{PANEL}:visible").first
    says(again, "working")
    assert len(events(run, "created")) == 1

    screenshot(lab_page, "all-panels-while-training")

    # A second tab on the same notebook agrees with the first, and may stop what the first one started.
    second_page = new_page(chromium, width=1280, height=1300)
    second = NotebookPage(second_page, server, nb.name).open("another")
    other = second.run(2).locator(f"{PANEL}:visible").first
    says(other, "working")
    press(second, "Stop", other)
    says(other, "Stopped in round")
    says(again, "Stopped in round")
    assert again.locator(".spark-pill").first.inner_text() == other.locator(".spark-pill").first.inner_text() == "ready"
    second_page.context.close()

    # Fork from the newest round, which is the one that is offered.
    newest = RunReader(run).rounds[-1]
    again.locator("input[placeholder=name]").fill("demo-fork")
    again.locator("input[placeholder=name]").press("Tab")
    press(nb, "Fork from it", again)
    fork = server.folder / "runs" / "demo-fork"
    says(again, f"demo-fork goes on from demo after round {newest}")
    assert RunReader(fork).info.parent is not None
    press(nb, "Finish round", again)
    until(lambda: RunReader(fork).rounds == [newest + 1], "the fork has a round of its own")

    # Light and dark.
    for theme in ("Light", "Dark"):
        nb.set_theme(f"JupyterLab {theme}")
        screenshot(lab_page, f"controls-{theme.lower()}")
        assert serious_violations(lab_page, PANEL) == []
    press(nb, "Release", again)
    says(again, "viewing")


def test_the_kernels_own_interrupt_stops_a_cell_that_waits(lab_page: Page, server: LabServer) -> None:
    run = server.folder / "runs" / "waiting"
    nb = notebook(
        lab_page,
        server,
        "interrupt",
        [
            f"{CONFIG}trainer = start_run(config, 'runs/waiting')",
            "trainer.train()",
            "trainer.close()\nprint('stopped' if trainer.stopped else 'not stopped')",
            "import workbench\nwb = workbench.open('runs/waiting')\nwb.train()",
            "wb.close()",
        ],
    )
    nb.run(0)
    # trainer.train() itself, on the main thread.
    nb.start(1)
    until(lambda: len(events(run, "phase_finished")) >= 1, "training is under way")
    assert nb.is_running(1)
    nb.interrupt()
    done = nb.done(1)
    expect(done.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    says(nb.run(2), "stopped")
    reader = RunReader(run)
    assert reader.status().state is RunState.STOPPED
    in_round = events(run, "stopped")[-1]["round"]

    # The panels' own blocking call, whose work is on another thread.
    nb.start(3)
    closed = events(run, "closed")[-1]["number"]
    until(lambda: events(run, "phase_started")[-1]["number"] > closed, "it goes on")
    nb.interrupt()
    done = nb.done(3)
    expect(done.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    says(done, re.compile(r"Stopped in round \d+"))
    nb.run(4)
    assert events(run, "stopped")[-1]["round"] >= in_round
    assert RunReader(run).status().state is RunState.STOPPED


def test_a_run_that_is_killed_while_panels_watch_it(lab_page: Page, server: LabServer) -> None:
    run = server.folder / "runs" / "killed"
    program = f"{CONFIG}start_run(config, 'runs/killed').train()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    writer = subprocess.Popen([sys.executable, "-c", program], cwd=server.folder, env=environment)
    try:
        nb = notebook(
            lab_page,
            server,
            "killed",
            ["import workbench\nwb = workbench.open('runs/killed')\nwb.controls", "wb.close()"],
        )
        until(lambda: (run / "run.json").exists() and events(run, "phase_finished"), "the other process trains")
        panel = nb.run(0).locator(PANEL).first
        says(panel, re.compile(f"Process {writer.pid} on .* is writing this run"))
        expect(nb.button("Train", panel)).to_be_disabled()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        says(panel, "ended without closing it")
        assert RunReader(run).status().state is RunState.KILLED
        before = len(RunReader(run).rounds)
        press(nb, "Resume", panel)
        says(panel, "ready")
        press(nb, "Finish round", panel)
        until(lambda: len(RunReader(run).rounds) == before + 1, "the round in flight is finished")
        press(nb, "Release", panel)
        says(panel, "viewing")
        nb.run(1)
    finally:
        writer.kill()
        writer.wait()


GROWING = """
from dataclasses import replace
from pathlib import Path
import workbench
from ipywidgets.widgets import widget
from spark_kernel.evaluate.kind_stats import kind_stats
from spark_kernel.training.events import Event
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import make_round
writer = RunWriter.create(Path("runs/growing"), "seed: 0\\nrounds: 500\\n", {})
def add(number):
    records, _, report = make_round(number)
    kinds = tuple(line for period, groups in records.groups.items() for line in kind_stats(groups, period))
    writer.finish_round(records, replace(report, kinds=kinds))
updates = 0
def go_on(count):
    "One update after the other, every tenth of them a round; in between, progress within a round."
    global updates
    for _ in range(count):
        updates += 1
        if updates % 10 == 0:
            add(1 + updates // 10)
        wb.driver._listen(Event("progress", updates // 10, "policy", "roll_out", done=updates % 10, total=10))
        wb.refresh()
    print("updates", updates, "widgets", len(widget._instances))
add(1)
wb = workbench.open("runs/growing")
"""


def test_500_updates_leave_as_many_elements_as_there_were(lab_page: Page, server: LabServer) -> None:
    nb = notebook(
        lab_page,
        server,
        "growing",
        [GROWING, "wb.controls", "wb.dashboard", "go_on(50)", "go_on(450)", "wb.close()\nwriter.close('stopped')"],
    )
    nb.run(0)
    nb.run(1)
    figures = nb.run(2).locator(".js-plotly-plot")
    expect(figures.first).to_be_visible(timeout=PATIENCE * 1000)

    def counts() -> tuple[int, int, int]:
        """Figures; elements of our panels but for the points of lines; characters of the panels' text."""
        lab_page.wait_for_timeout(1500)
        points = lab_page.locator(f"{PANEL} g.points *, {PANEL} g.errorbars *, {PANEL} .errorbar *").count()
        return figures.count(), dom_nodes(lab_page, PANEL) - points, lab_page.locator(PANEL).count()

    nb.run(3)
    says(nb.cell(3), "updates 50")
    early = counts()
    widgets = re.findall(r"widgets (\d+)", nb.cell(3).inner_text())
    nb.run(4, PATIENCE)
    says(nb.cell(4), "updates 500")
    late = counts()
    assert late[0] == early[0] == len(PANELS)
    assert late[2] == early[2]
    # Axes have a few more or fewer ticks as they grow.
    assert abs(late[1] - early[1]) <= 0.1 * early[1], (early, late)
    assert re.findall(r"widgets (\d+)", nb.cell(4).inner_text()) == widgets
    nb.run(5)


DRAWN = "() => document.querySelectorAll('.js-plotly-plot .scatterlayer .point').length"
"""Points of curves that are drawn, in all figures of the page."""


def test_the_dashboard_draws_the_same_points_after_a_reload(lab_page: Page, server: LabServer) -> None:
    nb = notebook(lab_page, server, "reloaded", ["import workbench\nwb = workbench.open()\nwb.dashboard"])
    nb.run(0)
    until(lambda: lab_page.evaluate(DRAWN) > 0, "points are drawn")
    lab_page.wait_for_timeout(2_000)
    drawn = lab_page.evaluate(DRAWN)
    lab_page.keyboard.press("Control+s")  # a page that is loaded again shows what the notebook file holds
    saved = server.folder / "reloaded.ipynb"
    until(lambda: "widget-view" in saved.read_text("utf-8"), "the notebook is saved with its output")
    lab_page.reload()
    nb.wait()  # no cell is run again
    until(lambda: lab_page.evaluate(DRAWN) == drawn, f"the {drawn} points are drawn again")


def test_every_panel_of_the_recorded_run_in_light_and_dark(lab_page: Page, server: LabServer) -> None:
    nb = notebook(lab_page, server, "recorded", ["import workbench\nwb = workbench.open()\nwb"])
    nb.run(0)
    tabs = nb.cell(0).locator(".lm-TabBar-tab")
    expect(tabs.first).to_be_visible(timeout=PATIENCE * 1000)
    names = [re.sub(r"\W+", "-", name.lower()) for name in tabs.all_inner_texts()]
    assert names[:2] == ["controls", "dashboard"]
    found = {}
    for theme in ("Light", "Dark"):
        nb.set_theme(f"JupyterLab {theme}")
        for place, name in enumerate(names):
            tabs.nth(place).click()
            panel = nb.cell(0).locator(f"{PANEL}:visible").first
            expect(panel).to_be_visible()
            if name == "dashboard":
                # A figure has its title once it is drawn.
                expect(panel.locator(".js-plotly-plot text.gtitle")).to_have_count(len(PANELS), timeout=PATIENCE * 1000)
            lab_page.wait_for_timeout(700)
            screenshot(lab_page, f"{name}-{theme.lower()}")
            found[name, theme] = serious_violations(lab_page, PANEL)
    assert {place: broken for place, broken in found.items() if broken} == {}


@pytest.fixture(scope="module")
def two_runs(chromium: Any, server: LabServer) -> Iterator[NotebookPage]:
    """One kernel that has a run of hostile texts open, and another one that is not started."""
    write_hostile_run(server.folder / "runs" / "hostile")
    page = new_page(chromium, width=1280, height=1300)
    cells = [f"wb.{name}" for name in ("rollouts", "recycled", "correction")]
    begin = (
        f"import workbench\n{CONFIG}wb = workbench.open('runs/hostile')\nfresh = workbench.new(config, 'runs/typed')"
    )
    nb = notebook(page, server, "two-runs", [begin, *cells, "fresh.configuration", "fresh.controls"])
    nb.run(0)
    yield nb
    page.context.close()


def test_hostile_text_of_a_model_is_inert_in_every_panel(two_runs: NotebookPage, server: LabServer) -> None:
    page, asked = two_runs.page, []
    own = (server.url, server.url.replace("http", "ws", 1), "data:", "blob:")
    page.on("dialog", lambda dialog: asked.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: None if request.url.startswith(own) else asked.append(request.url))
    for place, name in enumerate(("rollouts", "recycled", "correction"), start=1):
        panel = two_runs.run(place).locator(PANEL).first
        expect(panel.locator("tbody tr td").first).to_be_visible(timeout=PATIENCE * 1000)
        # As Markdown, and as the raw text; both show the source of what is not let through.
        says(panel, "<script>window.taken = 1</script>")
        page.wait_for_timeout(500)
        screenshot(page, f"hostile-{name}")
        if name == "rollouts":
            panel.locator("select", has=page.locator("option", has_text="raw text")).select_option(label="raw text")
        else:
            panel.get_by_label("raw text").check()
        says(panel, "![x](http://evil.example/a.png)")
        panel.evaluate("panel => panel.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.wait_for_timeout(500)
        assert panel.locator(ACTIVE).count() == 0, name
        screenshot(page, f"hostile-{name}-raw")
    assert page.evaluate("window.taken") is None
    assert asked == []


def test_a_value_out_of_range_is_refused_in_the_form_and_nothing_starts(
    two_runs: NotebookPage, server: LabServer
) -> None:
    run = server.folder / "runs" / "typed"
    form, controls = (two_runs.run(place).locator(PANEL).first for place in (4, 5))
    start = two_runs.button("Start", controls)
    expect(start).to_be_enabled(timeout=PATIENCE * 1000)
    form.get_by_text("rollout", exact=True).first.click()
    field = form.get_by_label("samples", exact=True).locator("visible=true").first
    field.fill("0")
    field.press("Tab")
    says(form, "rollout.samples = '0' is refused: input should be greater than or equal to 1.")
    expect(form.locator(".spark-refused")).to_have_count(1)
    screenshot(two_runs.page, "form-refused")
    assert serious_violations(two_runs.page, PANEL) == []
    expect(start).to_be_disabled()
    says(controls, re.compile("Start: The configuration is not valid: rollout.samples"))
    expect(field).to_have_value("0")
    assert not run.exists()
    field.fill("4")
    field.press("Tab")
    expect(form).not_to_contain_text("is refused")
    expect(form.locator(".spark-refused")).to_have_count(0)
    press(two_runs, "Start", controls)
    says(controls, "ready")
    assert "samples: 4" in RunReader(run).config_yaml
    press(two_runs, "Release", controls)
    says(controls, "viewing")
