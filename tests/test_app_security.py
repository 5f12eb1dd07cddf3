"""What keeps others out of the app, and untrusted text and files harmless: each rule on its own, without a server."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image

from spark_kernel.errors import InputError, ModelError, SparkError
from spark_kernel.runs.writer import RunWriter
from tests.helpers.app_guard import JOINS, client, get, guard, png_of, red_png, run_async
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, write_round
from workbench.app.access import decide_access
from workbench.app.catalog import STARTERS, Catalog, check_models, check_runs_root
from workbench.app.forwarded import client_of, same_origin
from workbench.app.limits import LOCAL, PUBLIC
from workbench.app.pace import Pace
from workbench.app.picture_check import check_picture
from workbench.app.question import make_question
from workbench.app.uploads import Uploads


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place") / "runs"
    writer = RunWriter.create(root / "mine", CONFIG, ENVIRONMENT)
    write_round(writer, 1)
    writer.close("finished")
    secret = RunWriter.create(root.parent / "secret", CONFIG, ENVIRONMENT)
    secret.close("finished")
    (root / "link").symlink_to(root.parent / "secret")
    return root


class TestAccess:
    @pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.3.4.5"])
    def test_this_machine_needs_no_password(self, address: str) -> None:
        assert decide_access(address).password is None

    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "fe80::1"])
    def test_an_address_that_others_reach_is_refused_without_password_or_public(self, address: str) -> None:
        with pytest.raises(InputError, match="WORKBENCH_PASSWORD"):
            decide_access(address, hosts=["box.example"])

    def test_with_a_password_or_public_it_is_allowed_under_its_names_only(self) -> None:
        access = decide_access("192.168.1.5", password="long enough", hosts=["Box.example"])
        assert "box.example" in access.hosts
        assert "192.168.1.5" in access.hosts
        assert decide_access("0.0.0.0", public=True, hosts=["demo.hf.space"]).public

    def test_listening_everywhere_needs_named_hosts(self) -> None:
        with pytest.raises(InputError, match="--hosts"):
            decide_access("0.0.0.0", public=True)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"password": "short"}, "at least 8"),
            ({"hosts": ["*"]}, "host names"),
            ({"hosts": ["http://a.example"]}, "host names"),
            ({"address": "example.com"}, "IP address"),
            ({"proxies": -1}, "at least 0"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, setting: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            decide_access(**setting)


class TestGuard:
    @pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:9999", "LOCALHOST", "[::1]:7860"])
    def test_own_names_are_answered_on_any_port(self, host: str) -> None:
        assert run_async(get(host=host)).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", ""])
    def test_a_name_that_was_pointed_here_is_refused(self, host: str) -> None:
        assert run_async(get(host=host)).status_code == 421

    def test_two_host_headers_are_refused(self) -> None:
        async def ask() -> int:
            sent = []

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http", "method": "GET", "path": "/", "client": ("127.0.0.1", 1),
                "headers": [(b"host", b"localhost"), (b"host", b"evil.example")],
            }  # fmt: skip
            await guard()(scope, None, send)
            return sent[0]["status"]

        assert run_async(ask()) == 421

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1:7861", "file://"]
    )
    def test_other_origins_are_refused_for_reading_and_posting(self, origin: str) -> None:
        async def post() -> int:
            async with client() as http:
                return (await http.post("/gradio_api/queue/join", headers={"origin": origin})).status_code

        assert run_async(get(origin=origin)).status_code == 403
        assert run_async(post()) == 403

    def test_own_origin_passes_also_behind_a_proxy_that_speaks_https(self) -> None:
        access = decide_access("0.0.0.0", public=True, hosts=["demo.hf.space"])
        found = run_async(get(access=access, host="demo.hf.space", origin="https://demo.hf.space"))
        assert found.status_code == 200
        assert same_origin("https://demo.hf.space:443", "demo.hf.space")

    def test_a_cross_site_post_without_origin_is_refused(self) -> None:
        async def post() -> int:
            async with client() as http:
                return (await http.post("/gradio_api/run/x", headers={"sec-fetch-site": "cross-site"})).status_code

        assert run_async(post()) == 403

    @pytest.mark.parametrize(
        "path",
        [
            "/gradio_api/proxy=https://evil.example/", "/gradio_api/file=https://evil.example/x.png", "/monitoring",
            "/gradio_api/file=http:/evil.example", "/docs", "/openapi.json", "/gradio_api/runs", "/gradio_api/mcp/sse",
            "/gradio_api/dev/reload", "/gradio_api/custom_component/1/client/component/x.js", "/pwa_icon",
            "/gradio_api/file=/etc/passwd", "/gradio_api/file=/tmp/uploads/%2e%2e/x", "/gradio_api/file=app.py",
            "/gradio_api/file=/tmp/uploadsx/a.png", "/gradio_api/file/tmp/uploads/a.png",
            "/gradio_api/openapi.json", "/gradio_api/deep_link",
        ],
    )  # fmt: skip
    def test_routes_that_the_page_does_not_need_are_not_there(self, path: str) -> None:
        assert run_async(get(path)).status_code == 404

    @pytest.mark.parametrize(
        "path", ["/gradio_api/process_recording", "/gradio_api/component_server", "/gradio_api/vibe-edit/", "/"]
    )
    def test_nothing_else_can_be_posted_to(self, path: str) -> None:
        async def post() -> int:
            async with client() as http:
                return (await http.post(path)).status_code

        assert run_async(post()) == 404

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
    def test_other_methods_are_not_there(self, method: str) -> None:
        async def ask() -> int:
            async with client() as http:
                return (await http.request(method, "/gradio_api/queue/join")).status_code

        assert run_async(ask()) == 404

    def test_a_large_body_is_refused_by_its_length_and_cut_off_without_one(self) -> None:
        limits = replace(LOCAL, body_bytes=1000)

        async def pieces():
            for _ in range(10):
                yield b"x" * 300

        async def post(content) -> httpx.Response:
            async with client(limits=limits) as http:
                return await http.post("/gradio_api/queue/join", content=content)

        whole = json.dumps(JOINS).encode()
        assert run_async(post(whole + b" " * (1000 - len(whole)))).status_code == 200
        assert run_async(post(whole + b" " * (1001 - len(whole)))).status_code == 413
        assert run_async(post(pieces())).status_code == 413

    def test_a_client_beyond_its_pace_is_told_to_come_back(self) -> None:
        limits = replace(LOCAL, requests_per_second=0.01, burst=3)

        async def many() -> list[httpx.Response]:
            async with client(limits=limits) as http:
                return [await http.get("/") for _ in range(5)]

        found = run_async(many())
        assert [response.status_code for response in found] == [200, 200, 200, 429, 429]
        assert int(found[-1].headers["retry-after"]) >= 1
        assert "come back" in found[-1].text

    def test_passwords_cannot_be_tried_fast(self) -> None:
        limits = replace(LOCAL, logins_per_minute=2)

        async def many() -> list[int]:
            async with client(decide_access(password="long enough"), limits) as http:
                return [(await http.post("/login")).status_code for _ in range(4)]

        assert run_async(many()) == [200, 200, 429, 429]

    def test_clients_have_paces_of_their_own_and_tokens_come_back(self) -> None:
        clock = [0.0]
        pace = Pace(1.0, 2, now=lambda: clock[0])
        assert [pace.wait("a") for _ in range(2)] == [0.0, 0.0]
        assert pace.wait("a") == pytest.approx(1.0)
        assert pace.wait("b") == 0.0
        clock[0] = 1.5
        assert pace.wait("a") == 0.0
        assert pace.wait("a") == pytest.approx(0.5)

    def test_a_client_cannot_say_that_it_is_another_one(self) -> None:
        found = run_async(get(x_forwarded_for="1.2.3.4", x_forwarded_host="evil.example"))
        assert found.text == "0 10.0.0.9 []"

    def test_behind_proxies_the_client_is_what_our_outermost_proxy_saw(self) -> None:
        scope = {"headers": [(b"x-forwarded-for", b"6.6.6.6, 5.5.5.5, 4.4.4.4")], "client": ("10.0.0.1", 1)}
        assert client_of(scope, 0) == "10.0.0.1"
        assert client_of(scope, 1) == "4.4.4.4"
        assert client_of(scope, 2) == "5.5.5.5"
        assert client_of({"headers": [], "client": ("10.0.0.1", 1)}, 1) == "10.0.0.1"

    def test_answers_forbid_the_page_to_fetch_from_elsewhere(self) -> None:
        policy = run_async(get()).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"https?:|\*", policy)


class TestNames:
    BAD = ("../secret", "..", "/etc", "mine/../../secret", "link", "", ".", "mine/", "mine\0", "MINE", "recorded")

    @pytest.mark.parametrize("name", BAD)
    def test_a_run_name_leads_nowhere_else(self, runs: Path, name: str) -> None:
        with pytest.raises(InputError, match="no such run"):
            Catalog(runs).open_run(name)

    def test_a_run_that_is_there_opens(self, runs: Path) -> None:
        assert Catalog(runs).run_names() == ["mine"]
        assert Catalog(runs).open_run("mine").rounds() == (1,)

    @pytest.mark.parametrize(
        "name", ["../secret", "/etc/passwd", "owner/model", "mine, round 7", "builtin:other", "", "http://x.example/m"]
    )
    def test_only_models_on_the_list_can_be_asked(self, runs: Path, name: str) -> None:
        with pytest.raises(InputError, match="not offered"):
            Catalog(runs, downloaded=False).model(name)
        assert Catalog(runs).model(STARTERS[0]).path == STARTERS[0]

    def test_the_operators_own_mistakes_are_found_at_the_start(self, runs: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no model"):
            check_models(["./nowhere"])
        with pytest.raises(InputError, match="is a run itself"):
            check_runs_root(runs / "mine")
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="no folder"):
            check_runs_root(tmp_path / "file")


class TestQuestion:
    def test_a_question_is_taken_as_it_is(self) -> None:
        question = make_question(" What is 1 + 1? ", LOCAL, gold="2", seed=7)
        assert question.problem.question == "What is 1 + 1?"
        assert (question.problem.gold, question.seed, question.has_gold) == ("2", 7, True)
        assert not make_question("What?", LOCAL).has_gold

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text": "x" * (PUBLIC.prompt_chars + 1)}, "at most 4000"),
            ({"text": "  "}, "empty"),
            ({"text": ["list"]}, "text"),
            ({"gold": "9" * 1000}, "at most 500"),
            ({"verifier": "os:system"}, "one of"),
            ({"verifier": "reasoning_gym"}, "one of"),
            ({"temperature": 3}, "0 to 2"),
            ({"temperature": float("nan")}, "number"),
            ({"temperature": "hot"}, "number"),
            ({"new_tokens": 100_000}, "1 to 512"),
            ({"reflections": 50}, "1 to 2"),
            ({"reflections": True}, "number"),
            ({"seed": -1}, "0 to"),
            ({"seed": 2**70}, "0 to"),
            ({"view": "everything"}, "sees"),
        ],
    )
    def test_what_is_out_of_bounds_is_refused_in_a_sentence(self, change: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            make_question(**{"text": "What?", "limits": PUBLIC} | change)

    def test_half_a_surrogate_does_not_travel_on(self) -> None:
        assert make_question("What \ud800?", LOCAL).problem.question == "What ??"

    def test_an_image_that_was_uploaded_is_taken(self, tmp_path: Path) -> None:
        uploads = Uploads(tmp_path, LOCAL)
        image = uploads.image({"path": uploads.add("me", red_png()).name, "size": 1})
        assert make_question("What?", LOCAL, image=image).problem.images == (image,)
        assert Path(image.path).read_bytes() == red_png()


class TestPictures:
    @pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 900), (65_000, 65_000)])
    def test_a_decompression_bomb_is_refused_before_it_is_decoded(self, size: tuple[int, int]) -> None:
        with pytest.raises(InputError, match="pixels"):
            check_picture(png_of(*size), LOCAL.image_pixels)

    @pytest.mark.parametrize("data", [b"<svg onload=alert(1)>", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"BM nothing"])
    def test_what_is_no_image_is_refused(self, data: bytes) -> None:
        with pytest.raises(InputError, match="must be one whole PNG"):
            check_picture(data, LOCAL.image_pixels)

    def test_a_jpeg_of_ever_more_passes_is_refused_at_once_and_what_decodes_for_long_is_ended(self) -> None:
        """Six bytes may ask for one more pass over all pixels: a file of megabytes would be decoded for hours."""
        data = io.BytesIO()
        Image.new("L", (2600, 2600), 128).save(data, "JPEG", progressive=True, quality=10)
        jpeg = data.getvalue()
        last = jpeg[jpeg.rfind(b"\xff\xda") : -2]
        with pytest.raises(InputError, match="too long"):
            check_picture(jpeg[:-2] + last * 1000 + b"\xff\xd9", LOCAL.image_pixels)
        with pytest.raises(InputError, match="too long"):
            check_picture(jpeg, LOCAL.image_pixels, seconds=0.01)
        assert check_picture(jpeg, LOCAL.image_pixels) == "jpg"

    def test_a_large_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="MiB"):
            Uploads(tmp_path, replace(LOCAL, image_bytes=50)).add("me", red_png())
        assert list(tmp_path.iterdir()) == []


def test_errors_on_the_page_do_not_say_where_things_lie(runs: Path) -> None:
    from workbench.app.context import AppContext
    from workbench.app.samples import SampleTables

    context = AppContext(Catalog(runs), None, LOCAL, SampleTables(10), None, None, None)  # type: ignore[arg-type]
    error = SparkError(f"{runs.absolute()}/mine has no finished round 9; see {Path.home()}/x.")
    assert str(runs.parent) not in context.sentence(error)
    assert str(Path.home()) not in context.sentence(error)
    assert "mine has no finished round 9" in context.sentence(error)
    for hidden in (
        "/usr/lib/python3/x.so",
        "'/etc/ssl/key.pem'",
        "(/tmp/spark-workbench-ab/uploads/1.png)",
        "file:///a/b c",
    ):
        assert "/" not in context.sentence(SparkError(f"It cannot be read: {hidden}."))
    plain = "3/4 of 12 tokens/s; see https://example.org/a/b and and/or."
    assert context.sentence(SparkError(plain)) == plain
