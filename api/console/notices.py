"""What the console says after an action: a redirect names a sentence of this table, so no address can say another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

_SENTENCES: Final = {
    "cancelled": "The job is cancelled.",
    "cancel_requested": "The cancellation is requested; the worker that runs the job acts on it.",
    "already_settled": "The job had ended before; nothing was changed.",
    "redelivered_one": "The message is sent again now.",
    "redelivered": "{n} messages are sent again now.",
    "redelivered_some_left": "{n} messages are sent again now; there are more, send these when they are done.",
    "endpoint_paused": "The endpoint is paused; what it misses is sent once it is active again.",
    "endpoint_active": "The endpoint is active; what it missed is sent now.",
    "quarantined": "The end user is in quarantine: new jobs are refused, waiting ones are cancelled.",
    "quarantine_lifted": "The quarantine is lifted; earlier blocks no longer count.",
    "appeal_opened": "The appeal is open.",
    "appeal_step": "The appeal has this step.",
    "verification_started": "The verification has begun.",
    "verification_just_run": "A verification runs, or ended less than half a minute ago.",
    "hold_placed": "The hold is in force.",
    "hold_under_way": "The hold is in force; the content of the jobs so far is still being marked.",
    "hold_released": "The hold is released.",
    "release_under_way": "The hold is released; what it kept is still getting its time back.",
    "offer_accepted": "The offer is accepted; the faster model takes over.",
    "run_again": "This is the new job: it has the content and the policy of the old one.",
    "nothing_selected": "No job was selected; nothing was changed.",
}
"""By code; `{n}` is a count."""
_MAX_DIGITS: Final = 9


def with_notice(address: str, code: str, count: int | None = None) -> str:
    """Return the address with the notice that the page there shows."""
    query = {"notice": code} | ({} if count is None else {"n": str(count)})
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"


def text_of(query: Mapping[str, str]) -> str | None:
    """Return the sentence that the address names, or None."""
    sentence, count = _SENTENCES.get(query.get("notice", "")), query.get("n", "")
    if sentence is None:
        return None
    return sentence.replace("{n}", count if count.isascii() and count.isdigit() and len(count) <= _MAX_DIGITS else "0")
