"""Name every key that Vigil keeps in Redis. No other file spells a key; ops/design/redis-keys.md describes values."""

from __future__ import annotations

from typing import Final

from worker.jobs.account_name import DEFAULT_ACCOUNT

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
API_HEARTBEATS: Final = "vigil:apibeats"
MIGRATIONS: Final = "vigil:migrations"
MIGRATION_LOCK: Final = "vigil:migrating"
ERASURE_DUE: Final = "vigil:forget"
OUTPUT_OBJECTS: Final = "vigil:objects"
OBJECTS_LOCK: Final = "vigil:objectsweep"
UNARCHIVED: Final = "vigil:unarchived"
AUDIT: Final = "vigil:audit"
NOTE_COUNT: Final = "vigil:acts"
RETENTION_SEAL: Final = "vigil:retained"
RETENTION_TIMES: Final = "vigil:keeptimes"
RETENTION_AGAIN: Final = "vigil:retainagain"
LEGAL_HOLDS: Final = "vigil:holds"
LEGAL_HOLD_NOTES: Final = "vigil:holdnotes"
SETTLED: Final = "vigil:settled"
COMPACTION_DUE: Final = "vigil:compactdue"
SEALS: Final = "vigil:seals"
SEALING_LOCK: Final = "vigil:sealing"
ARCHIVE: Final = "vigil:sealarchive"
ARCHIVING_LOCK: Final = "vigil:sealarchiving"
OUTBOX: Final = "vigil:outbox"
ROUTER_LOCK: Final = "vigil:router"
HOLDING_BACK: Final = "vigil:heldback"
HELD_BACK: Final = "vigil:heldback:"
TARGETS: Final = "vigil:targets"
SENDING: Final = "vigil:sending"
SEND_COUNTER: Final = "vigil:sends"
TARGET_FAILURES: Final = "vigil:fails"
FAILING_ENDPOINTS: Final = "vigil:failing"
PAUSED_TARGETS: Final = "vigil:parked"
TARGET_QUEUE: Final = "vigil:queue:"
IN_FLIGHT: Final = "vigil:flying:"
ALLOWANCE: Final = "vigil:allowance:"
DELAYED: Final = "vigil:delayed:"
MESSAGE: Final = "vigil:msg:"
BODY: Final = "vigil:body:"
API_KEYS: Final = "vigil:apikeys"
KEY_USES: Final = "vigil:keyused"
PAUSES: Final = "vigil:pauses"
HOLDING_SCOPES: Final = "vigil:paused"
PAUSE: Final = "vigil:pause:"
QUARANTINE: Final = "vigil:quarantine"
CANCELLATION_DUE: Final = "vigil:clearing"
QUARANTINE_ENDS: Final = "vigil:quarantineends"
UNNOTED_QUARANTINES: Final = "vigil:unnoted"
LIFTED: Final = "vigil:lifted"
APPEAL: Final = "vigil:appeal:"
APPEALS_OVER: Final = "vigil:appealsover"
APPEALS: Final = "vigil:appeals:"
CIRCUITS: Final = "vigil:circuits"
ACCESS: Final = "vigil:access"
RECEIVED_WEBHOOKS: Final = "vigil:heard"
NOTICE: Final = "vigil:notice:"
CONVERSATION: Final = "vigil:conv:"
NOTICES: Final = "vigil:notices"
NOTICES_DUE: Final = "vigil:notices:due"
WORKERS: Final = "vigil:workers"
PROBE: Final = "vigil:probe"
UNMOVED: Final = "vigil:unmoved"
DEPLOYMENT: Final = "vigil:deployment"
ACCEPTED: Final = "vigil:accepted"
PARTITION: Final = "vigil:partition"
PINS, PINNED = "vigil:pins", "vigil:pinned"
METERS: Final = "vigil:meters"
LIMITS: Final = "vigil:limits"
LIMIT_LINE: Final = "vigil:limitline:"
CHECK_COUNT: Final = "vigil:looks"
INCIDENTS: Final = "vigil:incidents"

COMPLETE: Final = "complete"
"""The field of an app's terms that says since when all its jobs have theirs."""

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
    """Return the index of all jobs of an app, or of those with one status, model, end user or term."""
    return f"vigil:idx:{app}:{kind}:{value}" if kind else f"vigil:idx:{app}"


def terms(app: str) -> str:
    return "vigil:terms:" + app


def group(app: str, name: str) -> str:
    return f"vigil:group:{app}:{name}"


def grouped(app: str, name: str) -> str:
    return f"vigil:grouped:{app}:{name}"


def app_queue(app: str) -> str:
    return "vigil:line:" + app


def slots(app: str) -> str:
    return "vigil:slots:" + app


def meter(name: str) -> str:
    return "vigil:meter:" + name


def limit_apps(limit: str) -> str:
    return "vigil:limit:" + limit


def limit_line(limit: str, app: str) -> str:
    return f"{LIMIT_LINE}{limit}:{app}"


def places(limit: str) -> str:
    return "vigil:places:" + limit


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


def account_scope(account: str) -> str:
    """Return the key of the scope under which this account was probed last."""
    return ACCESS if account == DEFAULT_ACCOUNT else f"vigil:accountscope:{account}"


def endpoint_fit(scope: str) -> str:
    return "vigil:endpoint:" + scope


def access_probe_lock(scope: str) -> str:
    return "vigil:accessturn:" + scope


def conversation(app: str, conversation_id: str) -> str:
    return f"{CONVERSATION}{app}:{conversation_id}"


def ref(kind: str, name: str) -> str:
    return f"vigil:ref:{kind}:{name}"


def received_webhook(digest: str) -> str:
    return f"{RECEIVED_WEBHOOKS}:{digest}"


def relayed(kind: str, name: str) -> str:
    return f"vigil:relayed:{kind}:{name}"


def notice(notice_id: str) -> str:
    return NOTICE + notice_id


def tally(bucket: int, account: str = DEFAULT_ACCOUNT) -> str:
    return f"vigil:tally:{bucket}" + ("" if account == DEFAULT_ACCOUNT else f":{account}")


def durations(day: int) -> str:
    return f"vigil:durations:{day}"


def loss_apps(week: str) -> str:
    return "vigil:lossapps:" + week


def losses(week: str, app: str) -> str:
    return f"vigil:losses:{week}:{app}"


def loss_end_users(week: str, app: str) -> str:
    return f"vigil:losspeople:{week}:{app}"


def end_user_losses(week: str, app: str, safety_identifier: str) -> str:
    return f"vigil:loss:{week}:{app}:{safety_identifier}"


def checked_end_users(bucket: int, model: str, account: str = DEFAULT_ACCOUNT) -> str:
    own = "" if account == DEFAULT_ACCOUNT else f"{account}|"  # no model's name begins so
    return f"vigil:people:{bucket}:{own}{model}"


def account_state(name: str, account: str = DEFAULT_ACCOUNT) -> str:
    return "vigil:standing:" + ("" if account == DEFAULT_ACCOUNT else f"{account}|") + name


def api_key(digest: str) -> str:
    return "vigil:apikey:" + digest


def console_session(digest: str) -> str:
    return "vigil:console:" + digest


def console_sessions(key_id: str) -> str:
    return "vigil:consoles:" + key_id


def console_link(digest: str) -> str:
    return "vigil:consolelink:" + digest


def app(name: str) -> str:
    return "vigil:app:" + name


def chain_records(chain: str) -> str:
    return "vigil:audited:" + chain


def content_reads(app: str) -> str:
    return "vigil:reads:" + app


def read_mark(digest: str) -> str:
    return "vigil:readmark:" + digest


def tried_messages(app: str) -> str:
    return "vigil:tried:" + app


def undelivered_messages(app: str) -> str:
    return "vigil:undelivered:" + app


def appeal_notes(app: str, safety_identifier: str) -> str:
    return f"{APPEALS}{app}:{safety_identifier}"


def quarantine_log(safety_identifier: str) -> str:
    return "vigil:quarantinelog:" + safety_identifier


def appeal(app: str, appeal_id: str) -> str:
    return f"{APPEAL}{app}:{appeal_id}"


def appeal_index(app: str, kind: str = "", value: str = "") -> str:
    """Return the index of all appeals of an app, or of those of an end user, a job, or a case of the provider."""
    return f"vigil:appealidx:{app}:{kind}:{value}" if kind else f"vigil:appealidx:{app}"


def flagged_end_users(app: str) -> str:
    return "vigil:flagged:" + app


def rate(app_name: str) -> str:
    return "vigil:rate:" + app_name


def warning(what: str) -> str:
    return "vigil:warned:" + what


def secret(name: str) -> str:
    return "vigil:secret:" + name


def aside(key: str) -> str:
    return ASIDE + key
