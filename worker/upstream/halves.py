"""Characters that a server cut in two: halves of a surrogate pair in the strings of its JSON.

Servers that write text as UTF-16 send one half per delta. Two halves in a row are one character; a half that stays
alone becomes U+FFFD. Pure, and off the hot path: only a stream that ever held a half comes through here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from worker.safety.stream import Delta, Keepalive, StreamEvent

_HALF: Final = re.compile("[\ud800-\udfff]")
_FIRST: Final = re.compile("[\ud800-\udbff]\\Z")


def joined(text: str) -> str:
    """Return `text` with each pair of halves as its character, and U+FFFD for every half alone."""
    if _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended(value: Any) -> Any:
    """Return a JSON value, or an event, with every string in it `joined`."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, list):
        return [mended(one) for one in value]
    if isinstance(value, dict):
        return {mended(key): mended(one) for key, one in value.items()}
    if isinstance(value, tuple):
        parts = [mended(one) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class SurrogateHalves:
    """The first halves of one stream that wait for their second: one for each kind of text."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}

    def mend(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Return the events with every character whole; a half at the end of a delta is kept for the next one."""
        out: list[StreamEvent] = []
        for event in events:
            if type(event) is not Delta:
                if type(event) is not Keepalive:
                    out += self.rest()
                out.append(mended(event))
                continue
            text = self._waiting.pop(event.kind, "") + event.text
            if half := _FIRST.search(text):
                self._waiting[event.kind] = half[0]
                text = text[:-1]
            out.append(event._replace(text=joined(text)) if text else Keepalive(event.sequence, "half a character"))
        return out

    def rest(self) -> list[StreamEvent]:
        """Return what no second half came for."""
        waiting, self._waiting = self._waiting, {}
        return [Delta(None, "\ufffd", kind) for kind in waiting]  # type: ignore[arg-type]  # kinds of deltas
