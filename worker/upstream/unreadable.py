"""Reads errors in payloads that are no complete JSON: bare words, prose that quotes an error, a value that was cut.

Pure. A known code counts here as in an HTTP body; everything else of such a payload does not.
"""

from __future__ import annotations

import jiter

from worker.jobs.record import Carrier
from worker.safety.codes import KNOWN, SUSPECT, code_of, rank, weight
from worker.safety.stream import Keepalive, StreamError, StreamEvent, Terminal
from worker.upstream.embedded import parse_full
from worker.upstream.problems import problem_of


def error_in_words(words: str, carrier: Carrier) -> StreamEvent:
    """Return the error that bare words report, by a known code or in quoted JSON, or a keepalive ("ping")."""
    problem = problem_of(words)
    if rank(code_of(problem)) >= KNOWN:
        return StreamError(None, problem, carrier)
    return Keepalive(None, "no JSON")


def value_of_cut(payload: bytes) -> object:
    """Return the value of JSON whose end is missing, or of a dict that Python printed, or None."""
    text = payload.decode("utf-8", "replace")
    try:
        return jiter.from_json(text.encode(), partial_mode="trailing-strings")
    except ValueError:
        return parse_full(text)


def block_among(events: list[StreamEvent]) -> list[StreamEvent]:
    """Return the first event that reports a block, without the id that may have been cut; empty if there is none."""
    for event in events:
        if type(event) is StreamError and weight(event.problem) >= SUSPECT:
            return [event]
        if type(event) is Terminal and weight(event.problem, event.incomplete_reason) >= SUSPECT:
            return [event._replace(response_id=None)]
    return []
