"""What strangers may try at a started app, in public: each attack is sent the way a foreign client sends it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from spark_kernel.errors import InputError
from spark_kernel.runs.writer import RunWriter
from tests.helpers.app_guard import red_png
from tests.helpers.app_server import PacedEngine, PacedModels, answer_then_doubt, running_app, wait_until
from tests.helpers.gradio_http import API, Reply, ask, ask_data, ask_index
from tests.helpers.pulse import pulse
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, write_round
from workbench.app.access import USER, decide_access
from workbench.app.limits import PUBLIC
from workbench.app.serve import RunningApp
from workbench.app.server import listen, served
from workbench.app.uploads import NO_IMAGE
from workbench.app.workroom import BUSY

pytestmark = pytest.mark.slow
UNHURRIED = replace(PUBLIC, requests_per_second=1e6, burst=10**6)
"""A public page's limits without its pace: the attacks would only meet that."""
LOOPING = ("\\boxed{1} " + "a b " * 1000, "\\boxed{2} " + "b a " * 1000)
"""Two texts that repeat themselves, one step apart: the worst case of a search for the longest common part."""


def looping(prompt: Any, seed: int) -> str:
    step = prompt.task_id.rpartition("-")[2]
    return answer_then_doubt(prompt, seed) if step in ("1", "3") else LOOPING[step != "0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place") / "runs"
    writer = RunWriter.create(root / "mine", CONFIG, ENVIRONMENT)
    for round in range(1, 21):
        write_round(writer, round)
    writer.close("finished")
    return root


@pytest.fixture(scope="module")
def app(runs: Path) -> Iterator[RunningApp]:
    with running_app(runs, PacedModels(), access=decide_access(public=True), limits=UNHURRIED) as app:
        yield app


@pytest.fixture(scope="module")
def url(app: RunningApp) -> str:
    return app.url


def asked(url: str, *questions: list[Any]) -> list[Reply]:
    """The answers to questions that are asked at once, each in a session of its own."""

    async def go() -> list[Reply]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            index = ask_index((await http.get("/config")).json())
            return await asyncio.gather(
                *(ask(http, index, data, f"s{number}-{time.monotonic_ns()}") for number, data in enumerate(questions))
            )

    return asyncio.run(go())


def test_an_image_value_that_is_no_upload_gets_one_answer_whatever_it_names(
    app: RunningApp, url: str, tmp_path: Path
) -> None:
    (tmp_path / "there.png").write_bytes(red_png())
    (tmp_path / "large").write_bytes(b"\0" * 10**7)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "link.png").symlink_to(tmp_path / "there.png")
    os.mkfifo(tmp_path / "pipe")
    meta = {"_type": "gradio.FileData"}
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "socket"))
        paths = [
            *(str(tmp_path / name) for name in ("there.png", "none.png", "large", "secret", "link.png", "pipe")),
            str(tmp_path / "socket"), "/etc/passwd", "/dev/ptmx", "/dev/zero", "/proc/self/environ", "/proc/self/mem",
            "/", "", ".", "upload/", "\0",
            "upload/../../etc/passwd", "http://127.0.0.1:1/x.png", "file:///etc/passwd", "data:image/png;base64,AAAA",
            str(app.uploads.folder), f"{app.uploads.folder}/../gradio", "a" * 100_000,
        ]  # fmt: skip
        values = [
            *({"path": path} for path in paths), *({"path": path, "meta": meta} for path in paths[:9]),
            {"path": paths[0], "url": paths[0], "is_file": True, "orig_name": "a.png", "mime_type": "image/png"},
            {"path": [paths[0]]}, {"path": {"path": paths[0]}}, {"path": 7}, {"path": None}, {}, [],
            [{"path": paths[0]}], paths[0], "", 0, 7, True, False, {"url": paths[0]},
            {"path": paths[0], "is_stream": True},
        ]  # fmt: skip
        with pulse(url) as others:
            errors = {reply.error for value in values for reply in asked(url, ask_data("What?", image=value))}
    print(f"{len(values)} image values; what others waited: {others}")
    assert errors == {NO_IMAGE}
    assert not others.stalled


def test_an_upload_is_what_it_is_decoded_as_or_nothing_and_never_more_than_its_share(runs: Path) -> None:
    limits = replace(UNHURRIED, client_uploads=3, image_bytes=10**6)
    with (
        running_app(runs, access=decide_access(public=True), limits=limits) as app,
        httpx.Client(base_url=app.url, timeout=60) as http,
    ):
        folder = app.uploads.folder

        def send(data: bytes, name: str = "a.png") -> httpx.Response:
            return http.post(f"/{API}/upload?upload_id=x", files={"files": (name, data, "image/png")})

        for bad in (b"<svg/>", b"<script>", b"\x89PNG\r\n\x1a\n", b"", b"GIF89a" + b"\0" * 99, b"\0" * 10**6):
            assert send(bad).status_code == 400
        assert send(b"\0" * (10**6 + 9999)).status_code == 413
        two = [("files", ("a.png", red_png())), ("files", ("b.png", red_png()))]
        assert http.post(f"/{API}/upload", files=two).status_code == 400
        assert (
            http.post(f"/{API}/upload", content=b"x", headers={"content-type": "multipart/form-data"}).status_code
            == 400
        )
        assert http.post(f"/{API}/upload", json={"files": ["/etc/passwd"]}).status_code == 400
        assert list(folder.rglob("*")) == []
        names = [send(red_png(), f"../../{number}.html").json()[0] for number in range(5)]
        assert len(list(folder.iterdir())) == 3
        assert [http.get(f"/{API}/file={name}").status_code for name in names] == [404, 404, 200, 200, 200]
        assert {http.get(f"/{API}/file={name}").headers["content-type"] for name in names[2:]} == {"image/png"}
        assert all(name.startswith("upload/") and "/tmp" not in name for name in names)
        assert "no eyes" not in asked(app.url, ask_data("What?", image={"path": names[0]}))[0].error
        (answer,) = asked(app.url, ask_data("What?", image={"path": names[-1]}))
        assert "no eyes" in str(answer.data)
    assert not folder.exists()


def test_a_picture_of_ever_more_passes_holds_nobody(url: str) -> None:
    data = io.BytesIO()
    Image.new("L", (2000, 2000), 128).save(data, "JPEG", progressive=True, quality=10)
    jpeg = data.getvalue()
    last = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    bomb = jpeg[:-2] + last * 5000 + b"\xff\xd9"
    with pulse(url) as others, httpx.Client(base_url=url, timeout=60) as http:
        answers = [http.post(f"/{API}/upload", files={"files": ("a.jpg", bomb)}) for _ in range(3)]
    print(f"what others waited: {others}")
    assert {answer.status_code for answer in answers} == {400}
    assert not others.stalled


def test_texts_that_repeat_themselves_are_compared_while_others_are_served(runs: Path) -> None:
    models = PacedModels(PacedEngine(write=looping))
    with running_app(
        runs, models, access=decide_access(public=True), limits=replace(UNHURRIED, new_tokens=4000)
    ) as app:
        with pulse(app.url) as others:
            (reply,) = asked(app.url, ask_data("What?", new_tokens=3500))
        print(f"what others waited: {others}")
        assert "changed against step 1" in str(reply.data)
        assert not others.stalled


def test_a_flood_of_calls_for_tables_and_figures_holds_nobody_and_says_so(url: str) -> None:
    async def flood() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            config = (await http.get("/config")).json()
            index = next(d["id"] for d in config["dependencies"] if d["api_name"] == "refill")
            filters = ["this round", "all", "any", "any", "", ""]
            return await asyncio.gather(
                *(
                    http.post(
                        f"/{API}/run/predict",
                        json={
                            "data": ["rounds", "mine", 1 + number % 20, "light", *filters], "fn_index": index,
                            "session_hash": f"f{number}",
                        },
                    )
                    for number in range(60)
                )
            )  # fmt: skip

    with pulse(url) as others:
        answers = asyncio.run(flood())
        first = [answer.status_code for answer in answers]
        again = [answer.status_code for answer in asyncio.run(flood())]
    print(f"{first.count(200)} and {again.count(200)} of 60 drawn; what others waited: {others}")
    refused = [answer for answer in answers if answer.status_code != 200]
    assert first.count(200) >= PUBLIC.client_page_work
    assert {answer.json()["error"] for answer in refused} <= {BUSY}
    assert not others.stalled


def test_a_gold_answer_that_takes_for_ever_holds_neither_the_desk_nor_the_page(url: str) -> None:
    """Everybody else's question is answered before the gold's own is."""
    ended: dict[str, float] = {}

    def one(name: str, data: list[Any]) -> None:
        replies[name] = asked(url, data)[0]
        ended[name] = time.monotonic()

    replies: dict[str, Reply] = {}
    huge = ask_data("What is 40 + 2?", gold=r"\sum_{i=1}^{10^{9}} \frac{1}{i^2}")
    attacker = threading.Thread(target=one, args=("huge", huge))
    with pulse(url) as others:
        attacker.start()
        time.sleep(0.2)
        one("plain", ask_data("What is 40 + 2?"))
        attacker.join()
    print(f"plain {ended['plain']:.1f}, gold {ended['huge']:.1f}; what others waited: {others}")
    assert "Final answer: 42" in str(replies["plain"].data)
    assert ended["plain"] < ended["huge"]
    assert not others.stalled


def test_one_session_ends_at_its_own_word_and_no_other(runs: Path) -> None:
    with (
        running_app(runs, access=decide_access(password="correct horse")) as app,
        httpx.Client(base_url=app.url, timeout=60) as first,
        httpx.Client(base_url=app.url, timeout=60) as second,
    ):
        for http in (first, second):
            assert http.post("/login", data={"username": USER, "password": "correct horse"}).status_code == 200
            assert http.get("/config").status_code == 200
        origin = {"origin": app.url.rstrip("/")}
        assert first.get("/logout").status_code == 404
        assert first.post("/logout").status_code == 403
        assert first.post("/logout", headers={"origin": "http://evil.example"}).status_code == 403
        assert first.get("/config").status_code == 200
        kept = dict(first.cookies)
        assert first.post("/logout", headers=origin).status_code == 302
        assert httpx.get(f"{app.url}config", cookies=kept).status_code == 401
        assert second.get("/config").status_code == 200


def test_a_taken_port_is_one_sentence(runs: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 is taken") as raised:
            listen("127.0.0.1", port)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"203\.0\.113\.7"):
        listen("203.0.113.7", 0)


def test_a_proxy_in_the_environment_does_not_keep_the_app_from_starting(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with running_app(runs) as app, httpx.Client(base_url=app.url, trust_env=False, timeout=60) as http:
        assert http.get("/config").status_code == 200


def test_a_server_that_comes_up_slowly_is_waited_for_and_one_that_does_not_is_said() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await asyncio.sleep(6)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with served(slow, door := listen("127.0.0.1", 0)):
        assert httpx.get(f"http://127.0.0.1:{door.getsockname()[1]}/", trust_env=False).status_code == 204
    with pytest.raises(InputError, match="did not come up"), served(broken, listen("127.0.0.1", 0)):
        pass


def test_what_nobody_reads_ends(url: str) -> None:
    """A client that asks and goes leaves nothing behind, and has its places back."""
    with httpx.Client(base_url=url, timeout=60) as http:
        index = ask_index(http.get("/config").json())
        for number in range(PUBLIC.per_client):
            sent = {"data": ask_data("What is 40 + 2?"), "fn_index": index, "session_hash": f"gone-{number}"}
            assert http.post(f"/{API}/queue/join", content=json.dumps(sent)).status_code == 200
    assert wait_until(lambda: "Final answer" in str(asked(url, ask_data("What is 40 + 2?"))[0].data))
