"""Starting the app: what is offered, and Gradio's server with everything switched off that the page does not need."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spark_kernel.errors import InputError
from workbench.app.access import USER, Access, decide_access
from workbench.app.limits import LOCAL, PUBLIC, Limits

if TYPE_CHECKING:
    from spark_kernel.config.sections import ModelSection
    from workbench.app.tabs.live import Waiting

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
    """An app that is being served: its address, how to wait for its end, and the questions under way."""

    url: str
    wait: Callable[[], None]
    waiting: Waiting


@contextmanager
def serving(settings: AppSettings, load: Callable[..., object] | None = None) -> Iterator[RunningApp]:
    """Serve until the block is left.

    Args:
        load: how a model is made ready to be asked; by default `desk.load_respondent`.

    Raises:
        InputError: the port is taken, or models or runs are none.
    """
    with tempfile.TemporaryDirectory(prefix="spark-workbench-") as uploads:
        _settle_environment(Path(uploads))
        from starlette.middleware import Middleware

        from workbench.app.catalog import STARTER, Catalog, check_models, check_runs_root
        from workbench.app.context import AppContext
        from workbench.app.desk import ModelDesk, load_respondent
        from workbench.app.guard import Guard
        from workbench.app.page import build_page
        from workbench.app.samples import SampleTables
        from workbench.app.style import css, head, theme

        check_runs_root(settings.runs)
        check_models(settings.models)
        bounds, access = settings.bounds, settings.access
        recorded = _recorded() if settings.recorded is None else settings.recorded
        catalog = Catalog(
            settings.runs.absolute(), settings.models, recorded, not access.public, settings.model_settings
        )
        desk = ModelDesk(load or load_respondent, bounds.loaded_models)  # type: ignore[arg-type]
        context = AppContext(catalog, desk, bounds, SampleTables(bounds.rows), access.public)
        page = build_page(context)
        desk.warm(catalog.model(settings.models[0] if settings.models else STARTER))
        try:
            _, url, _ = page.blocks.launch(
                server_name=access.address,
                server_port=settings.port or _free_port(),
                app_kwargs={
                    "middleware": [Middleware(Guard, access=access, limits=bounds, uploads=uploads)],
                    "docs_url": None, "redoc_url": None, "openapi_url": None,
                },
                auth=None if access.password is None else (USER, access.password),
                auth_message=LOGIN_MESSAGE,
                share=False, inline=False, inbrowser=False, prevent_thread_lock=True, quiet=True, show_error=False,
                debug=False, allowed_paths=[], blocked_paths=[],
                max_file_size=bounds.image_bytes, strict_cors=True, enable_monitoring=False, run_history=False,
                ssr_mode=False, mcp_server=False, pwa=False, num_workers=0, footer_links=[],
                state_session_capacity=REMEMBERED_SESSIONS,
                theme=theme(), css=css(), head=head(),
            )  # fmt: skip
        except OSError as error:
            desk.close()
            raise InputError(f"The app cannot listen on {access.address}, port {settings.port}: {error}.") from None
        page.blocks.enable_monitoring = False
        try:
            yield RunningApp(url, _wait_for_the_end, page.live.waiting)
        finally:
            page.blocks.close(verbose=False)
            desk.close()


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _recorded() -> dict[str, Path]:
    from workbench.recorded import NAME, recorded_run

    folder = recorded_run()
    return {f"recorded {NAME}": folder} if (folder / "run.json").is_file() else {}


def _settle_environment(uploads: Path) -> None:
    """Gradio reads these when it is imported or launched; uploads go to a folder of this process alone."""
    for name in UNWANTED_SETTINGS:
        os.environ.pop(name, None)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    # uvicorn would let a client on this machine say that it is another one.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
