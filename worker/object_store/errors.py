"""The errors of the object store, and what the client's own errors mean.

A client's error quotes requests and replies, so nothing of it is shown but the store's short error code.
"""

from __future__ import annotations

import re
from typing import Final

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

_CODE: Final = re.compile(
    r"<Code>([A-Za-z]{3,60})</Code>|\"(?:reason|code)\": ?\"([A-Za-z]{3,60})\"|\(code: ([A-Za-z]{3,60})\)"
)
_MISSING: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "BucketNotFound"})
_DENIED: Final = frozenset(
    {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
)
_NO_KEYS: Final = ("169.254.169.254", "metadata.google.internal", "/oauth2/", "security-credentials")
RAISED: Final = (BaseError, OSError, ValueError, TimeoutError)
"""What a call of the client may raise."""


class ObjectStoreError(Exception):
    """The object store could not do it. `code`: a short word for metrics, `reason`: one line for operators."""

    code = "object_store"

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.reason = reason


class BucketNotFound(ObjectStoreError):
    """There is no such bucket, container or folder."""

    code = "bucket_not_found"


class AccessDenied(ObjectStoreError):
    """The store refuses these keys, or what is done with them; trying again does not help."""

    code = "access_denied"


class StoreUnreachable(ObjectStoreError):
    """The store did not answer, or not in time, or with an error of its own; trying again may help."""

    code = "unreachable"


class ObjectTooLarge(ObjectStoreError):
    """The object is larger than whoever reads it takes."""

    code = "object_too_large"


def translated(what: str, error: BaseException) -> ObjectStoreError:
    """Return what an error of the client means; `what` was being done."""
    text = str(error)
    code = _code(text)
    if code in _MISSING:
        return BucketNotFound(what, "bucket not found")
    denied = isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError))
    if denied or code in _DENIED:
        return AccessDenied(what, f"access denied ({code})" if code else "access denied")
    if isinstance(error, BaseError) and any(part in text for part in _NO_KEYS):
        return AccessDenied(what, "access denied (no keys are set, and this machine has no role of its own)")
    if isinstance(error, BaseError):
        return StoreUnreachable(what, f"unreachable ({code})" if code else "unreachable")
    if isinstance(error, TimeoutError):
        return StoreUnreachable(what, "unreachable (no answer in time)")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return BucketNotFound(what, "folder not found")
    return StoreUnreachable(what, f"unreachable ({getattr(error, 'strerror', None) or type(error).__name__})")


def says_bucket_missing(error: BaseException) -> bool:
    """Return whether a client that found no object found no bucket either."""
    return _code(str(error)) in _MISSING


def _code(text: str) -> str:
    found = _CODE.search(text)
    return next((one for one in found.groups() if one), "") if found else ""
