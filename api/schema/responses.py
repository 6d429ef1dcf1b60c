"""The shapes of answers, for the OpenAPI document. Written by hand, and held against real answers by a test."""

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
from worker.store.admission.quarantine import Source as ShutBy

Shape = dict[str, Any]


def ref(name: str) -> Shape:
    """A reference to a named shape."""
    return {"$ref": f"#/components/schemas/{name}"}


def obj(**properties: Shape) -> Shape:
    """An object with all of these and perhaps more: fields may be added to answers."""
    return {"type": "object", "required": list(properties), "properties": properties}


def many(item: Shape) -> Shape:
    """A list."""
    return {"type": "array", "items": item}


def maybe(shape: Shape) -> Shape:
    """The shape, or null."""
    return {"anyOf": [shape, {"type": "null"}]}


def one_of(*words: str) -> Shape:
    """One of these words."""
    return {"type": "string", "enum": list(words)}


TEXT: Final[Shape] = {"type": "string"}
WHOLE: Final[Shape] = {"type": "integer"}
NUMBER: Final[Shape] = {"type": "number"}
FLAG: Final[Shape] = {"type": "boolean"}
ANY: Final[Shape] = {}
TIME: Final[Shape] = {"type": "string", "format": "date-time"}
MONEY: Final[Shape] = {"type": "string", "pattern": r"^\d+\.\d{6,}$"}
MAP: Final[Shape] = {"type": "object", "additionalProperties": {"type": "string"}}

_USAGE = obj(
    input_tokens=WHOLE,
    cached_input_tokens=WHOLE,
    output_tokens=WHOLE,
    reasoning_tokens=WHOLE,
    total_tokens=WHOLE,
    estimated=FLAG,
)
_PROVIDER = obj(code=maybe(TEXT), type=maybe(TEXT), http_status=maybe(WHOLE), request_id=maybe(TEXT))
_ERROR = obj(type=TEXT, code=TEXT, message=TEXT, advice=TEXT, provider=maybe(_PROVIDER))
_BLOCK = obj(
    category=one_of(*get_args(BlockCategory)),
    code=TEXT,
    carrier=one_of(*get_args(Carrier)),
    after_output=FLAG,
    advice=TEXT,
)
_DISCLOSURE = obj(
    requested_model=TEXT,
    served_model=TEXT,
    reason=one_of(*get_args(DisclosureReason)),
    decided_by=one_of(*get_args(DecidedBy)),
    capability=one_of("lower", "same", "higher", "unknown"),
    at=TIME,
    message=TEXT,
)
_CHECK = obj(
    attempt=WHOLE,
    evidence=one_of(*Evidence),
    started_at=TIME,
    ended_at=maybe(TIME),
    seconds=maybe(NUMBER),
    use_cases=many(TEXT),
    reasons=many(TEXT),
    retry_model=maybe(TEXT),
    retry_model_state=one_of(*RetryModelState),
    repeats=WHOLE,
    ended_by=maybe(one_of(*CheckEnd)),
)
_ATTEMPT = obj(
    number=WHOLE,
    model=TEXT,
    served_model=maybe(TEXT),
    purpose=one_of(*Purpose),
    because=maybe(one_of(*get_args(DisclosureReason))),
    outcome=maybe(one_of(*Outcome)),
    mode=TEXT,
    client_request_id=TEXT,
    request_id=maybe(TEXT),
    response_id=maybe(TEXT),
    organization=maybe(TEXT),
    project=maybe(TEXT),
    started_at=TIME,
    first_event_at=maybe(TIME),
    first_output_at=maybe(TIME),
    finished_at=maybe(TIME),
    http_status=maybe(WHOLE),
    processing_ms=maybe(WHOLE),
    error=maybe(_ERROR),
    usage=ANY,
    cost=maybe(MONEY),
    resumed=WHOLE,
    sequence=maybe(WHOLE),
    served_raw=MAP,
    flags=many(TEXT),
    service_tier=maybe(TEXT),
    rate_limits=MAP,
    provider_message=maybe(TEXT),
)
_NOTICE = obj(
    id=TEXT,
    type=TEXT,
    at=TIME,
    received_at=TIME,
    about=one_of("request", "end_user", "account"),
    request_id=maybe(TEXT),
    model=maybe(TEXT),
    category=maybe(TEXT),
    subject=maybe(TEXT),
    request_paused=maybe(FLAG),
    message=TEXT,
    advice=TEXT,
)
JOB: Final[Shape] = obj(
    id=TEXT,
    object=one_of("job"),
    status=one_of(*Status),
    reason=maybe(TEXT),
    created_at=TIME,
    started_at=maybe(TIME),
    finished_at=maybe(TIME),
    next_attempt_at=maybe(TIME),
    not_before=maybe(TIME),
    priority=one_of("low", "default", "high"),
    requested_model=TEXT,
    served_model=maybe(TEXT),
    disclosure=maybe(_DISCLOSURE),
    output_text=maybe(TEXT),
    output=many({"type": "object"}),
    draft=maybe(TEXT),
    draft_model=maybe(TEXT),
    refusal=maybe(TEXT),
    usage=maybe(_USAGE),
    cost=maybe(obj(currency=TEXT, total=MONEY, wasted=MONEY)),
    safety=obj(
        state=one_of(*SafetyState),
        checks=many(_CHECK),
        block=maybe(_BLOCK),
        account_flagged=FLAG,
        notices=many(_NOTICE),
    ),
    offer=maybe(obj(model=TEXT, since=TIME, until=maybe(TIME))),
    hold=maybe(obj(scope=TEXT, reason=TEXT, since=TIME, by=maybe(TEXT))),
    attempts=many(_ATTEMPT),
    error=maybe(_ERROR),
    webhook=maybe(obj(url=TEXT, state=one_of("pending", "delivered", "exhausted", "gone"))),
    content=one_of("kept", "deleted", "not_stored", "locked"),
    unreadable=many(one_of(INPUT, *PRIVATE, OUTPUT)),
    content_removed_at=maybe(TIME),
    metadata=MAP,
    urls=obj(self=TEXT, events=TEXT, cancel=TEXT, support_packet=TEXT),
)
PROBLEM: Final[Shape] = obj(
    type=TEXT,
    title=TEXT,
    status=WHOLE,
    detail=TEXT,
    code=TEXT,
    errors=many(obj(pointer=TEXT, detail=TEXT, code=TEXT)),
)
FRAME: Final[Shape] = obj(event=TEXT, data=TEXT) | {"description": "One server-sent event; `data` is JSON."}
EVENT: Final[Shape] = obj(seq=WHOLE, type=TEXT, at=TIME, job_id=TEXT, attempt=maybe(WHOLE), data={"type": "object"})
MODEL: Final[Shape] = obj(
    id=TEXT,
    family=TEXT,
    tier=one_of("flagship", "balanced", "fast"),
    checked=FLAG,
    input_per_million=maybe(MONEY),
    output_per_million=maybe(MONEY),
    cached_input_per_million=maybe(MONEY),
    aliases=many(TEXT),
    access=obj(
        status=one_of(*get_args(AccessStatus)),
        since=maybe(TIME),
        probed_at=maybe(TIME),
        request_id=maybe(TEXT),
        advice=TEXT,
        skipped=FLAG,
        next_probe_at=maybe(TIME),
    ),
)
_ENDPOINT: Final[Shape] = obj(
    upstream=maybe(one_of(*MODES)), fits=maybe(FLAG), best=maybe(one_of(*MODES)), probed_at=maybe(TIME), advice=TEXT
)
PAUSE: Final[Shape] = obj(
    scope=one_of(*get_args(PauseKind), UNREADABLE), name=maybe(TEXT), note=TEXT, by=TEXT, since=TIME, until=maybe(TIME)
)
QUARANTINED: Final[Shape] = obj(
    end_user=maybe(TEXT),
    safety_identifier=TEXT,
    source=one_of(*get_args(ShutBy)),
    reason=TEXT,
    since=TIME,
    until=maybe(TIME),
    by=TEXT,
    checks=WHOLE,
    blocks=WHOLE,
    ledger=obj(days=WHOLE, checks=WHOLE, blocks=WHOLE, warnings=WHOLE),
)
STATUS: Final[Shape] = obj(
    queue=obj(queued=WHOLE, scheduled=WHOLE, running=WHOLE, checking=WHOLE, oldest_queued_seconds=maybe(NUMBER)),
    workers=many(obj(id=TEXT, running=WHOLE, beat_at=TIME, draining=FLAG)),
    account=obj(state=one_of(*get_args(AccountState)), families={"type": "object"}, evidence={"type": "object"}),
    rates=obj(checks=maybe(NUMBER), blocks=maybe(NUMBER), substitutions=maybe(NUMBER), window_seconds=WHOLE),
    circuits=many({"type": "object"}),
    pauses=many(PAUSE),
)


def listed(item: Shape) -> Shape:
    """A page of a list."""
    return obj(object=one_of("list"), data=many(item), next_cursor=maybe(TEXT))


SHAPES: Final[dict[str, Shape]] = {
    "Job": JOB,
    "CancelledJob": {"allOf": [ref("Job"), obj(cancel=obj(upstream_under_way=FLAG))]},
    "JobList": listed(ref("Job")),
    "Problem": PROBLEM,
    "Event": EVENT,
    "EventList": listed(ref("Event")),
    "AuditList": listed(
        obj(hash=TEXT, seq=maybe(WHOLE), type=TEXT, at=TIME, job_id=maybe(TEXT), attempt=maybe(WHOLE), app=TEXT)
    ),
    "Model": MODEL,
    "ModelList": listed(ref("Model")),
    "Endpoint": _ENDPOINT,
    "Status": STATUS,
    "Pause": PAUSE,
    "Quarantined": QUARANTINED,
    "QuarantineList": listed(QUARANTINED),
    "Resumed": obj(scope=one_of(*get_args(PauseKind)), name=maybe(TEXT), resumed=FLAG, released=WHOLE),
    "Alive": obj(status=TEXT),
    "SupportPacket": obj(
        object=one_of("support_packet"),
        job=TEXT,
        status=one_of(*Status),
        created_at=TIME,
        requests=many(
            obj(
                attempt=WHOLE,
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
        notices=many(obj(type=TEXT, at=TIME, subject=maybe(TEXT), category=maybe(TEXT), request_id=maybe(TEXT))),
        description=maybe(TEXT),
        redactions=many(obj(detector=TEXT, count=WHOLE)),
        text=TEXT,
    ),
    "Heard": obj(received=FLAG, duplicate=FLAG),
    "Scale": obj(
        wanted=WHOLE, ready=WHOLE, running=WHOLE, held=WHOLE, workers=WHOLE, slots=WHOLE, held_back=maybe(TEXT)
    ),
    "BatchAnswer": many(
        {
            "type": "object",
            "required": ["index", "status"],
            "properties": {"index": WHOLE, "status": WHOLE, "job": ref("Job"), "problem": ref("Problem")},
        }
    ),
}
