"""Telemetry events: one table of all events, their fields and units. Logs, metrics and Sentry subscribe to them.

An event is passed on with the fields that its row lists and nothing else: anything more is a programming error, which
raises in tests and is dropped and counted in production. No field may hold a prompt, an output, the query of an
address, a key or the text of a foreign error. Subscribers are not known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Final

FIELDS: Final[dict[str, str]] = {
    # common: on every event, where known
    "job_id": "the job",
    "app": "the app that owns it",
    "attempt": "number of the attempt, from 1",
    "request_id": "the provider's id of an upstream call, or Vigil's of an API request",
    "trace_id": "32 hex digits: the trace from the submit over the worker to the webhook",
    "worker": "id of a worker process",
    "partition": "name of a store, where a deployment has several",
    # numbers
    "attempts": "how many attempts (of a job, of a message)",
    "cached_input_tokens": "tokens",
    "check_seconds": "seconds that safety checks took",
    "cost_usd": "US dollars",
    "count": "how many; the event says of what",
    "generation": "wake-ups of the job so far",
    "http_status": "status of an HTTP answer",
    "input_tokens": "tokens",
    "lag_seconds": "seconds late",
    "output_tokens": "tokens",
    "port": "a TCP port",
    "reasoning_tokens": "tokens",
    "resumed": "reconnections",
    "seconds": "seconds; the event says of what",
    "sequence": "number of the last stream event",
    "size_bytes": "bytes",
    "slots": "jobs that may run at once",
    "ttft_seconds": "seconds from the call to the first output",
    "version": "version number",
    "wait_seconds": "seconds from the submission (or not_before) to the start",
    # values of fixed vocabularies
    "account": "name of an account at the provider, as operators gave it",
    "at": "where in Vigil's code: module:line",
    "carrier": "how a block came",
    "category": "what a block is about",
    "code": "an error's code, the provider's or Vigil's",
    "decided_by": "policy, app or provider",
    "disclosed": "not_needed, yes or no",
    "ended_by": "what ended a check",
    "error": "type of an exception, never its text",
    "evidence": "signalled or suspected",
    "host": "host name of a receiver, or the address listened on",
    "mode": "background, stream or chat",
    "model": "the requested model, or a family of models",
    "outcome": "how an attempt ended",
    "priority": "high, default or low",
    "purpose": "why an attempt was made",
    "reason": "why; the event says of what",
    "refused": "True if the answer is the model's own refusal",
    "result": "what came of a try: delivered, failed, gone, exhausted",
    "scope": "name of an account's circuit or of a pause; not reversible",
    "served": "the model that served",
    "status": "a job's status, a model's access, an HTTP status",
    "what": "which of several; the event says of what",
}
"""Every field, with its meaning and unit."""

COMMON_FIELDS: Final = frozenset({"job_id", "app", "attempt", "request_id", "trace_id", "worker", "partition"})


@dataclass(frozen=True, slots=True)
class EventSpec:
    """Describes one event: its log level, what is true when it is emitted, its own fields, and all that it may have."""

    level: int
    description: str
    fields: frozenset[str]
    allowed: frozenset[str]


def _row(level: int, description: str, fields: str = "") -> EventSpec:
    own = frozenset(fields.split())
    return EventSpec(level, description, own, own | COMMON_FIELDS)


EVENTS: Final[dict[str, EventSpec]] = {
    # jobs: emitted by the store when the change is committed, so by one process, once
    "job.submitted": _row(DEBUG, "A job was accepted.", "model priority"),
    "job.started": _row(DEBUG, "A job began to run for the first time.", "model wait_seconds"),
    "job.scheduled": _row(DEBUG, "A job waits on purpose.", "reason code scope"),
    "job.rescued": _row(INFO, "A dead worker's job was taken over.", "generation"),
    "job.interrupted": _row(INFO, "A job was handed over at a shutdown."),
    "job.blocked": _row(INFO, "The provider withheld the content.", "model category code carrier"),
    "job.settled": _row(
        INFO, "A job has ended.", "status model served disclosed code attempts seconds refused cost_usd check_seconds"
    ),
    "model.substituted": _row(INFO, "Another model takes over.", "model served reason decided_by"),
    "check.started": _row(DEBUG, "A safety check began.", "model evidence"),
    "check.ended": _row(DEBUG, "A safety check is over.", "model evidence ended_by seconds"),
    "attempt.started": _row(DEBUG, "The intent to call upstream is on record.", "model purpose mode account"),
    "attempt.taken_up": _row(DEBUG, "A running response is read on by a new holder.", "model mode account"),
    "attempt.finished": _row(
        DEBUG,
        "An upstream call has ended.",
        "model served outcome code http_status seconds ttft_seconds check_seconds input_tokens cached_input_tokens "
        "output_tokens reasoning_tokens cost_usd resumed account",
    ),
    "answer.mended": _row(DEBUG, "Something in an answer had to be replaced or left out.", "model what"),
    "response.out_of_reach": _row(WARNING, "The state of a running response can't be read.", "seconds"),
    "response.back": _row(INFO, "A response that was out of reach can be read again.", "seconds"),
    # runs
    "run.broke": _row(ERROR, "A run ended with an internal error.", "error at"),
    "lease.lost": _row(WARNING, "A run lost its lease to another worker.", "generation"),
    "job.settled_elsewhere": _row(INFO, "A run found its job settled by another writer.", "status"),
    "control.unknown": _row(WARNING, "A control message of the API is not known to this version."),
    "circuit.opened": _row(ERROR, "The provider's account is at fault: its jobs are held.", "code scope account"),
    "circuit.closed": _row(INFO, "The provider's account answers again.", "count scope account"),
    "account.missing": _row(WARNING, "A response runs with an account that this worker does not have.", "account"),
    # access and account
    "access.changed": _row(WARNING, "What is known of the access to a model has changed.", "model status account"),
    "access.skipped": _row(
        WARNING, "A model isn't called any more: denied for real and by the probe.", "model status account"
    ),
    "access.granted": _row(INFO, "A model may be called.", "model status account"),
    "account.state": _row(
        WARNING,
        "The state of the provider's account, or of a family of models (`model`), has changed.",
        "model status code account",
    ),
    # the models file
    "models.reloaded": _row(INFO, "The models file was read anew, and it has changed.", "count"),
    "models.refused": _row(
        WARNING, "The models file can't be used; what was read before stays in force.", "reason count"
    ),
    "models.broke": _row(ERROR, "Reading the models file failed with an internal error.", "error at"),
    # the provider's notices
    "notice.received": _row(WARNING, "The provider has sent a notice.", "code count account"),
    "notice.end_user": _row(WARNING, "The provider has sent a notice about an end user.", "code"),
    "quarantine.ended": _row(INFO, "A quarantine is over: its time has come."),
    "quarantine.stays": _row(WARNING, "A quarantine that is over stays: its end can't be recorded.", "code"),
    "notice.page_refused": _row(INFO, "The provider gave no page about a notice.", "code"),
    "notice.broke": _row(ERROR, "Processing a notice failed with an internal error.", "error at"),
    # keys and trails
    "encryption.off": _row(WARNING, "Content is kept as it came: there is no encryption key."),
    "encryption.key_missing": _row(ERROR, "Content can't be read: its key isn't configured.", "code"),
    "record.unreadable": _row(ERROR, "A stored value can't be read.", "what code"),
    "record.set_aside": _row(ERROR, "A job whose record can't be read has failed; its bytes are kept.", "code"),
    "audit.no_digest": _row(WARNING, "An answer has no digest in the trail: its secret can't be read.", "code"),
    "records.refused": _row(
        ERROR, "Records without a MAC are refused: `vigil store seal` accepts those that are older.", "count"
    ),
    "encryption.unsealed_accepted": _row(
        WARNING, "VIGIL_ACCEPT_UNSEALED is on: whoever writes to Redis is believed. `vigil doctor` says what needs it."
    ),
    "key.expiring": _row(WARNING, "An API key (`what`) ends soon: whoever uses it needs a new one.", "what seconds"),
    "content.damaged": _row(ERROR, "Content can't be read: it isn't what was written."),
    "output.archived": _row(DEBUG, "A large output was written to the archive.", "size_bytes seconds"),
    "output.kept": _row(
        WARNING, "A large output stays in Redis for now: the archive did not take it in time.", "size_bytes code"
    ),
    "output.stays": _row(WARNING, "Large outputs stay in Redis: without an encryption key none leaves it."),
    "output.removed": _row(DEBUG, "An output that no job refers to was deleted from the archive."),
    "archive.failed": _row(WARNING, "The archive could not `write`, `read` or `delete` an output.", "what code"),
    "audit.unsealed": _row(ERROR, "Audit records could not be sealed.", "error"),
    "audit.unarchived": _row(ERROR, "The audit trail could not be archived; Redis keeps it.", "error lag_seconds"),
    "audit.archived": _row(INFO, "Audit records were archived, trimmed from Redis or removed.", "what count"),
    "audit.no_key": _row(WARNING, "There is no key to sign the audit trail with.", "error"),
    # webhooks
    "webhook.tried": _row(DEBUG, "A message was sent once.", "result http_status seconds lag_seconds host attempts"),
    "webhook.gone": _row(WARNING, "A receiver has refused all further messages.", "host attempts"),
    "webhook.endpoint_failing": _row(WARNING, "An endpoint acknowledges nothing and will be disabled.", "what"),
    "webhook.endpoint_disabled": _row(WARNING, "An endpoint was disabled after days of failures.", "what"),
    "webhook.exhausted": _row(WARNING, "A message was given up.", "host attempts status"),
    "webhook.unmade": _row(ERROR, "A message could not be built.", "error at"),
    "webhook.fault": _row(ERROR, "A try failed with an internal error.", "error at"),
    # processes
    "worker.started": _row(INFO, "A worker has started.", "slots"),
    "worker.draining": _row(INFO, "A worker claims no more jobs.", "count"),
    "worker.stopped": _row(INFO, "A worker has ended."),
    "worker.beat": _row(DEBUG, "A worker has written its heartbeat.", "count lag_seconds"),
    "worker.broke": _row(ERROR, "A component of a worker ended by itself.", "error at what"),
    "round.broke": _row(ERROR, "A pass of a worker's loop failed with an internal error.", "error at what"),
    "worker.listening": _row(INFO, "A worker's health port is open.", "host port"),
    "migration.began": _row(INFO, "A worker begins a migration of the store, which `version` numbers.", "version"),
    "migration.done": _row(INFO, "A migration of the store is done; `count` values were looked at.", "version count"),
    "sweep.done": _row(DEBUG, "A sweep is complete."),
    "sweep.stuck": _row(ERROR, "A job could not be expired.", "error at"),
    "queue.stuck": _row(ERROR, "A job has been ready for long, and no worker takes it.", "seconds count"),
    "store.away": _row(WARNING, "Redis can't be used: it is waited for.", "reason"),
    "store.waiting": _row(WARNING, "Redis still can't be used: it is waited for.", "reason seconds"),
    "commit.waiting": _row(WARNING, "A change of a job is not on record yet: it is tried again.", "reason seconds"),
    "answer.too_large": _row(ERROR, "What came back is larger than Redis takes: it is not kept.", "size_bytes reason"),
    "store.back": _row(INFO, "Redis answers again.", "seconds"),
    "store.changed": _row(ERROR, "Redis came back empty, older or as another deployment's; it isn't used.", "reason"),
    "store.known": _row(INFO, "Redis holds the known store again, or operators have accepted this one."),
    "store.cluster": _row(WARNING, "The cluster keeps this store less safe than it could.", "reason"),
    "store.unmarked": _row(WARNING, "What is known of the store could not be kept on disk.", "error"),
    "errands.away": _row(WARNING, "Redis was unavailable for cron and requested tasks.", "error"),
    "arq.hiccup": _row(WARNING, "Redis was unavailable for arq's own bookkeeping.", "error"),
    "queue.full": _row(DEBUG, "A submit was refused: a quota of its app, or the memory of Redis, is used up.", "what"),
    "api.ready": _row(INFO, "The API takes requests.", "host port"),
    "simulator.ready": _row(INFO, "The simulator takes requests.", "host port"),
    "console.logged_in": _row(INFO, "Somebody logged in to the console, with a `key` or a `link`.", "what"),
    "console.login_refused": _row(
        WARNING, "What somebody logged in with is no live key or link; 20 in a minute from an address are told.", "what"
    ),
    "api.answered": _row(DEBUG, "A request was answered.", "http_status"),
    "api.broke": _row(ERROR, "A request failed with an internal error.", "error at"),
    "telemetry.dropped": _row(DEBUG, "An event or field is in no table, or a subscriber failed.", "what"),
}
"""Every event."""

EventHandler = Callable[[str, Mapping[str, object]], None]

_handlers: dict[str, tuple[EventHandler, ...]] = {}
_bound: ContextVar[Mapping[str, object] | None] = ContextVar("vigil_about", default=None)
_strict = False


def set_strict(on: bool = True) -> None:
    """Raise from now on what is otherwise dropped: events and fields in no table, errors of subscribers. For tests."""
    global _strict  # noqa: PLW0603
    _strict = on


def subscribe(handler: EventHandler, names: Iterable[str] | None = None) -> None:
    """Call `handler` with these events (default: all) from now on, in the task that emits them; once per function."""
    for name in EVENTS if names is None else names:
        if handler not in _handlers.get(name, ()):
            _handlers[name] = (*_handlers.get(name, ()), handler)


def unsubscribe(handler: EventHandler) -> None:
    """Stop calling `handler`."""
    for name, handlers in _handlers.items():
        _handlers[name] = tuple(h for h in handlers if h != handler)


class event_context:  # noqa: N801  reads like the contextlib function that it would be, at a third of the price
    """Add these fields to every event that is emitted inside, also by tasks started inside."""

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: object) -> None:
        self._fields = {k: v for k, v in fields.items() if k in COMMON_FIELDS and v}

    def __enter__(self) -> None:
        self._token = _bound.set({**(_bound.get() or {}), **self._fields})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


def emit(name: str, /, **fields: object) -> None:
    """Pass the event to all its subscribers. Raises nothing, unless `set_strict` was called."""
    row = EVENTS.get(name)
    if row is None:
        report_unlisted("event", name)
        return
    if not row.allowed.issuperset(fields):
        for field in sorted(fields.keys() - row.allowed):
            report_unlisted("field", f"{name}.{field}")
            del fields[field]
    bound = _bound.get()
    full = {**bound, **fields} if bound else fields
    for handler in _handlers.get(name, ()):
        try:
            handler(name, full)
        except Exception:
            if _strict:
                raise
            _dropped("event")


def report_unlisted(what: str, name: str) -> None:
    """Count an event or field that is in no table: a programming error, which must not fail the job."""
    if _strict:
        msg = f"telemetry: no table lists the {what} {name!r}"
        raise ValueError(msg)
    _dropped(what)


def _dropped(what: str) -> None:
    with contextlib.suppress(Exception):  # a failing subscriber can't be reported to itself
        for handler in _handlers.get("telemetry.dropped", ()):
            handler("telemetry.dropped", {"what": what})
