"""The app as it is served: over HTTP and through gradio_client, under load, and towards those who mean no good."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import httpx
import pytest

from spark_kernel.runs.writer import RunWriter
from tests.helpers.app_guard import red_png
from tests.helpers.app_server import PacedEngine, PacedModels, running_app, wait_until
from tests.helpers.gradio_http import API, ask, ask_data, ask_index, join, messages
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_evaluation, write_round
from workbench.app.access import USER, decide_access
from workbench.app.payload import REFUSED
from workbench.app.uploads import NO_IMAGE

pytestmark = pytest.mark.slow
TOKEN = re.compile(r"token[0-9a-z]+x")
LOAD_SECONDS = float(os.environ.get("APP_LOAD_SECONDS", "8"))
CLIENTS = 50


def echo_token(prompt, seed: int) -> str:
    """Writes back the token of the question: who gets another one's token has seen another one's text."""
    found = TOKEN.findall(prompt.messages[-1].text)
    return f"It says {found[0] if found else 'nothing'} and so \\boxed{{Yes}}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place") / "runs"
    writer = RunWriter.create(root / "mine", CONFIG, ENVIRONMENT)
    for round in (1, 2):
        write_round(writer, round)
    writer.write_evaluation(*make_evaluation(2))
    writer.close("finished")
    RunWriter.create(root.parent / "secret", CONFIG, ENVIRONMENT).close("finished")
    return root


@pytest.fixture(scope="module")
def models() -> PacedModels:
    return PacedModels(PacedEngine(pause=0.002))


@pytest.fixture(scope="module")
def app(runs: Path, models: PacedModels):
    with running_app(runs, models) as app:
        yield app


@pytest.fixture
def http(app):
    with httpx.Client(base_url=app.url, timeout=60) as client:
        yield client


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def one(app, data, session: str = "s1"):
    async def go():
        async with httpx.AsyncClient(base_url=app.url, timeout=60) as client:
            index = ask_index((await client.get("/config")).json())
            return await ask(client, index, data, session)

    return asyncio.run(go())


def private(http: httpx.Client, name: str, data: list):
    """Call a page's own event the way its script does; `name` is that of its function."""
    config = http.get("/config").json()
    index = next(d["id"] for d in config["dependencies"] if d["api_name"] == name)
    body = {"data": data, "fn_index": index, "session_hash": "p1", "event_data": None, "trigger_id": None}
    return http.post(f"/{API}/run/predict", json=body)


FILTERS = ["this round", "all", "any", "any", ""]


def test_through_gradio_client_the_answer_streams_and_only_one_endpoint_is_named(app, models, monkeypatch) -> None:
    from gradio_client import Client

    monkeypatch.setattr(models.engine, "pause", 0.05)

    client = Client(app.url, verbose=False)
    assert set(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == {"/ask"}
    job = client.submit("What is 40 + 2?", "builtin:starter", image=None, api_name="/ask")
    answers, status = job.result(timeout=60)
    seen = [output[0] for output in job.outputs()]
    assert "Final answer: 42" in answers
    assert "done" in status
    assert len(seen) > 2
    assert any("Final answer" not in page and "First answer" in page for page in seen)


def test_two_models_are_asked_the_same_question_and_the_same_model_twice_is_refused(app, models: PacedModels) -> None:
    reply = one(app, ask_data("What is 40 + 2?", second="builtin:starter"))
    assert "choose another one" in reply.error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "x" * 9000}, "at most 8000"),
        ({"first": "../../etc"}, "not offered"),
        ({"first": "owner/model"}, "not offered"),
        ({"verifier": "os:system"}, "one of"),
        ({"new_tokens": 10**9}, "allowed is"),
        ({"image": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}, NO_IMAGE),
        ({"image": {"path": "http://127.0.0.1:1/x.png", "meta": {"_type": "gradio.FileData"}}}, NO_IMAGE),
        ({"gold": [{"path": "https://evil.example/x", "meta": {"_type": "gradio.FileData"}}]}, REFUSED),
    ],
)
def test_what_is_out_of_bounds_is_answered_with_a_sentence_and_asks_no_model(
    app, models: PacedModels, change: dict, message: str
) -> None:
    before = len(models.engine.prompts)
    reply = one(app, ask_data(**{"question": "What?"} | change))
    assert reply.data is None
    assert message in reply.error
    assert "root:" not in reply.error
    assert len(models.engine.prompts) == before


def test_a_foreign_host_or_origin_gets_nothing(http: httpx.Client) -> None:
    assert http.get("/config", headers={"host": "evil.example"}).status_code == 421
    assert http.get("/config", headers={"origin": "http://evil.example"}).status_code == 403
    body = {"data": [], "fn_index": 0, "session_hash": "x"}
    joined = http.post(f"/{API}/queue/join", json=body, headers={"origin": "http://localhost:3000"})
    assert joined.status_code == 403


def test_no_file_is_served_but_uploads(http: httpx.Client, runs: Path) -> None:
    here = Path.cwd()
    for path in (
        here / "pyproject.toml",
        here / "workbench" / "app" / "page.py",
        runs / "mine" / "run.json",
        Path("/etc/passwd"),
    ):
        assert path.is_file()
        for address in (f"/{API}/file={path}", f"/{API}/file/{path}", f"/file={path}", f"/{API}/file=.{path}"):
            assert http.get(address).status_code in (403, 404), address
    for address in ("/static/../../pyproject.toml", "/assets/%2e%2e/%2e%2e/config.py", "/static/..%2f..%2fblocks.py"):
        assert http.get(address).status_code in (403, 404), address
    sent = http.post(f"/{API}/upload", files={"files": ("a.png", red_png())})
    assert sent.status_code == 200
    found = http.get(f"/{API}/file={sent.json()[0]}")
    assert found.content == red_png()
    assert found.headers["content-type"] == "image/png"


def test_an_upload_above_the_bound_is_refused_and_not_kept(http: httpx.Client) -> None:
    sent = http.post(f"/{API}/upload", files={"files": ("a.png", b"\0" * (9 * 2**20))})
    assert sent.status_code == 413


def test_names_of_runs_lead_nowhere_else_over_http(http: httpx.Client) -> None:
    found = private(http, "refill", ["samples", "mine", 1, "light", *FILTERS, ""])
    assert found.status_code == 200
    assert "1 to" in found.text
    for name in ("../secret", "/etc", "mine/../../secret", "..", 7, None, ["mine"], {"a": 1}):
        answer = private(http, "refill", ["samples", name, 1, "light", *FILTERS, ""])
        assert "created" not in answer.text
        assert str(Path.home()) not in answer.text


def test_nothing_that_the_page_calls_trains_or_writes(http: httpx.Client, runs: Path) -> None:
    """Every event of the page is called with plausible values: the runs stay as they are, to the last byte and time."""
    before, here = listing(runs), listing(Path("workbench"))
    place = ["samples", "mine", 2, "light", *FILTERS, ""]
    calls = {
        "refill": place, "switch": place, "follow": place, "opened": ["light"], "turn": ["mine", 2, *FILTERS, 0],
        "jump": ["mine", 2, *FILTERS, ""], "make_csv": ["mine", 2, *FILTERS],
    }  # fmt: skip
    config = http.get("/config").json()
    assert {d["api_name"] for d in config["dependencies"] if d["api_visibility"] != "private"} == {"ask"}
    for name, data in calls.items():
        assert private(http, name, data).status_code == 200, name
    for tab in ("live", "rounds", "rewards", "runs", "about"):
        assert private(http, "refill", [tab, *place[1:]]).status_code == 200, tab
    assert listing(runs) == before
    assert {k: v for k, v in listing(Path("workbench")).items() if "__pycache__" not in k} == {
        k: v for k, v in here.items() if "__pycache__" not in k
    }


def test_a_page_behind_a_password_says_nothing_before_it_is_given(runs: Path) -> None:
    access = decide_access(password="correct horse")
    with running_app(runs, access=access) as app, httpx.Client(base_url=app.url, timeout=60) as client:
        assert client.get("/config").status_code == 401
        assert client.post(f"/{API}/queue/join", json={"data": [], "fn_index": 0}).status_code == 401
        assert "mine" not in client.get("/").text
        wrong = client.post("/login", data={"username": USER, "password": "battery staple"})
        assert wrong.status_code == 400
        assert client.post("/login", data={"username": USER, "password": "correct horse"}).status_code == 200
        assert client.get("/config").status_code == 200


def test_when_the_client_goes_generation_stops(runs: Path) -> None:
    models = PacedModels(PacedEngine(write=lambda *_: "word " * 2000, pause=0.01))

    async def ask_and_go(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            index = ask_index((await client.get("/config")).json())
            await join(client, index, ask_data("What?", new_tokens=2000), "gone")
            seen = 0
            async for message in messages(client, "gone"):
                seen += message["msg"] == "process_generating"
                if seen > 3:
                    return

    with running_app(runs, models) as app:
        asyncio.run(ask_and_go(app.url))
        assert models.engine.words > 0
        assert wait_until(lambda: not models.engine.running.is_set())
        assert models.engine.words < 1900
        assert wait_until(lambda: app.waiting.count == 0)


def test_under_load_everybody_is_answered_or_told_to_come_back_and_sees_only_their_own_text(runs: Path) -> None:
    """50 clients ask again and again; APP_LOAD_SECONDS sets for how long."""
    models = PacedModels(PacedEngine(write=echo_token, pause=0.01))
    answered, told, mixed, lost = [], [], [], []

    async def client_loop(url: str, index: int, number: int, end: float) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            count = 0
            while asyncio.get_running_loop().time() < end:
                token = f"token{number}n{count}x"
                count += 1
                reply = await ask(client, index, ask_data(f"Say {token}"), f"c{number}-{count}")
                if reply.data is not None:
                    found = set(TOKEN.findall(str(reply.data)))
                    (answered if found == {token} else mixed).append(token)
                elif reply.status in (429, 503) or "come back" in reply.error:
                    told.append(reply.status)
                    await asyncio.sleep(0.2)
                else:
                    lost.append(reply)

    async def crowd(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            index = ask_index((await client.get("/config")).json())
        end = asyncio.get_running_loop().time() + LOAD_SECONDS
        await asyncio.gather(*(client_loop(url, index, number, end) for number in range(CLIENTS)))

    with running_app(runs, models, waiting=16) as app:
        one(app, ask_data("Say token0x"))
        before = resident_bytes()
        asyncio.run(crowd(app.url))
        grown = resident_bytes() - before
        print(f"{len(answered)} answered, {len(told)} told to come back, memory {grown / 2**20:+.1f} MiB")
        assert wait_until(lambda: app.waiting.count == 0)
    assert answered
    assert told  # 50 clients, 16 places
    assert mixed == []
    assert lost == []
    assert grown < 150 * 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
