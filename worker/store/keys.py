"""The name of every key that Vigil keeps in Redis, and what is in it. No other file spells one.

vigil:job:<id>          hash    v version · rec record · priv what only the app may see · tok lease token ·
                                gen wake-ups so far · ctl what the API asks of the holder · chain audit head ·
                                cid the ids of the last commits
vigil:in:<id>           string  what was asked: input, instructions, params
vigil:out:<id>          string  what came back
vigil:trail:<id>        list    events in order; index = seq - 1
vigil:text:<id>:<n>     list    pieces of attempt n's text, in order, while it runs
vigil:ready             zset    queued jobs by rank         ┐ an unsettled job stands in exactly one of
vigil:later             zset    scheduled jobs by due time  │ these three, so it can't be forgotten
vigil:leased            zset    running jobs by lease end   ┘
vigil:deadline          zset    waiting jobs by the time they expire
vigil:idx:<app>[:…]     zset    the app's jobs by creation, all and by status, model, end user
vigil:idem:<app>:<d>    string  idempotency key -> fingerprint and job
vigil:audit             stream  one record per event, chained per job
vigil:outbox            zset    webhook messages by due time
vigil:msg:<id>          string  a webhook message;  vigil:msgs:<job> list, the messages of a job
vigil:apikey:<digest>   string  an API key's record;  vigil:apikeys hash, id -> digest
vigil:app:<name>        string  an app's record
vigil:circuit:<scope>   hash    an account's open circuit;  vigil:circuits set, their scopes
vigil:held:<scope>      zset    the jobs a circuit or a pause holds, by since when
vigil:workers           hash    worker id -> its last heartbeat
vigil:secret:<name>     string  a secret that Vigil made for itself, hex
vigil:probe             string  written to learn whether writes are taken
"""

from __future__ import annotations

from typing import Final

JOB: Final = "vigil:job:"
TRAIL: Final = "vigil:trail:"
TEXT: Final = "vigil:text:"
READY: Final = "vigil:ready"
LATER: Final = "vigil:later"
LEASED: Final = "vigil:leased"
DEADLINE: Final = "vigil:deadline"
AUDIT: Final = "vigil:audit"
OUTBOX: Final = "vigil:outbox"
API_KEYS: Final = "vigil:apikeys"
CIRCUITS: Final = "vigil:circuits"
WORKERS: Final = "vigil:workers"
PROBE: Final = "vigil:probe"

WAKE: Final = "vigil:wake"
"""Channel: something is ready to be claimed."""
CHANGED: Final = "vigil:changed"
"""Channel: `<job id> <version> <status>` after every commit."""
CONTROL: Final = "vigil:control"
"""Channel: `<job id>` whose holder should look at `ctl`."""
PIECES: Final = "vigil:pieces"
"""Channel: pieces of running answers, for watchers."""


def job(job_id: str) -> str:
    return JOB + job_id


def asked(job_id: str) -> str:
    return "vigil:in:" + job_id


def answer(job_id: str) -> str:
    return "vigil:out:" + job_id


def trail(job_id: str) -> str:
    return TRAIL + job_id


def text(job_id: str, attempt: int) -> str:
    return f"{TEXT}{job_id}:{attempt}"


def index(app: str, kind: str = "", value: str = "") -> str:
    """All jobs of an app, or those with one status, model or end user."""
    return f"vigil:idx:{app}:{kind}:{value}" if kind else f"vigil:idx:{app}"


def idempotency(app: str, digest: str) -> str:
    return f"vigil:idem:{app}:{digest}"


def message(message_id: str) -> str:
    return "vigil:msg:" + message_id


def messages(job_id: str) -> str:
    return "vigil:msgs:" + job_id


def circuit(scope: str) -> str:
    return "vigil:circuit:" + scope


def held(scope: str) -> str:
    return "vigil:held:" + scope


def api_key(digest: str) -> str:
    return "vigil:apikey:" + digest


def app(name: str) -> str:
    return "vigil:app:" + name


def secret(name: str) -> str:
    return "vigil:secret:" + name
