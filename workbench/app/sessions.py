"""What the server keeps of each page that is open: next to nothing.

Gradio describes every component anew for each session, for links to the state of a page, which this app has not. That
took 50 ms of the event loop for each new page, and held whatever was sent to it.
"""

from __future__ import annotations

import datetime
from copy import copy
from typing import Any

from gradio.state_holder import SessionState, StateHolder


class Session(SessionState):
    """A session without descriptions."""

    def __init__(self, blocks: Any) -> None:
        # Not the parent's, which makes them.
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600

    def __setitem__(self, key: int, value: Any) -> None:
        self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class Sessions(StateHolder):
    """The sessions that were used last."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = Session(self.blocks)
        self.update(session_id)
        self.time_last_used[session_id] = datetime.datetime.now()
        return self.session_data[session_id]
