"""Starting the app: what is offered, and Gradio's server with everything switched off that the page does not need."""

from __future__ import annotations

import gc
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.app.access import USER, Access, bracketed, decide_access, is_everywhere
from workbench.app.limits import LOCAL, PUBLIC, Limits
from workbench.app.server import listen, served

if TYPE_CHECKING:
    from fastapi import FastAPI

    from spark_kernel.config.sections import ModelSection
    from workbench.app.guard import Guard
    from workbench.app.page import Page
    from workbench.app.tabs.live import Waiting
    from workbench.app.uploads import Uploads

PASSWORD_VARIABLE = "WORKBENCH_PASSWORD"
REMEMBERED_SESSIONS = 200
LOGIN_MESSAGE = f'<style>.wrap.min-h-screen {{ background: none; }}</style>The user name is "{USER}".'
"""The page before the password is given; Gradio's own look of it has patches beside the fields."""
UNWANTED_SETTINGS = (
    "GRADIO_ALLOWED_PATHS", "GRADIO_SHARE", "GRADIO_MCP_SERVER", "GRADIO_NUM_WORKERS", "GRADIO_WATCH_DIRS",
    "GRADIO_LOCAL_DEV_MODE", "GRADIO_DEBUG",
)  # fmt: skip
"""Environment variables that would open what `launch` is told to keep shut."""


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What to serve and for whom. `port` 0 takes a free one. `recorded`: runs that ship with the package, by name.

    `model_settings`: of some of the `models`, by name, where they are not the usual ones.
    """

    access: Access
    runs: Path
    models: Sequence[str] = ()
    port: int = 7860
    recorded: Mapping[str, Path] | None = None
    limits: Limits | None = None
    model_settings: Mapping[str, ModelSection] = field(default_factory=dict)

    @property
    def bounds(self) -> Limits:
        """The limits, by default those that fit the access."""
        return self.limits or (PUBLIC if self.access.public else LOCAL)


@dataclass(frozen=True, slots=True)
class RunningApp:
    """An app that is being served: its address, how to wait for its end, the questions under way, and the uploads."""

    url: str
    wait: Callable[[], None]
    waiting: Waiting
    uploads: Uploads


@contextmanager
def serving(settings: AppSettings, load: Callable[..., object] | None = None) -> Iterator[RunningApp]:
    """Serve until the block is left.

    Args:
        load: how a model is made ready to be asked; by default `desk.load_respondent`.

    Raises:
        InputError: the port is taken, the server does not come up, or models or runs are none.
    """
    from workbench.app.catalog import check_models, check_runs_root

    check_runs_root(settings.runs)
    check_models(settings.models)
    # Before anything that takes long: a port that is taken is said at once.
    listening = listen(settings.access.address, settings.port)
    with tempfile.TemporaryDirectory(prefix="spark-workbench-") as folder, ExitStack() as stack:
        stack.callback(listening.close)
        _settle_environment(Path(folder) / "gradio")
        page, app, guard, uploads = _assemble(settings, load, Path(folder) / "uploads", stack)
        stack.enter_context(_settled_memory())
        stack.enter_context(served(guard, listening))
        # Ended first: streams that wait for it would hold the server.
        stack.callback(_end_streams, page, app)
        yield RunningApp(_url(settings.access.address, listening), _wait_for_the_end, page.live.waiting, uploads)


def _assemble(
    settings: AppSettings, load: Callable[..., object] | None, folder: Path, stack: ExitStack
) -> tuple[Page, FastAPI, Guard, Uploads]:
    """The page, the application that holds it, the guard in front of both, and the uploads; `stack` ends it all."""
    import gradio as gr
    from fastapi import FastAPI

    from workbench.app.catalog import STARTERS, Catalog
    from workbench.app.context import AppContext
    from workbench.app.desk import ModelDesk, load_respondent
    from workbench.app.guard import Guard
    from workbench.app.page import build_page
    from workbench.app.samples import SampleTables
    from workbench.app.sessions import Sessions
    from workbench.app.style import css, head, theme
    from workbench.app.uploads import Uploads
    from workbench.app.workroom import Workroom

    bounds, access = settings.bounds, settings.access
    recorded = _recorded() if settings.recorded is None else settings.recorded
    catalog = Catalog(settings.runs.absolute(), settings.models, recorded, not access.public, settings.model_settings)
    desk = ModelDesk(load or load_respondent, bounds.loaded_models)  # type: ignore[arg-type]
    stack.callback(desk.close)
    pages = Workroom("page", 1, bounds.page_work, bounds.client_page_work)
    live = Workroom("live", 1, 4 * bounds.waiting, 4 * bounds.waiting)
    stack.callback(pages.close)
    stack.callback(live.close)
    folder.mkdir(mode=0o700)
    uploads = Uploads(folder, bounds)
    page = build_page(
        AppContext(
            catalog, desk, bounds, SampleTables(bounds.rows), uploads, pages, live, access.public,
            access.password is not None,
        )
    )  # fmt: skip
    page.blocks.state_session_capacity = REMEMBERED_SESSIONS
    closed: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = gr.mount_gradio_app(
        FastAPI(**closed), page.blocks, "", access.address, settings.port, footer_links=[], run_history=False,
        app_kwargs=closed, auth=None if access.password is None else (USER, access.password),
        auth_message=LOGIN_MESSAGE, allowed_paths=[], blocked_paths=[], show_error=False,
        max_file_size=bounds.image_bytes, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        theme=theme(), css=css(), head=head(),
    )  # fmt: skip
    mounted = _mounted(app)
    mounted.state_holder = Sessions()
    mounted.state_holder.set_blocks(page.blocks)
    _settle_matplotlib()
    desk.warm(catalog.model(settings.models[0] if settings.models else STARTERS[0]))
    return page, app, Guard(app, access, bounds, uploads, page.blocks.door), uploads


@contextmanager
def _settled_memory() -> Iterator[None]:
    """What is there at the start (libraries, the page) is not gone through again at every collection of garbage: that
    took half a second to one, on whatever thread it fell, the event loop's among them.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _end_streams(page: Page, app: FastAPI) -> None:
    """Take no more questions, and let every stream end."""
    page.blocks._queue.close()
    page.blocks.is_running = False
    _mounted(app).stop_event.set()


def _settle_matplotlib() -> None:
    """Gradio sets its backend around every event. Where none is set it would import it all then, on the event loop."""
    if find_spec("matplotlib") is not None:
        import matplotlib

        matplotlib.use("agg")


def _mounted(app: FastAPI) -> Any:
    """Gradio's own application within ours."""
    from starlette.routing import Mount

    return next(route.app for route in app.routes if isinstance(route, Mount))


def _url(address: str, listening: socket.socket) -> str:
    """What to type; an app that listens everywhere is on this machine, too."""
    name = "localhost" if is_everywhere(address) else bracketed(address)
    return f"http://{name}:{listening.getsockname()[1]}/"


def serve_hosted() -> None:
    """What a hosted Space starts: public, on the port and under the name that the host says, with what ships with the
    package or lies in $WORKBENCH_RUNS.

    Raises:
        InputError: the host does not say its name: set WORKBENCH_HOSTS.
    """
    hosts = [os.environ.get("SPACE_HOST", ""), *os.environ.get("WORKBENCH_HOSTS", "").split(",")]
    named = [host for host in hosts if host.strip()]
    # Without a host's name this is somebody's own machine.
    address = os.environ.get("WORKBENCH_ADDRESS", "0.0.0.0" if named else "127.0.0.1")
    access = decide_access(
        address, hosts=named, public=bool(named), password=os.environ.get(PASSWORD_VARIABLE) or None,
        proxies=1 if os.environ.get("SPACE_HOST") else 0,
    )  # fmt: skip
    models = tuple(filter(None, os.environ.get("WORKBENCH_MODEL", "").split(",")))
    runs = Path(os.environ.get("WORKBENCH_RUNS", "runs"))
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    with serving(AppSettings(access, runs, models, port)) as app:
        print(f"The app is at {app.url}", flush=True)
        app.wait()


def _wait_for_the_end() -> None:
    """Until Ctrl-C or SIGTERM."""
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    while not ended.wait(0.5):
        pass


def _recorded() -> dict[str, Path]:
    from workbench.recorded import recorded_runs

    return {f"recorded {folder.name}": folder for folder in recorded_runs() if (folder / "run.json").is_file()}


def _settle_environment(uploads: Path) -> None:
    """Gradio reads these when it is imported or launched; uploads go to a folder of this process alone."""
    for name in UNWANTED_SETTINGS:
        os.environ.pop(name, None)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    # It would import pandas at the first error, and group a table at each; nobody can see it here.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
