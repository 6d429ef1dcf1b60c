"""What a provider's server offers, and whether that fits the mode in which it is called (VIGIL_UPSTREAM).

Pure. Must not know: how it was asked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NamedTuple

from worker.jobs.record import Frozen
from worker.safety.messages import job_error

Mode = Literal["background", "stream", "chat"]
MODES: Final[tuple[Mode, ...]] = ("background", "stream", "chat")
"""By what they give: an answer that can be resumed first."""


class ServerEndpoints(NamedTuple):
    """What a server has; None where its answer told nothing, such as 401 for everything."""

    responses: bool | None = None  # POST /responses
    kept: bool | None = None  # GET /responses/{id}: a background response can be read again
    chat: bool | None = None  # POST /chat/completions

    def has(self, mode: Mode) -> bool | None:
        """Whether the server has what VIGIL_UPSTREAM=`mode` needs; None when that is not known."""
        if mode == "chat":
            return self.chat
        if mode == "stream" or self.responses is False:
            return self.responses
        return None if self.responses is None or self.kept is None else self.kept

    def best(self) -> Mode | None:
        """The mode to take, or None when none is known to fit."""
        return next((mode for mode in MODES if self.has(mode)), None)


class EndpointFit(Frozen):
    """How the mode in use fits the server, as the latest probe found it."""

    upstream: Mode
    fits: bool | None = None
    best: Mode | None = None
    probed_at: datetime | None = None

    @property
    def code(self) -> str:
        """The name of its plain words."""
        if self.fits is None:
            return "upstream_unclear"
        if self.fits:
            return "upstream_fits"
        return f"upstream_{self.best}" if self.best else "upstream_unfit"

    @property
    def advice(self) -> str:
        """What to do next, in one sentence."""
        return job_error(self.code).advice


def judge_endpoint(mode: Mode, found: ServerEndpoints, now: datetime) -> EndpointFit:
    """Whether `mode` fits what was found."""
    return EndpointFit(upstream=mode, fits=found.has(mode), best=found.best(), probed_at=now)
