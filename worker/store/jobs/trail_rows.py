"""Read and write the rows of a job's list of events: one event each, or several in one compressed row.

The rows of a settled job are folded into one; an event that comes after that is a row of its own behind it. So a range
of the list is a range of events only while nothing is folded: `first_row_is` tells. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from worker.store import compression
from worker.store.record_mac import split


def unfolded(rows: Iterable[bytes]) -> list[bytes]:
    """Return one row for each event, as they were before they were folded; a row that can't be read as it is."""
    out: list[bytes] = []
    for row in rows:
        if not compression.is_compressed(row):
            out.append(row)
            continue
        try:
            out.extend(compression.expand(row).split(b"\n"))
        except ValueError:
            out.append(row)
    return out


def folded(rows: Iterable[bytes]) -> bytes:
    """Return one row that holds these; JSON has no line ends."""
    return compression.compress(b"\n".join(rows))


def first_row_is(rows: Sequence[bytes], seq: int) -> bool:
    """Return whether the first of these rows is the event `seq`; else the list is folded, shorter, or unreadable."""
    try:
        return bool(rows) and json.loads(split(rows[0])[0])["seq"] == seq
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
