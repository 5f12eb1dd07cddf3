"""The app in a real browser: what a person does with it, in both themes and at both widths, and hostile text."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.prompts.build import solve_task
from spark_kernel.records import Period
from spark_kernel.runs.bundles import RoundRecords
from spark_kernel.runs.writer import RunWriter
from tests.helpers.app_page import choose, open_tab, opened
from tests.helpers.app_server import PacedEngine, PacedModels, running_app, wait_until
from tests.helpers.browser import new_page, screenshot, serious_violations
from tests.helpers.hostile_runs import ACTIVE, write_hostile_run
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_evaluation, make_round, sample_group, write_round
from workbench.app.access import USER, decide_access
from workbench.app.examples import EXAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.browser]
TABS = ("Live compare", "Rounds", "Samples", "Reward accuracy", "Runs", "About")
OWN = ("#sw-answers", "#sw-title", "#sw-status", "#sw-samples", "#sw-detail", ".sw-phase", ".sw-about")
"""What of the page is ours; the rest is Gradio's."""
SAMPLES = 10_000
OTHER_CONFIG = f"{CONFIG}learner:\n  learning_rate: 3.0e-05\nobjective:\n  beta: 0.25\n"
PASSWORD = "correct horse"
INKS = """() => ['text.gtitle, g.xtick text', 'g.ytick text'].map(s => {
    const found = [...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.offsetParent);
    return [...new Set(found.flatMap(plot => [...plot.querySelectorAll(s)]).map(e => getComputedStyle(e).fill))];
}).flat()"""
"""The colours of the words in the figures that are seen."""
INK = {"light": "rgb(31, 35, 40)", "dark": "rgb(230, 233, 238)"}


def write_large_run(root: Path) -> None:
    """One round of 2,500 groups with 4 outputs each."""
    source = ArithmeticSource(seed=3)
    problems = tuple(source.problem(index) for index in range(SAMPLES // 4))
    groups = tuple(sample_group(solve_task(problem, seed=5, round=1), 1, 0) for problem in problems)
    _, _, report = make_round(1)
    writer = RunWriter.create(root / "large", CONFIG, ENVIRONMENT)
    records = RoundRecords(1, problems, {Period.POLICY: groups, Period.REWARD: ()}, (), (), {})
    writer.finish_round(records, report)
    writer.close("finished")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place") / "runs"
    write_large_run(root)
    write_hostile_run(root / "hostile")
    writer = RunWriter.create(root / "mine", CONFIG, ENVIRONMENT)
    for round in (1, 2, 3):
        write_round(writer, round)
    writer.write_evaluation(*make_evaluation(2))
    writer.close("finished")
    writer = RunWriter.create(root / "other", OTHER_CONFIG, ENVIRONMENT)
    for round in (1, 2, 3):
        write_round(writer, round)
    evaluation, report = make_evaluation(3)
    writer.write_evaluation(replace(evaluation, round=2, exclusions=()), report)
    writer.close("finished")
    model = root.parent / "second-model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def models() -> PacedModels:
    return PacedModels(PacedEngine(pause=0.03))


@pytest.fixture(scope="module")
def app(runs: Path, models: PacedModels):
    with running_app(runs, models, names=[str(runs.parent / "second-model")]) as app:
        yield app


def test_ask_and_watch_three_columns_stream(page, app, models: PacedModels, monkeypatch) -> None:
    monkeypatch.setattr(models.engine, "pause", 0.15)
    opened(page, app.url)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const columns = [...document.querySelectorAll('#sw-answers .sw-column')];
                const filled = columns.map(column => column.querySelectorAll('.sw-card').length);
                const now = JSON.stringify(filled);
                if (filled.length && window.seen.at(-1) !== now) window.seen.push(now);
            }).observe(document.querySelector('#sw-answers'), {childList: true, subtree: true, characterData: true});
        }"""
    )
    page.locator("#sw-question textarea").fill("What is 40 + 2?")
    page.click("#sw-ask")
    page.wait_for_selector(".sw-outcome")
    seen = [json.loads(step) for step in page.evaluate("window.seen")]
    assert [1, 0, 0] in seen
    assert [1, 1, 0] in seen
    assert seen[-1] == [1, 2, 1]
    text = page.inner_text("#sw-answers")
    assert "self-judged, not verified" in text
    assert "Final answer: 42" in text
    assert "done" in page.inner_text("#sw-status")


def test_stop_stops_generation_and_the_next_question_is_answered(page, app, models: PacedModels) -> None:
    write, models.engine.write = models.engine.write, lambda *_: "word " * 1500
    try:
        opened(page, app.url)
        before = models.engine.words
        page.click("#sw-ask")
        assert wait_until(lambda: models.engine.words > before + 5)
        page.click("#sw-stop")
        page.wait_for_selector(".sw-state-stopped")
        assert not models.engine.running.is_set()
        assert models.engine.words < before + 1400
    finally:
        models.engine.write = write
    page.click("#sw-ask")
    page.wait_for_selector(".sw-outcome")


def test_compare_two_models(page, app) -> None:
    opened(page, app.url)
    choose(page, "Model B", "builtin:starter-2")
    page.click("#sw-ask")
    page.wait_for_function("document.querySelectorAll('.sw-outcome').length === 2")
    heads = page.locator(".sw-chain h2").all_inner_texts()
    assert heads[0].startswith("A: ")
    assert heads[0].endswith("second-model")
    assert heads[1] == "B: builtin:starter-2"
    assert page.locator(".sw-two").count() == 1


def test_enter_asks_a_link_asks_again_and_an_example_clears_the_answer(page, app) -> None:
    opened(page, app.url)
    box = page.locator("#sw-question textarea")
    box.fill("What is")
    box.press("Shift+Enter")
    box.press_sequentially("40 + 2?")
    assert box.input_value() == "What is\n40 + 2?"
    assert page.locator(".sw-chain").count() == 0
    box.press("Enter")
    page.wait_for_selector(".sw-story .sw-end", state="attached")
    story = page.inner_text(".sw-story")
    assert "41" in story
    assert "rejected" in story
    assert story.endswith(": changed")
    link = page.url
    assert "question=What+is" in link
    # The same answer on a page of its own, and again by Reload.
    opened(page, link)
    page.wait_for_selector(".sw-story .sw-end", state="attached")
    assert page.inner_text(".sw-story") == story
    assert box.input_value() == "What is\n40 + 2?"
    page.locator("#sw-examples tbody tr").nth(1).press("Enter")
    page.wait_for_function("document.querySelectorAll('.sw-chain').length === 0")
    assert box.input_value() == EXAMPLES[1].question


def test_any_state_is_a_link_and_back_and_reload_keep_it(page, app) -> None:
    opened(page, f"{app.url}?run=mine&round=2")
    page.wait_for_selector(".sw-phase >> nth=0")
    open_tab(page, "Samples")
    page.wait_for_selector("#sw-samples tr[data-id]")
    unfiltered = page.locator("#sw-summary").inner_text()
    page.get_by_role("button", name="judge wrong", exact=True).click()
    page.wait_for_function("location.search.includes('preset=')")
    page.wait_for_function(f"document.querySelector('#sw-summary').innerText !== {json.dumps(unfiltered)}")
    rows = page.locator("#sw-summary").inner_text()
    page.reload()
    page.wait_for_selector("#sw-summary >> text=/of/")
    page.wait_for_function(f"document.querySelector('#sw-summary').innerText === {json.dumps(rows)}")
    page.go_back()
    page.wait_for_function("location.search.includes('tab=rounds') || !location.search.includes('samples')")
    opened(page, f"{app.url}?run=mine&round=77&tab=rounds")
    page.wait_for_selector("#sw-state >> text=The link names round 77")
    assert page.locator(".sw-phase:visible").count() == 0


def test_filter_and_search_ten_thousand_samples(page, app) -> None:
    opened(page, f"{app.url}?run=large&round=1&tab=samples")
    page.wait_for_function("document.querySelector('#sw-summary')?.innerText.includes('of 10000')")
    started = time.perf_counter()
    choose(page, "Verifier says", "wrong")
    page.wait_for_function("/of [1-9]\\d{0,3} \\(10000 in all/.test(document.querySelector('#sw-summary').innerText)")
    wrong = time.perf_counter() - started
    milliseconds = page.evaluate(
        """async () => {
            const summary = document.querySelector('#sw-summary');
            const count = () => (summary.innerText.match(/of (\\d+) \\(10000 in all/) || [])[1], before = count();
            const box = document.querySelector('#sw-search textarea, #sw-search input');
            const changed = new Promise(done => new MutationObserver((_, watch) => {
                if (count() && count() !== before) { watch.disconnect(); done(performance.now()); }
            }).observe(summary, {childList: true, subtree: true, characterData: true}));
            const start = performance.now();
            box.value = 'cannot'; box.dispatchEvent(new Event('input', {bubbles: true}));
            return await changed - start;
        }"""
    )
    print(f"filter with the menu {1000 * wrong:.0f} ms, search {milliseconds:.0f} ms until the table stands")
    rows = page.locator("#sw-samples tbody tr")
    assert 0 < rows.count() <= 50
    assert set(page.locator("#sw-samples tbody tr td:nth-child(5)").all_inner_texts()) == {"wrong"}


def test_a_link_opens_a_sample_keys_go_on_and_the_rows_can_be_exported(page, app, runs: Path) -> None:
    from spark_kernel.runs.reader import RunReader

    ids = RunReader(runs / "mine").table("rollouts", [2])["id"].to_pylist()
    opened(page, f"{app.url}?run=mine&round=2&sample={ids[1].replace('#', '%23')}")
    page.wait_for_selector(".sw-detail")
    assert ids[1] in page.inner_text(".sw-detail")
    assert page.locator("#sw-samples tr.sw-selected").get_attribute("data-id") == ids[1]
    page.keyboard.press("j")
    page.wait_for_function("id => document.querySelector('.sw-detail').innerText.includes(id)", arg=ids[2])
    page.wait_for_function("id => new URLSearchParams(location.search).get('sample') === id", arg=ids[2])
    page.keyboard.press("k")
    page.wait_for_function("id => document.querySelector('.sw-detail').innerText.includes(id)", arg=ids[1])
    page.keyboard.press("n")
    page.wait_for_function("id => !document.querySelector('.sw-detail').innerText.includes(id)", arg=ids[1])
    page.locator("#sw-search textarea, #sw-search input").fill("k")  # a key in a field is text
    with page.expect_download() as got:
        page.click("#sw-export")
    lines = Path(got.value.path()).read_text().splitlines()
    assert lines[0].startswith("round,period,id")
    assert len(lines) > 2


def test_a_link_that_leads_nowhere_says_so(page, app) -> None:
    opened(page, f"{app.url}?run=..%2Fsecret&sample=x")
    page.get_by_text("The link names a run that is not here").first.wait_for()


def test_hostile_text_in_a_run_does_nothing(page, app) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: asked.append(request.url) if "evil" in request.url else None)
    opened(page, f"{app.url}?run=hostile&round=1&tab=samples")
    page.locator("#sw-samples tr[data-id]").first.click()
    page.wait_for_selector(".sw-detail")
    for tab in ("Rounds", "Samples"):
        open_tab(page, tab)
        page.wait_for_timeout(500)
    assert "<script>alert(1)" in page.inner_text("#sw-samples")  # shown as text
    assert page.evaluate("window.taken") is None
    own = "#sw-samples, #sw-detail, .sw-phase"
    assert (
        page.evaluate(
            "([own, bad]) => [...document.querySelectorAll(own)].flatMap(e => [...e.querySelectorAll(bad)]).length",
            [own, ACTIVE],
        )
        == 0
    )
    assert asked == []


def upload(page, image: Path) -> None:
    page.get_by_role("button", name="Image").first.click()
    page.locator("#sw-image input[type=file]").set_input_files(image)
    page.locator("#sw-image img").wait_for()


@pytest.mark.parametrize("eyes", [False, True])
def test_an_uploaded_image_reaches_a_model_with_eyes_and_another_says_that_it_reads_text_only(
    page, tmp_path: Path, eyes: bool
) -> None:
    image = tmp_path / "square.png"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(image)
    models = PacedModels(eyes=eyes)
    with running_app(tmp_path / "runs", models) as app:
        opened(page, app.url)
        upload(page, image)
        page.click("#sw-ask")
        if eyes:
            page.wait_for_selector(".sw-outcome")
            first = models.engine.prompts[0]
            assert len(first.images) == 1
            with Image.open(first.images[0]) as seen:
                assert (seen.size, seen.convert("RGB").getpixel((5, 5))) == ((40, 30), (200, 30, 30))
        else:
            page.get_by_text("This model has no eyes: it reads text only. Take the image away").first.wait_for()
            assert models.engine.prompts == []
        screenshot(page, f"app-image-{'eyes' if eyes else 'text-only'}")
        assert serious_violations(page, "#sw-answers") == []


def test_a_wrong_password_is_refused_and_the_right_one_opens_the_page(page, tmp_path: Path) -> None:
    with running_app(tmp_path / "runs", access=decide_access(password=PASSWORD)) as app:
        page.goto(app.url)
        name, secret = page.locator("input[type=text], textarea").first, page.locator("input[type=password]").first
        name.fill(USER)
        secret.fill("battery staple")
        page.get_by_role("button", name="Login").click()
        page.get_by_text("Incorrect Credentials").first.wait_for()
        screenshot(page, "app-login")
        assert page.locator("#sw-ask").count() == 0
        assert f'The user name is "{USER}".' in page.inner_text("body")
        name.fill(USER)
        secret.fill(PASSWORD)
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#sw-ask")
        page.click("#sw-ask")
        page.wait_for_selector(".sw-outcome")


def test_two_runs_are_compared_in_either_theme(page, app) -> None:
    opened(page, f"{app.url}?tab=runs")
    box = page.locator("#sw-compare input")
    for name in ("mine", "other"):
        box.click()
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")
    page.click("#sw-compare-go")
    settings = page.locator("table", has=page.locator("caption", has_text="Settings that differ"))
    settings.wait_for()
    rows = {cells[0]: cells[1:] for cells in (row.split("\t") for row in settings.locator("tr").all_inner_texts())}
    assert rows["learner.learning_rate"][1] == "3e-05"
    assert rows["objective.beta"][1] == "0.25"
    assert set(rows) == {"setting", "learner.learning_rate", "objective.beta"}
    compared = page.locator("table", has=page.locator("caption", has_text="paired, 95 % intervals"))
    assert "Not enough evidence" in compared.inner_text()
    assert re.search(r"95 % interval [-+\d.]+ to [-+\d.]+, \d problems", compared.inner_text())
    page.locator(".js-plotly-plot g.ytick text").first.wait_for()
    for scheme in ("light", "dark"):
        assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
        page.wait_for_function(f"ink => ({INKS})().every(one => one === ink)", arg=INK[scheme])
        screenshot(page, f"app-compared-{scheme}")
        assert serious_violations(page, "#sw-compared") == []
        page.click("#sw-shade")


def test_the_button_switches_the_page_and_the_figures_to_dark_and_back(page, app) -> None:
    opened(page, f"{app.url}?run=mine&round=2&tab=rewards")
    page.locator(".js-plotly-plot g.ytick text").first.wait_for()
    grounds = []
    for scheme in ("light", "dark", "light"):
        page.wait_for_function(f"ink => ({INKS})().every(one => one === ink)", arg=INK[scheme])
        assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        screenshot(page, f"app-shade-{scheme}")
        page.click("#sw-shade")
    assert grounds[0] == grounds[2] != grounds[1]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_every_tab_in_both_themes_and_widths_fits_and_is_accessible(chromium, app, scheme: str, width: int) -> None:
    page = new_page(chromium, scheme=scheme, width=width)  # type: ignore[arg-type]
    opened(page, f"{app.url}?run=mine&round=2&tab=live")
    page.click("#sw-ask")
    page.wait_for_selector(".sw-outcome")
    assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
    for name in TABS:
        open_tab(page, name)
        ready = {"Rounds": ".sw-phase dl", "Samples": "#sw-samples tr[data-id]", "About": ".sw-about"}.get(name)
        if ready:
            page.wait_for_selector(ready)
        if name == "Samples":
            page.locator("#sw-samples tr[data-id]").first.click()
            page.wait_for_selector(".sw-detail")
        page.wait_for_timeout(300)
        screenshot(page, f"app-{name.split()[0].lower()}-{scheme}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        for selector in OWN:
            if page.locator(selector).count() and page.locator(selector).first.is_visible():
                assert serious_violations(page, selector) == [], (name, selector)
    page.context.close()


def test_the_page_follows_a_run_that_is_being_written(page, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    writer = RunWriter.create(root / "growing", CONFIG, ENVIRONMENT)
    write_round(writer, 1)
    with running_app(root) as app:
        opened(page, f"{app.url}?run=growing")
        page.get_by_text("The page follows it").wait_for()
        write_round(writer, 2)
        page.wait_for_function("document.querySelector('#sw-round input[type=range]').max === '2'")
        page.wait_for_function("document.querySelector('.sw-phase').innerText.includes('round 2')")
        writer.close("finished")
        page.get_by_text("finished").first.wait_for()
