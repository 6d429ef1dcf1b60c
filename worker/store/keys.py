"""Name every key that Vigil keeps in Redis, and describe its value. No other file spells a key.

vigil:job:<id>          hash    v version · rec record · priv what only the app may see, with the job's wrapped key
                                before it (envelope.py) · tok lease token · gen number of claims so far · ctl what the
                                API asks of the holder · chain end of the audit chain · cid ids of the last commits ·
                                ntc names of notices about it · app, rank, stops: what scripts read of it
vigil:in:<id>           string  the input: input, instructions, params
vigil:out:<id>          string  the output of the model
vigil:upload:<id>       string  images and files of an input, before their job exists
vigil:trail:<id>        list    events in order; index = seq - 1
vigil:text:<id>:<n>     list    chunks of attempt n's text, in order, while it runs
vigil:shown:<id>        hash    attempt -> chunks of its text that the OpenAI-compatible API has streamed; check:<n> ->
                                where it told of a safety check, and what; no content
vigil:ready             zset    queued jobs by rank         ┐ an unsettled job is in exactly one of
vigil:later             zset    scheduled jobs by due time  │ these three, so that none is forgotten
vigil:leased            zset    running jobs by lease end   ┘
vigil:line:<app>        zset    the app's ready jobs, in the order in which they are claimed
vigil:slots:<app>       set     the app's leased jobs
vigil:size:<app>        hash    job id -> bytes of its content: input, output, private part; `total`, their sum
vigil:sizedue:<app>     zset    jobs by when some of that content expires
vigil:ring              zset    apps with ready jobs by virtual time;  vigil:hand, the virtual time it has reached
vigil:deadline          zset    waiting jobs by the time they expire
vigil:forget            zset    settled jobs whose content is to be erased, or was just erased, by when to check them
vigil:idx:<app>[:…]     zset    the app's jobs by creation, all and by status, model, end user
vigil:idem:<app>:<d>    string  idempotency key -> fingerprint and job
vigil:callers:<app>:<d> hash    job -> the request of an SDK that waits for its answer, by the request's keyed digest
vigil:apis              zset    API processes by when they count as dead, while requests of SDKs wait in them
vigil:audit             stream  one record per event, chained per job
vigil:audited:<chain>   list    ids of a chain's records in that stream; <chain> is a job's id or `app:<name>`
vigil:seals             list    signed seals over that stream, in order;  vigil:sealing, lock of the worker that seals
vigil:retained          string  the last of them that says what retention removed
vigil:holds             set     what a legal hold keeps: ids of jobs, `app:<name>`;  vigil:holdnotes hash, who and why
vigil:settled           zset    settled jobs by the end of their retention time: then their leftovers are cleared away
vigil:acts              string  how many audit records are notes, that is no events of a job
vigil:outbox            zset    entries that are not routed to a target yet: ids of messages of jobs' own webhooks, and
                                `<job>:<seq>:<event>` for the standing endpoints of the job's app; by time, and within
                                a millisecond by seq; those of one app at least 20 ms apart, so that an app that
                                adds many stands behind those that add few;  vigil:outboxclock:<app> string, the last
                                score of an app's entries
vigil:router            string  lock of the worker that routes these entries to their targets
vigil:msg:<id>          string  a webhook message;  vigil:body:<id> its body and URL;  vigil:tries:<id> list, its
                                receipts
vigil:msgs:<job>        list    the messages of the job's own webhook;  vigil:emsgs:<job> list, those of endpoints
vigil:targets           zset    targets (an endpoint; an app's receiver of per-job webhooks) by when they are due
vigil:queue:<target>    zset    `<job>:<seq>:<message>` by due time
vigil:flying:<target>   hash    job id -> token of the one message that is being sent
vigil:sending           zset    `<target>|<job>:<seq>:<message>` by lease end
vigil:sends             string  a counter that makes tokens unique
vigil:fails             hash    target -> failed tries in a row
vigil:parked            set     targets that are paused
vigil:allowance:<name>  hash    how many messages a receiver may get from an app; `app:<app>`, how many all of its
                                receivers may that have not acknowledged the last one
vigil:delayed:<name>    zset    targets that wait for that allowance, or as `full:<app>` for a place, by when they were
                                due; `delayed|<name>` stands for them in vigil:targets
vigil:refused:<job>     string  the job's own webhook has answered 410
vigil:endpoints:<app>   hash    id -> a standing endpoint;  vigil:hears:<app> set, the events that they want
vigil:apikey:<digest>   string  an API key's record;  vigil:apikeys hash, id -> digest
vigil:app:<name>        string  an app's record
vigil:rate:<app>        string  when the app's token bucket will be full again, microseconds
vigil:circuit:<scope>   hash    an account's open circuit;  vigil:circuits set, their scopes
vigil:held:<scope>      zset    the jobs that a circuit or a pause holds, by since when
vigil:pauses            zset    scopes of pauses by when they end;  vigil:pause:<scope> string, who paused it and why;
                                vigil:paused, set of scopes of pauses that may hold jobs
vigil:quarantine        hash    safety identifier -> why and until when the end user is quarantined;  vigil:clearing
                                set, those whose waiting jobs are to be cancelled;  vigil:lifted hash, when the
                                quarantine was lifted, ms
vigil:ledger:<kind>:<id> zset   an end user's checks, blocks or warnings, `<job>:<seq>` or a notice's id, by time
vigil:access:<scope>    hash    model -> what is known of its access;  vigil:access, the scope that was probed last;
                                vigil:accessturn:<scope>, lock of the worker that probes
vigil:ref:<kind>:<name> string  a request's or response's job; the app of an end user's safety identifier
vigil:heard:<digest>    string  mark of a webhook of the provider that was received;  vigil:heard hash, type -> how many
vigil:notice:<id>       string  a notice of the provider about a request, an end user or the account
vigil:notices           zset    their ids by when they came;  vigil:notices:due zset, those to process, by due time
vigil:tally:<bucket>    hash    `<model>|<field>` -> how many, in ten minutes;  vigil:people:<bucket>:<model> how many
                                end users were checked (HyperLogLog)
vigil:durations:<day>   hash    `<model>|<kind>|<bucket>` -> how many checks or calls lasted so long
vigil:standing:<name>   string  the state of the account, or of a family, that was reported last
vigil:workers           hash    worker id -> its last heartbeat
vigil:warned:<what>     string  operators were warned of this lately: no process warns again
vigil:secret:<name>     string  a secret that Vigil created for itself, hex, sealed when there are master keys
vigil:deployment        string  the id of this store, created once: how processes recognise it (store_mark.py)
vigil:looks             string  a counter of how often processes have checked it
vigil:accepted          string  the same id, for a day after operators accepted this store
vigil:probe             string  written to find out whether writes are accepted
vigil:aside:<key>       any     the unreadable value of <key>, kept for 30 days: of a job's hash the bytes of its
                                record, else the whole value;  vigil:asides zset, those keys by when (that the trail
                                was is kept for ever: marks of the store may name its records)
"""

from __future__ import annotations

import re
from typing import Final

JOB: Final = "vigil:job:"
TRAIL: Final = "vigil:trail:"
TEXT: Final = "vigil:text:"
READY: Final = "vigil:ready"
LATER: Final = "vigil:later"
LEASED: Final = "vigil:leased"
RING: Final = "vigil:ring"
RING_POSITION: Final = "vigil:hand"
DEADLINE: Final = "vigil:deadline"
API_PROCESSES: Final = "vigil:apis"
ERASURE_DUE: Final = "vigil:forget"
AUDIT: Final = "vigil:audit"
NOTE_COUNT: Final = "vigil:acts"
RETENTION_SEAL: Final = "vigil:retained"
LEGAL_HOLDS: Final = "vigil:holds"
LEGAL_HOLD_NOTES: Final = "vigil:holdnotes"
SETTLED: Final = "vigil:settled"
SEALS: Final = "vigil:seals"
SEALING_LOCK: Final = "vigil:sealing"
OUTBOX: Final = "vigil:outbox"
ROUTER_LOCK: Final = "vigil:router"
TARGETS: Final = "vigil:targets"
SENDING: Final = "vigil:sending"
SEND_COUNTER: Final = "vigil:sends"
TARGET_FAILURES: Final = "vigil:fails"
PAUSED_TARGETS: Final = "vigil:parked"
TARGET_QUEUE: Final = "vigil:queue:"
IN_FLIGHT: Final = "vigil:flying:"
ALLOWANCE: Final = "vigil:allowance:"
DELAYED: Final = "vigil:delayed:"
MESSAGE: Final = "vigil:msg:"
BODY: Final = "vigil:body:"
API_KEYS: Final = "vigil:apikeys"
PAUSES: Final = "vigil:pauses"
HOLDING_SCOPES: Final = "vigil:paused"
PAUSE: Final = "vigil:pause:"
QUARANTINE: Final = "vigil:quarantine"
CANCELLATION_DUE: Final = "vigil:clearing"
LIFTED: Final = "vigil:lifted"
CIRCUITS: Final = "vigil:circuits"
ACCESS: Final = "vigil:access"
RECEIVED_WEBHOOKS: Final = "vigil:heard"
NOTICE: Final = "vigil:notice:"
NOTICES: Final = "vigil:notices"
NOTICES_DUE: Final = "vigil:notices:due"
WORKERS: Final = "vigil:workers"
PROBE: Final = "vigil:probe"
DEPLOYMENT: Final = "vigil:deployment"
ACCEPTED: Final = "vigil:accepted"
CHECK_COUNT: Final = "vigil:looks"

ASIDE: Final = "vigil:aside:"
ASIDES: Final = "vigil:asides"
ASIDE_SECONDS: Final = 30 * 86_400


def job(job_id: str) -> str:
    return JOB + job_id


def job_input(job_id: str) -> str:
    return "vigil:in:" + job_id


def upload(job_id: str) -> str:
    return "vigil:upload:" + job_id


def job_output(job_id: str) -> str:
    return "vigil:out:" + job_id


def trail(job_id: str) -> str:
    return TRAIL + job_id


def text(job_id: str, attempt: int) -> str:
    return f"{TEXT}{job_id}:{attempt}"


def streamed_chunks(job_id: str) -> str:
    return "vigil:shown:" + job_id


def index(app: str, kind: str = "", value: str = "") -> str:
    """Return the index of all jobs of an app, or of those with one status, model or end user."""
    return f"vigil:idx:{app}:{kind}:{value}" if kind else f"vigil:idx:{app}"


def app_queue(app: str) -> str:
    return "vigil:line:" + app


def slots(app: str) -> str:
    return "vigil:slots:" + app


def content_sizes(app: str) -> str:
    return "vigil:size:" + app


def content_expiry(app: str) -> str:
    return "vigil:sizedue:" + app


def idempotency(app: str, digest: str) -> str:
    return f"vigil:idem:{app}:{digest}"


def callers(app: str, digest: str) -> str:
    return f"vigil:callers:{app}:{digest}"


def message(message_id: str) -> str:
    return MESSAGE + message_id


def body(message_id: str) -> str:
    return BODY + message_id


def tries(message_id: str) -> str:
    return "vigil:tries:" + message_id


def messages(job_id: str) -> str:
    return "vigil:msgs:" + job_id


def endpoint_messages(job_id: str) -> str:
    return "vigil:emsgs:" + job_id


def webhook_refused(job_id: str) -> str:
    return "vigil:refused:" + job_id


def outbox_clock(app: str) -> str:
    return f"vigil:outboxclock:{app}"


def target_queue(target: str) -> str:
    return TARGET_QUEUE + target


def in_flight(target: str) -> str:
    return IN_FLIGHT + target


def endpoints(app: str) -> str:
    return "vigil:endpoints:" + app


def endpoint_events(app: str) -> str:
    return "vigil:hears:" + app


def circuit(scope: str) -> str:
    return "vigil:circuit:" + scope


def held_jobs(scope: str) -> str:
    return "vigil:held:" + scope


def pause(scope: str) -> str:
    return PAUSE + scope


def ledger(safety_identifier: str, kind: str) -> str:
    return f"vigil:ledger:{kind}:{safety_identifier}"


def access(scope: str) -> str:
    return f"{ACCESS}:{scope}"


def endpoint_fit(scope: str) -> str:
    return "vigil:endpoint:" + scope


def access_probe_lock(scope: str) -> str:
    return "vigil:accessturn:" + scope


def ref(kind: str, name: str) -> str:
    return f"vigil:ref:{kind}:{name}"


def received_webhook(digest: str) -> str:
    return f"{RECEIVED_WEBHOOKS}:{digest}"


def notice(notice_id: str) -> str:
    return NOTICE + notice_id


def tally(bucket: int) -> str:
    return f"vigil:tally:{bucket}"


def durations(day: int) -> str:
    return f"vigil:durations:{day}"


def checked_end_users(bucket: int, model: str) -> str:
    return f"vigil:people:{bucket}:{model}"


def account_state(name: str) -> str:
    return "vigil:standing:" + name


def api_key(digest: str) -> str:
    return "vigil:apikey:" + digest


def app(name: str) -> str:
    return "vigil:app:" + name


def chain_records(chain: str) -> str:
    return "vigil:audited:" + chain


def rate(app_name: str) -> str:
    return "vigil:rate:" + app_name


def warning(what: str) -> str:
    return "vigil:warned:" + what


def secret(name: str) -> str:
    return "vigil:secret:" + name


def aside(key: str) -> str:
    return ASIDE + key


KINDS: Final = frozenset(re.findall(r"vigil:([a-z]+)", __doc__))
"""The kinds of keys in the table above: the word behind `vigil:`."""


def kind_of(key: str) -> str:
    """Return the kind of a key; "other" for one that is not in the table above."""
    kind = key.split(":")[1] if key.startswith("vigil:") else ""
    return kind if kind in KINDS else "other"
