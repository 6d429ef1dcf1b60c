"""Parses the address of the object store, strictly: a bucket of S3, Google or Azure, or a folder of this machine.

Keys never stand in the address, so an address may be shown and logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal, get_args

Scheme = Literal["s3", "gs", "az", "file"]
SHAPES: Final[dict[Scheme, str]] = {
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "az": "az://container/prefix",
    "file": "file:///folder",
}
"""How an address of each scheme is written."""

_BUCKETS: Final[dict[Scheme, re.Pattern[str]]] = {
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "az": re.compile(r"[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]"),
}
_NAME: Final = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")
_MAX_PREFIX: Final = 400  # an object's name may have 1024 bytes in all


class BadAddress(ValueError):
    """The address is not valid; the message names the part and how to write it."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where objects are kept. `bucket`: "" for a folder. `prefix`: before each name, without slashes around it."""

    scheme: Scheme
    bucket: str
    prefix: str

    def __str__(self) -> str:
        place = "/".join(part for part in (self.bucket, self.prefix) if part)
        return f"{self.scheme}://{'/' if self.scheme == 'file' else ''}{place}"

    @property
    def folder(self) -> str:
        """Return the absolute path of a folder of this machine."""
        return f"/{self.prefix}"


def parse_address(text: str) -> StoreAddress:
    """Return the parts of an address. Raises BadAddress, which names the first one that is wrong."""
    head, mark, rest = text.strip().partition("://")
    scheme = next((name for name in get_args(Scheme) if name == head), None)
    if not mark or scheme is None:
        raise BadAddress(f"must be one of {', '.join(SHAPES.values())}")
    shape = SHAPES[scheme]
    if "@" in rest:
        raise BadAddress(f"holds a user or a key ({shape}): keys have settings of their own")
    if "?" in rest or "#" in rest:
        raise BadAddress(f"has options behind a ? or # ({shape}): it takes none")
    if scheme == "file":
        return StoreAddress("file", "", _folder(rest, shape))
    bucket, _, prefix = rest.partition("/")
    if _BUCKETS[scheme].fullmatch(bucket) is None:
        raise BadAddress(f"names no bucket that can exist: lower case, digits and hyphens ({shape})")
    return StoreAddress(scheme, bucket, _prefix(prefix.strip("/"), shape))


def is_name(text: str) -> bool:
    """Return whether an object may have this name: letters, digits, `. _ = -`, slashes between, no `.` or `..` part."""
    return _NAME.fullmatch(text) is not None and not {".", ".."}.intersection(text.split("/"))


def _prefix(text: str, shape: str) -> str:
    if text and (not is_name(text) or len(text) > _MAX_PREFIX):
        raise BadAddress(f"has a prefix with other signs than letters, digits and . _ = - between slashes ({shape})")
    return text


def _folder(text: str, shape: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise BadAddress(f"must name a folder by its absolute path ({shape})")
    return str(path).strip("/")
