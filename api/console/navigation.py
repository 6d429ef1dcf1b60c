"""The entries of the console's navigation, in order. A page adds a line."""

from __future__ import annotations

from typing import Final, NamedTuple


class NavigationEntry(NamedTuple):
    """A link to a page; those whose key lacks the scope don't see it. `keys`: what to press for it."""

    path: str
    title: str
    scope: str
    keys: str


ENTRIES: Final = (
    NavigationEntry("/now", "Now", "read", "g n"),
    NavigationEntry("/jobs", "Jobs", "read", "g j"),
    NavigationEntry("/webhooks", "Webhooks", "read", "g w"),
    NavigationEntry("/end-users", "End users", "ops", "g u"),
    NavigationEntry("/appeals", "Appeals", "ops", "g e"),
    NavigationEntry("/audit", "Audit", "audit", "g a"),
    NavigationEntry("/cost", "Cost", "audit", "g c"),
    NavigationEntry("/lab", "Lab", "audit", "g l"),
    NavigationEntry("/apps", "Apps", "ops", "g p"),
    NavigationEntry("/try", "Try it", "submit", "g t"),
)
