"""Which abnormal ends and incidents become issues for a person to look at, and which of them are the same issue.

A pure table. Blocks, checks, refusals, retries and faults of a request are data: counted, never issues. A title has no
id in it; what makes two occurrences the same issue is their group: the cause and the values of its fields `of`, each
from a small vocabulary, a model of the catalogue or a digest. Must not import Sentry's SDK.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from worker.jobs.account_name import DEFAULT_ACCOUNT

Level = Literal["error", "warning"]
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True)
class Issue:
    """Describes an issue: its title, its level, and what makes two occurrences the same issue: the fields `of`.

    `page`: the page of the runbook. `only`: the values of a field with which an event is an issue, if not with all.
    `bug`: an internal error, grouped by the exception's type and module; its frames are sent with it.
    """

    title: str
    level: Level
    page: str
    of: tuple[str, ...] = ()
    bug: bool = False
    only: tuple[str, frozenset[str]] | None = None


_BUG: Final = Issue("", "error", "OwnFaults", ("error", "at"), bug=True)

ENDS: Final[dict[str, Issue]] = {
    "job-failed": Issue(
        "Jobs fail after their last attempt: {code} ({family})", "error", "UpstreamErrors", ("code", "family")
    ),
    "job-expired": Issue(
        "Jobs expire after they have run: {code} ({family})", "error", "JobsExpire", ("code", "family")
    ),
    "job-waited": Issue("Jobs expire while they wait: {code} ({family})", "warning", "JobsExpire", ("code", "family")),
    "job-checked": Issue(
        "Jobs expire while the provider checks them ({family})", "warning", "SafetyCheckRateUp", ("family",)
    ),
}
"""Ends of jobs, by cause: `job_ends.end_of` finds it, and the commit of the end counts it."""

EVENTS: Final[dict[str, tuple[str, Issue]]] = {
    "access.skipped": ("access-lost", Issue("Access to {model} is lost", "error", "AccessLost", ("model",))),
    "circuit.opened": (
        "account-at-fault",
        Issue("The provider's account is at fault: {code}", "error", "CircuitOpen", ("code", "scope")),
    ),
    "account.state": (
        "checks-widened",
        Issue(
            "Safety checks meet ordinary requests ({model})",
            "warning",
            "ChecksWidened",
            ("model",),
            only=("status", frozenset({"widened"})),
        ),
    ),
    "lease.lost": ("lease-lost", Issue("A run lost its lease", "error", "LeaseLost")),
    "record.set_aside": (
        "job-lost",
        Issue("A job was lost: its record can't be read", "error", "JobsSetAside", ("code",)),
    ),
    "content.damaged": ("content-damaged", Issue("Stored content can't be read", "error", "RecordsUnreadable")),
    "encryption.key_missing": (
        "key-missing",
        Issue("Stored content waits for an encryption key that no process has", "error", "RecordsUnreadable"),
    ),
    "record.unreadable": (
        "record-unreadable",
        Issue("A stored value can't be read: {what}", "error", "RecordsUnreadable", ("what",)),
    ),
    "records.refused": ("records-refused", Issue("Records without a MAC are refused", "error", "RecordsUnreadable")),
    "answer.too_large": (
        "answer-too-large",
        Issue("Answers are not kept: Redis does not take them ({reason})", "warning", "RedisMemoryFull", ("reason",)),
    ),
    "webhook.endpoint_failing": (
        "endpoint-failing",
        Issue("A webhook endpoint fails and will be disabled", "warning", "WebhookDead", ("what",)),
    ),
    "webhook.endpoint_disabled": (
        "endpoint-disabled",
        Issue("A webhook endpoint was disabled", "warning", "WebhookDead", ("what",)),
    ),
    "webhook.exhausted": ("webhook-dead", Issue("A webhook receiver is dead", "warning", "WebhookDead", ("host",))),
    "webhook.gone": (
        "webhook-gone",
        Issue("A webhook receiver refuses all further messages", "warning", "WebhookDead", ("host",)),
    ),
    "queue.stuck": ("queue-stuck", Issue("Jobs are ready and no worker takes them", "error", "QueueStuck")),
    "store.waiting": ("store-away", Issue("Redis can't be used", "error", "RedisDown")),
    "store.changed": (
        "store-changed",
        Issue("Redis came back without its data ({reason})", "error", "StoreChanged", ("reason",)),
    ),
    "audit.unsealed": (
        "audit-unsealed",
        Issue("Audit records could not be sealed ({error})", "error", "README", ("error",)),
    ),
    "audit.unarchived": (
        "audit-unarchived",
        Issue("The audit trail could not be archived ({error})", "error", "ArchiveLag", ("error",)),
    ),
    **{
        name: (name, _BUG)
        for name in (
            "run.broke",
            "worker.broke",
            "round.broke",
            "sweep.stuck",
            "webhook.fault",
            "webhook.unmade",
            "notice.broke",
            "models.broke",
            "api.broke",
        )
    },
}
"""Every event that is an issue, with its cause."""

CAUSES: Final[dict[str, Issue]] = {**ENDS, **dict(EVENTS.values())}
"""Every issue, by cause: the tag `vigil.cause`."""

TAGS: Final = (
    "job_id",
    "app",
    "attempt",
    "request_id",
    "worker",
    "account",
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
_FREE_TEXT: Final = frozenset({("store.waiting", "reason")})  # names the address of Redis
_ACCOUNT: Final = "account"  # the state of the whole account is that of its worst family, which has an event of its own


def digest(value: object) -> str:
    """Return a short digest of an app's or a host's name, the same for the same name."""
    return hashlib.sha256(f"vigil\0{value}".encode()).hexdigest()[:12]


def identifier_or_other(value: object) -> str:
    """Return a model, a code or an id as it is if it looks like one, else "other"."""
    text = str(value)
    return text if _IDENTIFIER.fullmatch(text) else "other"


def applies(name: str, fields: Mapping[str, object]) -> bool:
    """Return whether this event is an issue."""
    _, issue = EVENTS[name]
    if issue.only is None:
        return True
    field, values = issue.only
    return fields.get(field) in values and fields.get("model") != _ACCOUNT


def group_of(cause: str, fields: Mapping[str, object]) -> str:
    """Return the group of an occurrence: cause and values of the fields `of`, from which title and fingerprint come.

    What belongs to another account than the default one has the account's name before the last value.
    """
    values = [_value(field, fields.get(field, "")) for field in CAUSES[cause].of]
    account = str(fields.get("account") or DEFAULT_ACCOUNT)
    if values and account != DEFAULT_ACCOUNT:
        values[-1] = identifier_or_other(f"{account}:{values[-1]}")
    return _SEPARATOR.join((cause, *values))


def cause_of(group: str) -> str:
    """Return the cause of a group; "" if it is none of ours."""
    cause, *values = group.split(_SEPARATOR)
    known = cause in CAUSES and len(values) == len(CAUSES[cause].of)
    return cause if known and all(value == identifier_or_other(value) for value in values) else ""


def overflow_of(group: str) -> str:
    """Return the group that stands for all further ones of the same cause."""
    cause = cause_of(group)
    return _SEPARATOR.join((cause, *("other" for _ in CAUSES[cause].of)))


def title(group: str) -> str:
    """Return the issue's title, one sentence."""
    cause, *values = group.split(_SEPARATOR)
    return CAUSES[cause].title.format_map(dict(zip(CAUSES[cause].of, values, strict=True)))


def fingerprint(group: str) -> list[str]:
    """Return what makes two events the same issue."""
    return group.split(_SEPARATOR)


def tags(name: str, fields: Mapping[str, object]) -> dict[str, str]:
    """Return the tags of an occurrence; a value that does not look like an identifier is "other"."""
    sent = (k for k in TAGS if fields.get(k) is not None and (name, k) not in _FREE_TEXT)
    return {
        "vigil.event": name,
        **{k: digest(fields[k]) if k in _DIGESTED else identifier_or_other(fields[k]) for k in sent},
    }


def _value(field: str, value: object) -> str:
    if field in _DIGESTED:
        return digest(value)
    text = str(value).partition(":")[0] if field == "at" else str(value)  # the module: a line moves with each release
    return identifier_or_other(text)
