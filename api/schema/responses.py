"""The schemas of response bodies for the OpenAPI document. Written by hand; a test compares them with responses."""

from __future__ import annotations

from typing import Any, Final, get_args

from worker.jobs.record import BlockCategory, Carrier, DecidedBy, DisclosureReason
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, RetryModelState, SafetyState, Status
from worker.jobs.view import INPUT, OUTPUT, PRIVATE
from worker.safety.access import AccessStatus
from worker.safety.account import State as AccountState
from worker.safety.endpoint import MODES
from worker.safety.packet import Relevance
from worker.store.admission.pauses import UNREADABLE, Kind as PauseKind
from worker.store.admission.quarantine import Source as QuarantineSource

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(**properties: Schema) -> Schema:
    """Return the schema of an object with all of these properties and perhaps more: responses may gain fields."""
    return {"type": "object", "required": list(properties), "properties": properties}


def array_of(item: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": item}


def nullable(schema: Schema) -> Schema:
    """Return the schema that also allows null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*values: str) -> Schema:
    """Return the schema of a string with one of these values."""
    return {"type": "string", "enum": list(values)}


TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
ANY: Final[Schema] = {}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
MONEY: Final[Schema] = {"type": "string", "pattern": r"^\d+\.\d{6,}$"}
MAP: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}

_USAGE = object_of(
    input_tokens=INTEGER,
    cached_input_tokens=INTEGER,
    output_tokens=INTEGER,
    reasoning_tokens=INTEGER,
    total_tokens=INTEGER,
    estimated=BOOLEAN,
    cache_write_tokens=INTEGER,
    cache_write_12h_tokens=INTEGER,
)
DATE: Final[Schema] = {"type": "string", "format": "date"}
PRICE: Final[Schema] = object_of(
    model=TEXT,
    valid_from=nullable(TIME),
    valid_until=nullable(TIME),
    checked_on=nullable(DATE),
    tier=TEXT,
    factor=TEXT,
    window=nullable(TEXT),
    regional=BOOLEAN,
    long_context=BOOLEAN,
    notes=array_of(TEXT),
)
_PROVIDER = object_of(
    code=nullable(TEXT), type=nullable(TEXT), http_status=nullable(INTEGER), request_id=nullable(TEXT)
)
_ERROR = object_of(type=TEXT, code=TEXT, message=TEXT, advice=TEXT, provider=nullable(_PROVIDER))
_BLOCK = object_of(
    category=one_of(*get_args(BlockCategory)),
    code=TEXT,
    carrier=one_of(*get_args(Carrier)),
    after_output=BOOLEAN,
    advice=TEXT,
)
_DISCLOSURE = object_of(
    requested_model=TEXT,
    served_model=TEXT,
    reason=one_of(*get_args(DisclosureReason)),
    decided_by=one_of(*get_args(DecidedBy)),
    capability=one_of("lower", "same", "higher", "unknown"),
    at=TIME,
    message=TEXT,
)
_CHECK = object_of(
    attempt=INTEGER,
    evidence=one_of(*Evidence),
    started_at=TIME,
    ended_at=nullable(TIME),
    seconds=nullable(NUMBER),
    use_cases=array_of(TEXT),
    reasons=array_of(TEXT),
    retry_model=nullable(TEXT),
    retry_model_state=one_of(*RetryModelState),
    repeats=INTEGER,
    ended_by=nullable(one_of(*CheckEnd)),
)
_ATTEMPT = object_of(
    number=INTEGER,
    model=TEXT,
    served_model=nullable(TEXT),
    purpose=one_of(*Purpose),
    because=nullable(one_of(*get_args(DisclosureReason))),
    outcome=nullable(one_of(*Outcome)),
    mode=TEXT,
    client_request_id=TEXT,
    request_id=nullable(TEXT),
    response_id=nullable(TEXT),
    organization=nullable(TEXT),
    project=nullable(TEXT),
    started_at=TIME,
    first_event_at=nullable(TIME),
    first_output_at=nullable(TIME),
    finished_at=nullable(TIME),
    http_status=nullable(INTEGER),
    processing_ms=nullable(INTEGER),
    error=nullable(_ERROR),
    usage=ANY,
    cost=nullable(MONEY),
    price=nullable(PRICE),
    resumed=INTEGER,
    sequence=nullable(INTEGER),
    served_raw=MAP,
    flags=array_of(TEXT),
    service_tier=nullable(TEXT),
    rate_limits=MAP,
    provider_message=nullable(TEXT),
)
_NOTICE = object_of(
    id=TEXT,
    type=TEXT,
    at=TIME,
    received_at=TIME,
    about=one_of("request", "end_user", "account"),
    request_id=nullable(TEXT),
    model=nullable(TEXT),
    category=nullable(TEXT),
    subject=nullable(TEXT),
    request_paused=nullable(BOOLEAN),
    message=TEXT,
    advice=TEXT,
)
JOB: Final[Schema] = object_of(
    id=TEXT,
    object=one_of("job"),
    status=one_of(*Status),
    reason=nullable(TEXT),
    created_at=TIME,
    started_at=nullable(TIME),
    finished_at=nullable(TIME),
    next_attempt_at=nullable(TIME),
    not_before=nullable(TIME),
    priority=one_of("low", "default", "high"),
    requested_model=TEXT,
    served_model=nullable(TEXT),
    disclosure=nullable(_DISCLOSURE),
    output_text=nullable(TEXT),
    output=array_of({"type": "object"}),
    draft=nullable(TEXT),
    draft_model=nullable(TEXT),
    refusal=nullable(TEXT),
    usage=nullable(_USAGE),
    cost=nullable(object_of(currency=TEXT, total=MONEY, wasted=MONEY)),
    cost_reason=nullable(one_of("price_unknown")),
    safety=object_of(
        state=one_of(*SafetyState),
        checks=array_of(_CHECK),
        block=nullable(_BLOCK),
        account_flagged=BOOLEAN,
        notices=array_of(_NOTICE),
    ),
    offer=nullable(object_of(model=TEXT, since=TIME, until=nullable(TIME))),
    hold=nullable(object_of(scope=TEXT, reason=TEXT, since=TIME, by=nullable(TEXT))),
    attempts=array_of(_ATTEMPT),
    error=nullable(_ERROR),
    webhook=nullable(object_of(url=TEXT, state=one_of("pending", "delivered", "exhausted", "gone"))),
    content=one_of("kept", "deleted", "not_stored", "locked"),
    unreadable=array_of(one_of(INPUT, *PRIVATE, OUTPUT)),
    content_removed_at=nullable(TIME),
    metadata=MAP,
    urls=object_of(self=TEXT, events=TEXT, cancel=TEXT, support_packet=TEXT),
)
PROBLEM: Final[Schema] = object_of(
    type=TEXT,
    title=TEXT,
    status=INTEGER,
    detail=TEXT,
    code=TEXT,
    errors=array_of(object_of(pointer=TEXT, detail=TEXT, code=TEXT)),
)
PROBLEM["properties"]["limit"] = object_of(name=TEXT, current=INTEGER, maximum=INTEGER) | {
    "description": "With `queue_full` only: the limit of the app that is reached, its value and its bound."
}
FRAME: Final[Schema] = object_of(event=TEXT, data=TEXT) | {"description": "One server-sent event; `data` is JSON."}
EVENT: Final[Schema] = object_of(
    seq=INTEGER, type=TEXT, at=TIME, job_id=TEXT, attempt=nullable(INTEGER), data={"type": "object"}
)
MODEL: Final[Schema] = object_of(
    id=TEXT,
    object=one_of("model"),
    created=INTEGER,
    owned_by=TEXT,
    family=TEXT,
    tier=one_of("flagship", "balanced", "fast"),
    checked=BOOLEAN,
    input_per_million=nullable(MONEY),
    output_per_million=nullable(MONEY),
    cached_input_per_million=nullable(MONEY),
    price_from=nullable(TIME),
    price_until=nullable(TIME),
    price_checked_on=nullable(DATE),
    efforts_refused=array_of(TEXT),
    shutdown_date=nullable(DATE),
    aliases=array_of(TEXT),
    access=object_of(
        status=one_of(*get_args(AccessStatus)),
        since=nullable(TIME),
        probed_at=nullable(TIME),
        request_id=nullable(TEXT),
        advice=TEXT,
        skipped=BOOLEAN,
        next_probe_at=nullable(TIME),
    ),
)
_ENDPOINT: Final[Schema] = object_of(
    upstream=nullable(one_of(*MODES)),
    fits=nullable(BOOLEAN),
    best=nullable(one_of(*MODES)),
    probed_at=nullable(TIME),
    advice=TEXT,
)
PAUSE: Final[Schema] = object_of(
    scope=one_of(*get_args(PauseKind), UNREADABLE),
    name=nullable(TEXT),
    note=TEXT,
    by=TEXT,
    since=TIME,
    until=nullable(TIME),
)
QUARANTINED: Final[Schema] = object_of(
    end_user=nullable(TEXT),
    safety_identifier=TEXT,
    source=one_of(*get_args(QuarantineSource)),
    reason=TEXT,
    since=TIME,
    until=nullable(TIME),
    by=TEXT,
    checks=INTEGER,
    blocks=INTEGER,
    ledger=object_of(days=INTEGER, checks=INTEGER, blocks=INTEGER, warnings=INTEGER),
)
STATUS: Final[Schema] = object_of(
    queue=object_of(
        queued=INTEGER, scheduled=INTEGER, running=INTEGER, checking=INTEGER, oldest_queued_seconds=nullable(NUMBER)
    ),
    workers=array_of(object_of(id=TEXT, running=INTEGER, beat_at=TIME, draining=BOOLEAN)),
    account=object_of(state=one_of(*get_args(AccountState)), families={"type": "object"}, evidence={"type": "object"}),
    rates=object_of(
        checks=nullable(NUMBER), blocks=nullable(NUMBER), substitutions=nullable(NUMBER), window_seconds=INTEGER
    ),
    circuits=array_of({"type": "object"}),
    pauses=array_of(PAUSE),
)

_WEBHOOK_ENDPOINT: Final[dict[str, Schema]] = {
    "id": TEXT,
    "url": TEXT,
    "events": array_of(TEXT),
    "payload": one_of("thin", "full", "openai"),
    "description": TEXT,
    "state": one_of("active", "paused", "gone"),
    "created_at": TIME,
}
_DELIVERY: Final[Schema] = object_of(
    at=TIME,
    trigger=one_of("scheduled", "manual"),
    status_code=nullable(INTEGER),
    seconds=NUMBER,
    error=nullable(TEXT),
    response_excerpt=nullable(TEXT),
)


def page_of(item: Schema) -> Schema:
    """Return the schema of a page of a list."""
    return object_of(object=one_of("list"), data=array_of(item), next_cursor=nullable(TEXT))


SCHEMAS: Final[dict[str, Schema]] = {
    "Job": JOB,
    "CancelledJob": {"allOf": [ref("Job"), object_of(cancel=object_of(upstream_under_way=BOOLEAN))]},
    "JobList": page_of(ref("Job")),
    "Problem": PROBLEM,
    "Event": EVENT,
    "EventList": page_of(ref("Event")),
    "AuditList": page_of(
        object_of(
            hash=TEXT,
            seq=nullable(INTEGER),
            type=TEXT,
            at=TIME,
            job_id=nullable(TEXT),
            attempt=nullable(INTEGER),
            app=TEXT,
        )
    ),
    "Model": MODEL,
    "ModelList": page_of(ref("Model")),
    "Endpoint": _ENDPOINT,
    "Status": STATUS,
    "Pause": PAUSE,
    "Quarantined": QUARANTINED,
    "QuarantineList": page_of(QUARANTINED),
    "Resumed": object_of(scope=one_of(*get_args(PauseKind)), name=nullable(TEXT), resumed=BOOLEAN, released=INTEGER),
    "Alive": object_of(status=TEXT),
    "SupportPacket": object_of(
        object=one_of("support_packet"),
        job=TEXT,
        status=one_of(*Status),
        created_at=TIME,
        requests=array_of(
            object_of(
                attempt=INTEGER,
                why=one_of(*get_args(Relevance)),
                surface=TEXT,
                model=TEXT,
                organization=TEXT,
                account=TEXT,
                exact_message=TEXT,
                request_id=TEXT,
                timestamp=TEXT,
                vpn_or_proxy=TEXT,
            )
        ),
        notices=array_of(
            object_of(type=TEXT, at=TIME, subject=nullable(TEXT), category=nullable(TEXT), request_id=nullable(TEXT))
        ),
        description=nullable(TEXT),
        redactions=array_of(object_of(detector=TEXT, count=INTEGER)),
        text=TEXT,
    ),
    "Heard": object_of(received=BOOLEAN, duplicate=BOOLEAN),
    "Scale": object_of(
        wanted=INTEGER,
        ready=INTEGER,
        running=INTEGER,
        held=INTEGER,
        workers=INTEGER,
        slots=INTEGER,
        held_back=nullable(TEXT),
    ),
    "BatchAnswer": array_of(
        {
            "type": "object",
            "required": ["index", "status"],
            "properties": {"index": INTEGER, "status": INTEGER, "job": ref("Job"), "problem": ref("Problem")},
        }
    ),
    "WebhookEndpoint": object_of(**_WEBHOOK_ENDPOINT),
    "WebhookEndpointWithSecret": object_of(**_WEBHOOK_ENDPOINT, secret=TEXT),
    "WebhookEndpointList": page_of(ref("WebhookEndpoint")),
    "Message": object_of(
        id=TEXT,
        type=TEXT,
        seq=INTEGER,
        url=nullable(TEXT),
        endpoint=nullable(TEXT),
        state=one_of("pending", "delivered", "exhausted", "gone"),
        created_at=TIME,
        next_try_at=nullable(TIME),
        deliveries=array_of(_DELIVERY),
    ),
    "MessageList": page_of(ref("Message")),
}
