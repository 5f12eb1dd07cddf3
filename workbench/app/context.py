"""What every part of the page works with, and how an error reaches whoever looks at the page."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr

from spark_kernel.errors import SparkError
from workbench.app.catalog import Catalog
from workbench.app.desk import ModelDesk
from workbench.app.limits import Limits
from workbench.app.samples import SampleTables

F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppContext:
    """Runs and models by name, the desk that answers, and the bounds."""

    catalog: Catalog
    desk: ModelDesk
    limits: Limits
    samples: SampleTables
    public: bool = False

    def sentence(self, error: SparkError) -> str:
        """What the page says about an error: its sentence, without where on this machine things lie."""
        return self.without_roots(str(error))

    def without_roots(self, text: str) -> str:
        """A text without the folders of this machine."""
        for root in self.catalog.roots():
            text = text.replace(f"{root}/", "").replace(str(root), "the folder of runs")
        return text

    def told(self, function: F) -> F:
        """The function with its foreseen errors as messages on the page."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except SparkError as error:
                raise gr.Error(self.sentence(error), title="This cannot be shown", print_exception=False) from None

        return wrapped  # type: ignore[return-value]
