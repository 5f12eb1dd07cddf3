"""What every part of the page works with, and how an error reaches whoever looks at the page."""

from __future__ import annotations

import contextvars
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from spark_kernel.errors import SparkError
from workbench.app.catalog import Catalog
from workbench.app.desk import ModelDesk
from workbench.app.limits import Limits
from workbench.app.samples import SampleTables
from workbench.app.uploads import Uploads
from workbench.app.workroom import Remembered, Workroom

KEPT = 96
"""Rounds, figures and comparisons that are remembered: about 20 MB at most."""
PATH = re.compile(r"(?<![\w./:<>\\-])(?:file://|~)?/(?:[^\s/\"'<>|:;,()\[\]]+/)+([^\s/\"'<>|:;,()\[\]]*)")
"""An absolute path in a sentence; its last part is kept."""


@dataclass(frozen=True, slots=True)
class AppContext:
    """Runs, models and uploads by name, the desk that answers, bounds, and where work is done beside the event loop.

    `pages`: tables and figures; `live`: what a running comparison needs; `kept`: what was made for a page already.
    `password`: whether people give one, and so may log out.
    """

    catalog: Catalog
    desk: ModelDesk
    limits: Limits
    samples: SampleTables
    uploads: Uploads
    pages: Workroom
    live: Workroom
    public: bool = False
    password: bool = False
    kept: Remembered = field(default_factory=lambda: Remembered(KEPT))

    def sentence(self, error: SparkError) -> str:
        """What the page says about an error: its sentence, without where on this machine things lie."""
        return self.without_roots(str(error))

    def without_roots(self, text: str) -> str:
        """A text without the folders of this machine."""
        for root in self.catalog.roots():
            text = text.replace(f"{root}/", "").replace(str(root), "the folder of runs")
        return PATH.sub(r"\1", text)

    def told(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, done beside the event loop, with its foreseen errors as messages on the page."""

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            # Gradio's components ask for the context that they are made in.
            within = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
            try:
                return await self.pages.run(client_of(LocalContext.request.get(None)), within)
            except SparkError as error:
                raise gr.Error(self.sentence(error), title="This cannot be shown", print_exception=False) from None

        return wrapped


def client_of(request: gr.Request | None) -> str:
    """Who asks, as the guard says."""
    peer = None if request is None else request.client
    return str(peer.host) if peer else "unknown"
