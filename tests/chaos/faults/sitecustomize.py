"""Bugs on demand for processes that tests start with this folder in PYTHONPATH: Python imports it by itself.

A prompt with one of the marks meets a fault whose message, cause and local variables quote it. The product knows none
of this.
"""

from __future__ import annotations

import json
from typing import Any

from api.jobs import submission
from worker.tasks.execution import active_attempts

API_BUG, WORKER_BUG = "[[bug: api]]", "[[bug: worker]]"
_new, _request = submission._new_job, active_attempts.ActiveAttempts.request


def _fall_over(prompt: str) -> None:
    try:
        json.loads(f'{{"a": {prompt}')
    except ValueError as error:
        raise RuntimeError(f"could not read {prompt}") from error


async def _broken_new(*given: Any) -> Any:
    if API_BUG in str(given[2].input):
        _fall_over(given[2].input)
    return await _new(*given)


async def _broken_request(self: active_attempts.ActiveAttempts) -> Any:
    request = await _request(self)
    if request is not None and WORKER_BUG in str(request):
        _fall_over(str(request))
    return request


submission._new_job = _broken_new
active_attempts.ActiveAttempts.request = _broken_request  # type: ignore[method-assign]
