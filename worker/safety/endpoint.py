"""Judges whether a provider's endpoints fit the mode in which they are called (VIGIL_UPSTREAM). Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NamedTuple

from worker.jobs.frozen import StoredRecord
from worker.safety.messages import job_error

Mode = Literal["background", "stream", "chat"]
MODES: Final[tuple[Mode, ...]] = ("background", "stream", "chat")
"""In order of preference: a response that can be resumed comes first."""


class ServerEndpoints(NamedTuple):
    """The endpoints of a server; None where its answer is not conclusive, such as 401 for everything."""

    responses: bool | None = None  # POST /responses
    kept: bool | None = None  # GET /responses/{id}: a background response can be read again
    chat: bool | None = None  # POST /chat/completions

    def has(self, mode: Mode) -> bool | None:
        """Return whether the server has what VIGIL_UPSTREAM=`mode` needs, or None if that is not known."""
        if mode == "chat":
            return self.chat
        if mode == "stream" or self.responses is False:
            return self.responses
        return None if self.responses is None or self.kept is None else self.kept

    def best(self) -> Mode | None:
        """Return the best mode that fits, or None if none is known to fit."""
        return next((mode for mode in MODES if self.has(mode)), None)


class EndpointFit(StoredRecord):
    """Whether the mode in use fits the server, as the latest probe found."""

    upstream: Mode
    fits: bool | None = None
    best: Mode | None = None
    probed_at: datetime | None = None

    @property
    def code(self) -> str:
        """Return the code of its message."""
        if self.fits is None:
            return "upstream_unclear"
        if self.fits:
            return "upstream_fits"
        return f"upstream_{self.best}" if self.best else "upstream_unfit"

    @property
    def advice(self) -> str:
        """Return what to do next, in one sentence."""
        return job_error(self.code).advice


def judge_endpoint(mode: Mode, found: ServerEndpoints, now: datetime) -> EndpointFit:
    """Return whether `mode` fits the endpoints that were found."""
    return EndpointFit(upstream=mode, fits=found.has(mode), best=found.best(), probed_at=now)
