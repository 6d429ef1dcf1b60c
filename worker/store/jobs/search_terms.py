"""The indexes of an app's jobs: which of them hold a job, and the commands that keep them so. Pure.

A job is in the indexes of all jobs, of its status, its model and its end user, and in one for each of its *terms*: each
pair of its metadata, the model that served, the codes of its error or block. Its row in `vigil:terms:<app>` lists the
terms, so that it can be removed from their indexes without its record. Metadata is in a term as a keyed digest only.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final
from urllib.parse import quote

from worker.clock import to_ms
from worker.jobs.record import Job
from worker.store import keys
from worker.store.commands import Command

METADATA: Final = "meta"
SERVED: Final = "served"
CODE: Final = "code"
RERUN: Final = "rerun"
GROUP: Final = "group"
_DIGEST_BYTES: Final = 8
_MAX_VALUE: Final = 200  # characters; longer values share an index, and the record tells them apart


def metadata_term(secret: bytes, app: str, key: str, value: str) -> str:
    """Return the term of one pair of metadata."""
    # the JSON of ["metadata", app, key, value], in a third of the time: each submit makes some of these
    named = f'["metadata", {_quoted(app)}, {_quoted(key)}, {_quoted(value)}]'.encode()
    digest = hmac.digest(secret, named, "sha256")[:_DIGEST_BYTES]
    return f"{METADATA}:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def metadata_terms(secret: bytes, app: str, metadata: Mapping[str, Any]) -> list[str]:
    """Return the terms of a job's metadata."""
    return [metadata_term(secret, app, key, str(value)) for key, value in metadata.items()]


def value_term(kind: str, value: str) -> str:
    """Return the term of a served model or a code."""
    return f"{kind}:{quote(value, safe='', errors='replace')[:_MAX_VALUE]}"


def first_terms(secret: bytes, job: Job, metadata: Mapping[str, Any]) -> list[str]:
    """Return the terms that a job has from its submission on."""
    rerun = [value_term(RERUN, job.rerun_root)] if job.rerun_root else []
    group = [value_term(GROUP, job.group)] if job.group else []
    return [*metadata_terms(secret, job.app, metadata), *rerun, *group]


def codes_of(job: Job) -> set[str]:
    """Return the codes of the job's error and block: Vigil's own, and the provider's."""
    codes: set[str | None] = set()
    if job.error is not None:
        codes |= {job.error.code, job.error.provider.code if job.error.provider else None}
    if job.block is not None:
        codes.add(job.block.code)
    return {code for code in codes if code}


def end_terms(job: Job) -> list[str]:
    """Return the terms that a settled job has from its end on."""
    served = [value_term(SERVED, job.served_model)] if job.served_model else []
    return [*served, *(value_term(CODE, code) for code in sorted(codes_of(job)))]


def terms_command(job: Job, terms: Iterable[str], *, first: bool = False) -> Command:
    """Return what a script runs to add the job to the indexes of these terms; `first`: the job is new and has none."""
    word = "TERMS" if first else "MORETERMS"
    return (word, keys.terms(job.app), keys.index(job.app) + ":", job.id, to_ms(job.created_at), *terms)


def forget_terms_command(app: str, job_id: str, kind: str = "") -> Command:
    """Return what a script runs to remove the job from the indexes of its terms: of all, or of those of one kind."""
    return ("FORGET", keys.terms(app), keys.index(app) + ":", job_id, f"{kind}:" if kind else "")


def indexes_of_terms(app: str, row: bytes | None) -> list[str]:
    """Return the indexes of the terms in a job's row; none without one."""
    return [keys.index(app, *term.split(":", 1)) for term in (row or b"").decode(errors="replace").split()]


def index_commands(before: Job | None, after: Job) -> list[Command]:
    """Return the commands that a change of status adds; not those of the terms that a job is submitted with."""
    score, status = to_ms(after.created_at), keys.index(after.app, "status", after.status)
    commands: list[Command] = []
    if before is None:
        names = [keys.index(after.app), keys.index(after.app, "model", after.requested_model), status]
        if after.safety_identifier:
            names.append(keys.index(after.app, "user", after.safety_identifier))
        commands.append(("INDEX", score, after.id, *names))
    else:
        commands.append(("ZREM", keys.index(after.app, "status", before.status), after.id))
        commands.append(("ZADD", status, score, after.id))
    if after.settled and (terms := end_terms(after)):
        commands.append(terms_command(after, terms))
    return commands
