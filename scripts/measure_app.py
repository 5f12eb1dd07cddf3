"""Measure the app as a person meets it: python scripts/measure_app.py [--repeats N] [--rounds N].

`workbench app` runs in a process of its own, with the starter model; the page is opened in a real Chromium, a fresh
profile each time. Prints a table of medians with the fastest and the slowest repeat. docs/app.md keeps the numbers.
Needs what the tests need (`make setup-dev`, a Chromium).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

TEMPLATES = 20
"""Rounds that are written; the others of a long run are these again under other numbers."""
CLIENTS = 50
MENU = "Verifier says"
FIRST_TEXT = """async () => {
    const answers = document.querySelector('#sw-answers');
    const written = () => [...answers.querySelectorAll('.sw-card .sw-text')].some(text => text.innerText.trim());
    const seen = new Promise(done => new MutationObserver((_, watch) => {
        if (written()) { watch.disconnect(); done(performance.now()); }
    }).observe(answers, {childList: true, subtree: true, characterData: true}));
    const start = performance.now();
    document.querySelector('#sw-ask').click();
    return await seen - start;
}"""
WATCH_FILTER = """() => {
    const summary = document.querySelector('#sw-summary');
    const count = () => (summary.innerText.match(/of (\\d+)/) || [])[1], before = count();
    let start;
    document.addEventListener('mousedown', () => { start = performance.now(); }, {capture: true, once: true});
    window.filtered = new Promise(done => new MutationObserver((_, watch) => {
        if (count() && count() !== before) { watch.disconnect(); done(performance.now() - start); }
    }).observe(summary, {childList: true, subtree: true, characterData: true}));
}"""
SEARCH = """async (word) => {
    const summary = document.querySelector('#sw-summary');
    const count = () => (summary.innerText.match(/of (\\d+)/) || [])[1], before = count();
    const box = document.querySelector('#sw-search textarea, #sw-search input');
    const changed = new Promise(done => new MutationObserver((_, watch) => {
        if (count() && count() !== before) { watch.disconnect(); done(performance.now()); }
    }).observe(summary, {childList: true, subtree: true, characterData: true}));
    const start = performance.now();
    box.value = word; box.dispatchEvent(new Event('input', {bubbles: true}));
    return await changed - start;
}"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--crowd-seconds", type=float, default=60.0, help="50 clients ask for so long; 0 for none")
    args = parser.parse_args()
    from tests.helpers.browser import launched_chromium
    from tests.test_app_browser import write_large_run

    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        print(f"writing a run of {args.rounds} rounds and one of 10,000 samples ...", flush=True)
        write_long_run(runs / "long", args.rounds)
        write_large_run(runs)
        with served(runs) as (url, process):
            with launched_chromium() as browser:
                found = {
                    "page ready to be used": [page_ready(browser, url) for _ in range(args.repeats)],
                    "first streamed text after the click": [first_text(browser, url) for _ in range(args.repeats)],
                    f"a run of {args.rounds} rounds opened by its link": [
                        link_opened(browser, f"{url}?run=long") for _ in range(args.repeats)
                    ],
                    f"another run chosen, of {args.rounds} rounds": [
                        run_chosen(browser, url, args.rounds) for _ in range(args.repeats)
                    ],
                    "a search in 10,000 samples": searches(
                        browser, f"{url}?run=large&round=1&tab=samples", args.repeats
                    ),
                    "a filter of 10,000 samples": filters(
                        browser, f"{url}?run=large&round=1&tab=samples", args.repeats
                    ),
                }
            told = crowd(url, process.pid, args.crowd_seconds) if args.crowd_seconds else ""
    print(f"load average {os.getloadavg()[0]:.1f}\n| what | median | fastest to slowest |\n| --- | --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} s |")
    print(f"\n{told}")
    return 0


def write_long_run(path: Path, rounds: int) -> None:
    """A run of so many rounds; its reports are whole, its samples repeat."""
    from spark_kernel.runs.layout import ROUNDS, numbered
    from spark_kernel.runs.writer import RunWriter
    from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, write_round

    writer = RunWriter.create(path, CONFIG, ENVIRONMENT)
    for round in range(1, min(TEMPLATES, rounds) + 1):
        write_round(writer, round)
    writer.close("finished")
    for round in range(TEMPLATES + 1, rounds + 1):
        source, target = path / ROUNDS / numbered(1 + round % TEMPLATES), path / ROUNDS / numbered(round)
        target.mkdir()
        for file in source.iterdir():
            if file.name == "report.json":
                report = json.loads(file.read_text(encoding="utf-8")) | {"round": round}
                (target / file.name).write_text(json.dumps(report), encoding="utf-8")
            elif file.is_file():
                os.link(file, target / file.name)
            else:
                shutil.copytree(file, target / file.name, copy_function=os.link)


@contextmanager
def served(runs: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`workbench app` in a process of its own, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "workbench.cli", "app", "--runs", str(runs), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("the app did not start") from None
                time.sleep(0.2)
        time.sleep(5.0)  # the model is loaded behind the page
        yield url, process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _page(browser: Any) -> Iterator[Any]:
    from tests.helpers.browser import new_page

    page = new_page(browser)
    try:
        yield page
    finally:
        page.context.close()


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _enabled(page: Any, url: str) -> None:
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#sw-ask:enabled")


def page_ready(browser: Any, url: str) -> float:
    """Seconds from the address until the question can be asked."""
    with _page(browser) as page:
        return _timed(lambda: _enabled(page, url))


def first_text(browser: Any, url: str) -> float:
    """Seconds from the click until a letter of the answer stands on the page."""
    with _page(browser) as page:
        _enabled(page, url)
        page.wait_for_timeout(1500)
        return float(page.evaluate(FIRST_TEXT)) / 1000


def link_opened(browser: Any, url: str) -> float:
    """Seconds from the address until the newest round is shown, the page's own loading included."""
    with _page(browser) as page:

        def work() -> None:
            page.goto(url, wait_until="commit")
            page.wait_for_selector(".sw-phase dl")

        return _timed(work)


def run_chosen(browser: Any, url: str, rounds: int) -> float:
    """Seconds from the choice of the long run until its newest round is shown, on a page that is open."""
    with _page(browser) as page:
        page.goto(f"{url}?run=large&round=1&tab=rounds")
        page.wait_for_selector(".sw-phase dl")
        page.wait_for_timeout(2500)
        page.locator("#sw-run input").click()
        option = page.get_by_role("option", name="long", exact=True)
        option.wait_for()
        started = time.perf_counter()
        option.click()
        page.wait_for_function(
            "last => document.querySelector('.sw-phase').innerText.includes(last)", arg=f"round {rounds}"
        )
        return time.perf_counter() - started


def searches(browser: Any, url: str, repeats: int) -> list[float]:
    """Seconds from the last key until the table stands."""
    words = ("cannot", "think", "boxed{1", "boxed{2")
    with _page(browser) as page:
        page.goto(url)
        page.wait_for_function("document.querySelector('#sw-summary')?.innerText.includes('of 10000')")
        page.wait_for_timeout(1000)
        return [float(page.evaluate(SEARCH, words[i % len(words)])) / 1000 for i in range(repeats)]


def filters(browser: Any, url: str, repeats: int) -> list[float]:
    """Seconds from the choice in the menu until the table stands."""
    found = []
    with _page(browser) as page:
        page.goto(url)
        page.wait_for_function("document.querySelector('#sw-summary')?.innerText.includes('of 10000')")
        for turn in range(repeats):
            page.wait_for_timeout(500)
            page.get_by_label(MENU, exact=False).first.click()
            option = page.get_by_role("option", name=("wrong", "right")[turn % 2], exact=False).first
            option.wait_for()
            page.evaluate(WATCH_FILTER)
            option.click()
            found.append(float(page.evaluate("window.filtered")) / 1000)
    return found


def crowd(url: str, server: int, seconds: float) -> str:
    """50 clients ask again and again; a sentence on what they were told, and the server's memory on the way."""
    import httpx

    from tests.helpers.gradio_http import ask, ask_data, ask_index

    told: Counter[str] = Counter()
    memory: list[str] = []

    async def one(index: int, number: int, end: float) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            count = 0
            while time.monotonic() < end:
                count += 1
                reply = await ask(client, index, ask_data(f"What is {number} + {count}?"), f"c{number}-{count}")
                busy = reply.status in (429, 503) or "come back" in reply.error
                told["answered" if reply.data is not None else "told to come back" if busy else "lost"] += 1
                if busy:
                    await asyncio.sleep(0.2)

    async def watch(end: float) -> None:
        while time.monotonic() < end:
            memory.append(f"{resident_mib(server)}")
            await asyncio.sleep(seconds / 6)
        memory.append(f"{resident_mib(server)}")

    async def everybody() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            index = ask_index((await client.get("/config")).json())
        end = time.monotonic() + seconds
        await asyncio.gather(watch(end), *(one(index, number, end) for number in range(CLIENTS)))

    asyncio.run(everybody())
    counts = ", ".join(f"{count} {name}" for name, count in sorted(told.items()))
    return f"{CLIENTS} clients for {seconds:.0f} s: {counts}; the server's memory on the way, MiB: {', '.join(memory)}"


def resident_mib(process: int) -> int:
    """Memory of a process now."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    sys.exit(main())
