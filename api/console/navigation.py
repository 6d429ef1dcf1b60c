"""The entries of the console's navigation, in order. A page adds a line."""

from __future__ import annotations

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A link to a page; those whose key lacks the scope don't see it. `keys`: what to press for it."""

    path: str
    title: str
    scope: str
    keys: str


ENTRIES: Final = (
    Entry("/now", "Now", "read", "g n"),
    Entry("/jobs", "Jobs", "read", "g j"),
    Entry("/webhooks", "Webhooks", "read", "g w"),
    Entry("/end-users", "End users", "ops", "g u"),
    Entry("/audit", "Audit", "audit", "g a"),
    Entry("/lab", "Lab", "audit", "g l"),
    Entry("/apps", "Apps", "ops", "g p"),
    Entry("/try", "Try it", "submit", "g t"),
)
