"""Every function of the page, as a foreign client calls it: wrong values in every slot, wrong bodies, wrong routes.

The functions come from the page that is built, so that one written tomorrow is walked tomorrow.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from spark_kernel.runs.writer import RunWriter
from tests.helpers.app_server import PacedEngine, PacedModels, running_app
from tests.helpers.gradio_http import API
from tests.helpers.pulse import pulse
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_evaluation, write_round
from workbench.app.catalog import Catalog
from workbench.app.context import AppContext
from workbench.app.desk import ModelDesk
from workbench.app.limits import LOCAL, Limits
from workbench.app.page import PageBlocks, build_page
from workbench.app.samples import SampleTables
from workbench.app.uploads import Uploads
from workbench.app.workroom import Workroom

pytestmark = pytest.mark.slow
UNHURRIED = replace(LOCAL, requests_per_second=1e6, burst=10**6)
WRONG: tuple[Any, ...] = (
    None, True, 7, -1, 1.5, 1e300, 10**40, "", "x", "../../etc/passwd", "\ud800", "\0", "a" * 5_000, "[" * 50_000, [],
    [[]], ["x"], ["../x"] * 40, {}, {"path": "/etc/passwd"}, {"path": "/dev/ptmx", "is_file": True},
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"url": "http://127.0.0.1:1/"},
    {"__type__": "update", "value": 1},
)  # fmt: skip
"""What no slot of the page expects, or what it does not expect to lead anywhere."""
FEW = 5
"""Of a function that is wired several times, all wrong values are sent once, and every fifth by its other numbers."""
SENTENCE = 300


def page() -> PageBlocks:
    """The page as it is served, without a server."""
    nowhere, room = Path("/nowhere"), Workroom("test", 1, 1, 1)
    desk = ModelDesk(PacedModels())
    try:
        context = AppContext(Catalog(nowhere), desk, LOCAL, SampleTables(1), Uploads(nowhere, LOCAL), room, room)
        return build_page(context).blocks
    finally:
        desk.close()


@cache
def functions() -> dict[int, gr.blocks.BlockFunction]:
    return dict(page().fns)


def is_twin(index: int) -> bool:
    """Whether an earlier function does the same with the same inputs."""
    made = functions()[index]

    def same(other: gr.blocks.BlockFunction) -> bool:
        return made.name == other.name and [b._id for b in made.inputs] == [b._id for b in other.inputs]

    return any(same(other) for i, other in functions().items() if i < index)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "index" in metafunc.fixturenames:
        made = functions()
        metafunc.parametrize("index", list(made), ids=[f"{i}-{fn.api_name}" for i, fn in made.items()])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place") / "runs"
    writer = RunWriter.create(root / "mine", CONFIG, ENVIRONMENT)
    for round in (1, 2):
        write_round(writer, round)
    writer.write_evaluation(*make_evaluation(2))
    writer.close("finished")
    return root


@pytest.fixture(scope="module")
def url(runs: Path) -> Iterator[str]:
    limits: Limits = replace(UNHURRIED, waiting=1000)
    with pytest.MonkeyPatch.context() as patch:
        # Whatever writes a temporary file, writes it where it can be counted.
        (runs.parent / "temporary").mkdir()
        patch.setattr(tempfile, "tempdir", str(runs.parent / "temporary"))
        with running_app(runs, PacedModels(PacedEngine()), limits=limits) as app:
            yield app.url


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120) as client:
        yield client


def good(index: int) -> list[Any]:
    """What the page might send to a function: the first value that each of its inputs may have."""
    values: list[Any] = []
    for block in functions()[index].inputs:
        match block:
            case gr.Dropdown(elem_id="sw-run"):
                values.append("mine")
            case gr.Dropdown(multiselect=True):
                values.append(["mine", "mine"])
            case gr.Dropdown() | gr.Radio():
                values.append(block.value if block.value is not None else block.choices[0][1])
            case gr.Slider() | gr.Number():
                values.append(block.value)
            case gr.Dataset():
                values.append(0)
            case gr.Image():
                values.append(None)
            case _:
                values.append("")
    return values


def body(index: int, data: list[Any], **change: Any) -> dict[str, Any]:
    event = {"id": "r1", "round": "1"} if functions()[index].collects_event_data else None
    return {
        "data": data, "fn_index": index, "session_hash": "walk", "event_data": event, "trigger_id": None,
    } | change  # fmt: skip


def route(index: int) -> str:
    return "queue/join" if functions()[index].queue else "run/predict"


def post(http: httpx.Client, to: str, sent: Any) -> tuple[int, str]:
    """How a call ends: the status, and the whole answer, of the queue's the last message."""
    raw = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    answer = http.post(f"/{API}/{to}", content=raw, headers={"content-type": "application/json"})
    if to != "queue/join" or answer.status_code != 200:
        return answer.status_code, answer.text
    last = ""
    with http.stream("GET", f"/{API}/queue/data", params={"session_hash": sent["session_hash"]}) as stream:
        for line in stream.iter_lines():
            if '"process_completed"' in line:
                last = line.removeprefix("data: ")
    output = json.loads(last)["output"]
    return (500 if "error" in output else 200), json.dumps(output)


def assert_plain(status: int, text: str, runs: Path) -> None:
    """A result, or one sentence; nothing of the machine in either."""
    for hidden in (str(runs.parent), str(Path.home()) + "/", tempfile.gettempdir() + "/", "site-packages", "Traceback"):
        assert hidden not in text
    if status == 200:
        return
    assert status in (400, 500), (status, text[:200])
    sentence = json.loads(text)["error"]
    assert isinstance(sentence, str)
    assert 0 < len(sentence) <= SENTENCE
    assert "\n" not in sentence


def test_wrong_values_in_every_slot_get_one_plain_answer(
    index: int, http: httpx.Client, url: str, runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if functions()[index].fn is None:
        assert post(http, "run/predict", body(index, good(index)))[0] == 400
        assert post(http, "queue/join", body(index, good(index)))[0] == 400
        return
    count = 0
    with pulse(url) as others:
        for slot in range(len(functions()[index].inputs)):
            for value in WRONG[:: FEW if is_twin(index) else 1]:
                data = good(index)
                data[slot] = value
                assert_plain(*post(http, route(index), body(index, data)), runs)
                count += 1
    assert "Traceback" not in capfd.readouterr().err
    print(f"{index}: {count} calls; what others waited: {others}")
    assert not others.stalled


def test_wrong_bodies_are_refused_alike(index: int, http: httpx.Client) -> None:
    made, right = functions()[index], good(index)
    to, other = route(index), "run/predict" if made.queue else "queue/join"
    whole = body(index, right)
    bodies: list[Any] = [
        b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"data":' + b"9" * 100_000 + b"}",
        *({key: value for key, value in whole.items() if key != left} for left in ("data", "fn_index", "session_hash")),
        whole | {"more": 1}, whole | {"batched": True}, whole | {"simple_format": True}, whole | {"event_id": "0" * 32},
        whole | {"oauth_token": "x"}, whole | {"data": {}}, whole | {"data": "x"}, whole | {"data": [*right, None]},
        whole | {"fn_index": 10**6}, whole | {"fn_index": -1}, whole | {"fn_index": str(index)},
        whole | {"fn_index": 1.0}, whole | {"fn_index": None}, whole | {"session_hash": None},
        whole | {"session_hash": "x" * 65},
        whole | {"session_hash": "a/b"}, whole | {"session_hash": ["s"]}, whole | {"trigger_id": "1"},
        *([whole | {"data": right[:-1]}] if right else []),
        *([whole | {"event_data": value} for value in (None, 1, [], {"id": 1, "round": "1"}, {"id": "x"})]
          if made.collects_event_data else []),
    ]  # fmt: skip
    answers = {post(http, to, sent) for sent in bodies} | {post(http, other, whole)}
    assert len(answers) == 1
    status, text = answers.pop()
    assert status == 400
    assert_plain(status, text, Path("/nowhere"))


def test_no_other_way_leads_to_a_function(index: int, http: httpx.Client) -> None:
    name = functions()[index].api_name
    for to in (
        f"call/{name}",
        f"call/v2/{name}",
        f"run/{name}",
        f"api/{name}",
        "api/predict",
        "component_server",
        "stream/0",
    ):
        assert post(http, to, body(index, good(index)))[0] == 404


def test_a_page_with_an_input_that_nobody_thought_of_does_not_start() -> None:
    with PageBlocks() as blocks:
        file, text = gr.File(), gr.Textbox()
        text.submit(lambda file: "", [file], [text], preprocess=False)
    with pytest.raises(TypeError, match="File"):
        _ = blocks.door


def test_memory_and_disk_stay_flat(http: httpx.Client) -> None:
    """What the walk did a few times, many times: bad bodies, sessions that nobody reads, events that nobody awaits."""
    ask = next(i for i, fn in functions().items() if fn.api_name == "ask")
    refill = next(i for i, fn in functions().items() if fn.api_name == "refill")

    def flood(name: str, count: int) -> None:
        for number in range(count):
            session = f"{name}-{number}"
            bad = good(ask)
            bad[0] = "x" * 200_000
            post(http, "run/predict", body(refill, good(refill), session_hash=session))
            http.post(f"/{API}/queue/join", json=body(ask, bad, session_hash=session))
            http.post(f"/{API}/queue/join", content=b"[" * 200_000)
            http.post(f"/{API}/cancel", json={"session_hash": session, "fn_index": ask, "event_id": "0" * 32})

    flood("warm", 150)
    before, files = resident_bytes(), set(Path(tempfile.gettempdir()).rglob("*"))
    flood("again", 150)
    grown = resident_bytes() - before
    print(f"600 calls: {grown / 2**20:+.1f} MiB")
    assert grown < 30 * 2**20
    assert set(Path(tempfile.gettempdir()).rglob("*")) == files


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
