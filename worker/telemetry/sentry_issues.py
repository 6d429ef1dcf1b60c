"""Which events become issues for a person to look at, and which of them are the same issue. A pure table.

Blocks, checks, refusals, retries and upstream errors are data: counted, never issues. Must not import Sentry's SDK.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Issue:
    """Describes an issue: title, level, and what makes two events the same issue: `kind` and the fields `of`.

    `bug`: an internal error, grouped by the exception's type and location; its frames are sent with it.
    """

    title: str
    level: Level
    kind: str = ""
    of: tuple[str, ...] = ()
    bug: bool = False
    when: str = ""  # only with this `status`


ISSUES: Final[dict[str, Issue]] = {
    "access.skipped": Issue("Access to {model} is lost ({status})", "error", "access-lost", ("model",)),
    "circuit.opened": Issue("The provider's account is at fault: {code}", "error", "account-at-fault", ("code",)),
    "lease.lost": Issue("A run lost its lease", "error", "lease-lost"),
    "webhook.endpoint_failing": Issue("A webhook endpoint will be disabled", "warning", "endpoint-failing", ("what",)),
    "webhook.endpoint_disabled": Issue("A webhook endpoint was disabled", "warning", "endpoint-disabled", ("what",)),
    "webhook.exhausted": Issue("A webhook receiver is dead", "warning", "webhook-dead", ("host",)),
    "account.state": Issue(
        "Safety checks meet ordinary requests", "warning", "checks-widened", ("model",), when="widened"
    ),
    "queue.stuck": Issue("Jobs are ready and no worker takes them", "error", "queue-stuck"),
    "store.changed": Issue("Redis came back without its data ({reason})", "error", "store-changed", ("reason",)),
    "audit.unsealed": Issue("Audit records could not be sealed ({error})", "error", "audit-unsealed", ("error",)),
    "record.unreadable": Issue("A stored value can't be read: {what}", "error", "record-unreadable", ("what",)),
    "round.broke": Issue("", "error", bug=True),
    "notice.broke": Issue("", "error", bug=True),
    "run.broke": Issue("", "error", bug=True),
    "worker.broke": Issue("", "error", bug=True),
    "sweep.stuck": Issue("", "error", bug=True),
    "webhook.fault": Issue("", "error", bug=True),
    "webhook.unmade": Issue("", "error", bug=True),
    "api.broke": Issue("", "error", bug=True),
}
"""Every event that is an issue."""

TAGS: Final = (
    "job_id",
    "app",
    "attempt",
    "request_id",
    "worker",
    "model",
    "status",
    "code",
    "host",
    "attempts",
    "error",
    "at",
    "seconds",
    "count",
    "generation",
    "what",
    "reason",
)
"""The fields that are sent as tags of an issue; `app` and `host` as digests, because Sentry need not know them."""

_DIGESTED: Final = frozenset({"app", "host"})


def digest(value: object) -> str:
    """Return a short digest of an app's or a host's name, the same for the same name."""
    return hashlib.sha256(f"vigil\0{value}".encode()).hexdigest()[:12]


def tag_value(field: str, value: object) -> str:
    """Return the field's value as it may be sent to Sentry."""
    return digest(value) if field in _DIGESTED else str(value)


def applies(name: str, fields: Mapping[str, object]) -> bool:
    """Return whether this event is an issue.

    The state of the account as a whole is not: it is that of its worst family, which has an event of its own.
    """
    when = ISSUES[name].when
    return not when or (fields.get("status") == when and fields.get("model") != "account")


def title(name: str, fields: Mapping[str, object]) -> str:
    """Return the issue's title, one sentence."""
    return ISSUES[name].title.format_map({k: tag_value(k, v) for k, v in fields.items()})


def fingerprint(name: str, fields: Mapping[str, object]) -> list[str]:
    """Return what makes two events the same issue."""
    issue = ISSUES[name]
    if issue.bug:
        return ["bug", str(fields.get("error")), str(fields.get("at", "")).partition(":")[0], name]
    return [issue.kind, *(tag_value(field, fields.get(field)) for field in issue.of)]


def tags(name: str, fields: Mapping[str, object]) -> dict[str, str]:
    """Return the tags of the issue."""
    return {"vigil.event": name, **{k: tag_value(k, fields[k]) for k in TAGS if fields.get(k) is not None}}
