"""What a story uses: an app's client, the fake provider, the workers."""

from __future__ import annotations

from dataclasses import dataclass

from in_process import Stage

from worker.client import AsyncVigil
from worker.simulator import Simulator


@dataclass
class Story:
    """What a story uses."""

    app: AsyncVigil  # the app's client, over HTTP
    provider: Simulator  # the fake provider; `calls()` says what it was asked and what it billed
    stage: Stage  # the workers
    key: str  # the app's API key, with all scopes
    url: str  # of the API
