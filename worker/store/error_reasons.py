"""Explain in plain text why Redis can't be used now, by the error's type and code; its own text is never quoted."""

from __future__ import annotations

import ssl
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError as RedisTimeoutError,
)

WRONG_USER: Final = "Redis does not accept the user or password of VIGIL_REDIS_URL"
NO_RIGHT: Final = "the Redis user may not do what Vigil needs"
FULL: Final = "Redis is full (maxmemory) and takes no writes"
READ_ONLY: Final = "this Redis is a replica and takes no writes"
SLOTS_FORBIDDEN: Final = (
    "the Redis user may not ask which node of the cluster has this store: it lacks +cluster|slots; take the rules of "
    "ops/users.acl"
)
_CLUSTER: Final = "this Redis is a node of a cluster: write the address as redis+cluster://host:port,host:port/tag"
_CODES: Final = {
    "MISCONF": "Redis can't write to its disk and takes no writes",
    "NOREPLICAS": "Redis has too few replicas and takes no writes",
    "MASTERDOWN": "this Redis is a replica that has lost its primary",
    "CLUSTERDOWN": "the Redis cluster is down",
    "MOVED": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "NOAUTH": WRONG_USER,
    "WRONGPASS": WRONG_USER,
    "NOPERM": NO_RIGHT,
    "OOM": FULL,
    "READONLY": READ_ONLY,
    "BUSY": "Redis is busy with a script and answers nothing else",
}
_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (AuthenticationError, WRONG_USER),
    (AuthorizationError, WRONG_USER),
    (NoPermissionError, NO_RIGHT),
    (OutOfMemoryError, FULL),
    (ReadOnlyError, READ_ONLY),
    (BusyLoadingError, "Redis is still reading its data"),
    (RedisTimeoutError, "Redis does not answer in time"),
    (TimeoutError, "Redis does not answer in time"),
)


class ExplainedError(Exception):
    """An error of Redis whose text is its reason, written by Vigil."""


def reason_of(error: BaseException) -> str:
    """Return one line without a full stop that says why, for logs, people and `/readyz`."""
    if isinstance(error, ExplainedError):
        return str(error)
    for kind, reason in _KINDS:
        if isinstance(error, kind):
            return reason
    text = str(error)
    found = _CODES.get(text.partition(" ")[0])
    if found is not None:
        return found
    if "DB index is out of range" in text:
        return "Redis has no database of the number in VIGIL_REDIS_URL"
    if _certificate(error):
        return "the certificate of Redis is not trusted; give its authority as ?ssl_ca_certs= in VIGIL_REDIS_URL"
    if isinstance(error, RedisConnectionError | OSError):
        return "Redis can't be reached at the address of VIGIL_REDIS_URL"
    return f"Redis answered with an error ({type(error).__name__})"


def is_permanent(error: BaseException) -> bool:
    """Return True when waiting does not help: the user, its password or its permissions must be changed."""
    return reason_of(error) in {WRONG_USER, NO_RIGHT, SLOTS_FORBIDDEN}


def _certificate(error: BaseException) -> bool:
    seen, known = error, set[int]()
    while id(seen) not in known:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        known.add(id(seen))
        seen = seen.__cause__ or seen.__context__ or seen
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
