"""Decides what of the provider's own words on an error may be shown: all of it, less what it quotes, less secrets.

The provider's support asks for the exact message, and some messages quote the prompt. So a message is compared with
what was asked and answered when it comes, and shown with the shared runs cut. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from worker.jobs.view_schema import MessageCut
from worker.safety.redact import redact
from worker.safety.shared_text import cut, shared_runs

MAX_EXACT: Final = 4000
"""Characters of a message that are kept; its rest is never read."""

QUOTED: Final = "[cut: quotes the request or the answer]"
MAX_COMPARED: Final = 16 * 2**20
"""Characters of request and answer that a message is compared with; above it nothing of the message is shown."""
_PROSE_KEYS: Final = frozenset({"input", "instructions", "content", "text", "output", "arguments", "refusal"})
_MAX_VALUES: Final = 1_000_000


class ProviderMessage(NamedTuple):
    """The message as it came, which is stored with the content, and what of it is shown."""

    exact: str
    shown: str | None
    cut: tuple[MessageCut, ...] = ()

    def __repr__(self) -> str:
        """Return a text without a word of the message."""
        return f"<{len(self.exact)} characters of the provider>"


def compare_message(exact: str, sources: Sequence[str] | None) -> ProviderMessage:
    """Return the message and what of it is shown; `sources`: what was asked and answered, None if it is not known."""
    if sources is None or sum(map(len, sources)) > MAX_COMPARED:
        return ProviderMessage(exact, None, ("not_compared",))
    runs = shared_runs(exact, sources)
    cleaned = redact(cut(exact, runs, QUOTED))
    reasons: list[MessageCut] = ["quoted"] if runs else []
    if cleaned.found:
        reasons.append("secret")
    shown = cleaned.text
    if len(exact) >= MAX_EXACT:
        reasons.append("too_long")
        shown += f" [cut: longer than {MAX_EXACT} characters]"
    return ProviderMessage(exact, shown, tuple(reasons))


def strings_in(value: object) -> list[str]:
    """Return all strings of a JSON value, keys too, as one text; and once more those that are prose, without a break.

    The texts of a list of parts follow each other only in the second.
    """
    found: list[str] = []
    prose: list[str] = []
    pending: list[tuple[Any, bool]] = [(value, True)]
    for _ in range(_MAX_VALUES):
        if not pending:
            return [" ".join(found), " ".join(prose)]
        one, is_prose = pending.pop()
        if type(one) is str:
            found.append(one)
            if is_prose:
                prose.append(one)
        elif type(one) is dict:
            for key, inner in reversed(one.items()):
                pending += [(inner, key in _PROSE_KEYS), (key, False)]
        elif type(one) in (list, tuple):
            pending += [(inner, is_prose) for inner in reversed(one)]
    return [" " * (MAX_COMPARED + 1)]  # too many to be sure: nothing is shown then
