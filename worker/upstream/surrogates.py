"""Joins characters that a server cut in two: halves of a surrogate pair in the strings of its JSON.

Servers that write text as UTF-16 send one half per delta. Two halves in a row are one character; a half that stays
alone becomes U+FFFD. Pure, and off the hot path: only a stream that ever had a half goes through here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from worker.safety.stream import Delta, Keepalive, StreamEvent, Terminal

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TRAILING_HIGH_SURROGATE: Final = re.compile("[\ud800-\udbff]\\Z")


REPLACED: Final = "replaced_characters"
"""The flag of an answer in whose stream U+FFFD replaces half a character."""


def join_surrogates(text: str, alone: str = "\ufffd") -> str:
    """Return `text` with each surrogate pair as one character, and `alone` for every lone half."""
    if _SURROGATE.search(text) is None:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _SURROGATE.sub(alone, joined)


def join_surrogates_in(value: Any, alone: str = "\ufffd") -> Any:
    """Return a JSON value, or an event, with the surrogates joined in every string."""
    if isinstance(value, str):
        return join_surrogates(value, alone)
    if isinstance(value, list):
        return [join_surrogates_in(one, alone) for one in value]
    if isinstance(value, dict):
        return {join_surrogates_in(key, alone): join_surrogates_in(one, alone) for key, one in value.items()}
    if isinstance(value, tuple):
        parts = [join_surrogates_in(one, alone) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class SurrogateJoiner:
    """Joins the deltas of one stream; keeps a first half, one for each kind of text, until its second comes."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {}
        self._replaced = False

    def mend(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Return the events with complete characters; a half at the end of a delta is kept for the next one."""
        out: list[StreamEvent] = []
        for event in events:
            if type(event) is not Delta:
                if type(event) is not Keepalive:
                    out += self.flush()
                joined = join_surrogates_in(event)
                self._replaced = self._replaced or join_surrogates_in(event, alone="") != joined
                if self._replaced and type(joined) is Terminal:
                    joined = joined._replace(flags=(*joined.flags, REPLACED))
                out.append(joined)
                continue
            text = self._waiting.pop(event.kind, "") + event.text
            if half := _TRAILING_HIGH_SURROGATE.search(text):
                self._waiting[event.kind] = half[0]
                text = text[:-1]
            self._replaced = self._replaced or join_surrogates(text, "") != join_surrogates(text)
            out.append(
                event._replace(text=join_surrogates(text)) if text else Keepalive(event.sequence, "half a character")
            )
        return out

    def flush(self) -> list[StreamEvent]:
        """Return U+FFFD for each half whose second never came."""
        waiting, self._waiting = self._waiting, {}
        self._replaced = self._replaced or bool(waiting)
        return [Delta(None, "\ufffd", kind) for kind in waiting]  # type: ignore[arg-type]  # kinds of deltas
