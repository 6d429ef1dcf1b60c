"""Partitions: the complete stores that one deployment consists of, as VIGIL_REDIS_URL names them. Pure.

An app is pinned to one of them and all that belongs to it is there. The first one is home: it keeps the pins. Ids of
jobs name their partition by a code that is made of its name, so no process has to look it up.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker import redis_address
from worker.jobs.ids import partition_code_of, partition_digits
from worker.redis_address import AddressError

HOME: Final = "home"
"""The name of the first partition, if it has no other."""
MAX_PARTITIONS: Final = 64
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NAMED: Final = re.compile(r"([^:/?#@=]*)=(.*)")
_ADDRESS: Final = re.compile(r"([^:/?#@=]*=)?[A-Za-z+]+://")
_CODE_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Partition:
    """One complete store. `code`: what the ids of its jobs end with, "" for home."""

    name: str
    url: str = field(repr=False)
    code: str = ""

    @property
    def is_home(self) -> bool:
        """Return whether it keeps the pins."""
        return not self.code

    def files(self, **paths: Path | None) -> dict[str, Path]:
        """Return where a partition other than home keeps what home keeps in these files; a folder holds them all."""
        return {
            name: path / f"checkpoints.{self.name}.ndjson"
            if path.is_dir()
            else path.with_name(f"{path.stem}.{self.name}{path.suffix}")
            for name, path in paths.items()
            if path is not None
        }

    def named(self, error: Exception, text: str) -> str:
        """Return what is wrong, and of which of several addresses that `text` holds."""
        return f"the store {self.name}: {error}" if text.split()[1:] else str(error)


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """Return the partitions that a value of VIGIL_REDIS_URL names: one address, or several with white space between.

    Each may be `name=address`; each but the first must be. Raises AddressError, which shows no address.
    """
    words = [word.removesuffix(",") for word in text.split()]
    if len(words) < 2 or any(_ADDRESS.match(word) is None for word in words):  # noqa: PLR2004
        name, url = _split(text)  # a single address may be wrong in ways that splitting would hide
        redis_address.parse(url)
        return (Partition(name or HOME, url),)
    if len(words) > MAX_PARTITIONS:
        raise AddressError(f"names {len(words)} stores, and a deployment has at most {MAX_PARTITIONS}")
    found = list[Partition]()
    for number, word in enumerate(words, 1):
        try:
            name, url = _split(word)
            redis_address.parse(url)
        except AddressError as error:
            raise AddressError(f"address {number} of {len(words)} {error}") from None
        if not name and number > 1:
            raise AddressError(
                f"address {number} of {len(words)} has no name; write name=redis://… for each but the first: apps are "
                "pinned to a name"
            )
        found.append(Partition(name or HOME, url, "" if number == 1 else code_of(name)))
    _check_distinct(found)
    return tuple(found)


def code_of(name: str) -> str:
    """Return what the ids of the jobs of a partition of this name end with."""
    return partition_digits(int.from_bytes(hashlib.sha256(name.encode()).digest()[:_CODE_BYTES], "big"))


def choose(app: str, names: Sequence[str]) -> str:
    """Return the partition of a new app, by rendezvous hash: one more name takes its share of the new apps alone."""
    return max(names, key=lambda name: hashlib.sha256(f"{name}\0{app}".encode()).digest())


def partition_of_job(job_id: str, partitions: Sequence[Partition]) -> Partition | None:
    """Return the partition that a job's id names, None for one that is not configured; ids without one are home's."""
    code = partition_code_of(job_id)
    return next((one for one in partitions if one.code == code), None)


def _split(word: str) -> tuple[str, str]:
    """Return (the name in front of the address or "", the address)."""
    named = _NAMED.fullmatch(word)
    if named is None:
        return "", word
    if _NAME.fullmatch(named[1]) is None:
        raise AddressError("has a name that is none: 1 to 32 of a-z, 0-9 and -, the first one a letter")
    return named[1], named[2]


def _check_distinct(found: Sequence[Partition]) -> None:
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            raise AddressError(f"names two stores {one.name}; each needs a name of its own")
        twin = next((other.name for other in found if other.code == one.code and other.name != one.name), None)
        if twin is not None:
            raise AddressError(f"has the names {one.name} and {twin}, whose jobs have ids alike; change the newer one")
    places = [_place(one.url) for one in found]
    for place, one in zip(places, found, strict=True):
        if places.count(place) > 1:
            first = found[places.index(place)]
            if first is not one:
                raise AddressError(f"names one database as {first.name} and as {one.name}; each is a store of its own")


def _place(url: str) -> tuple[object, ...]:
    address = redis_address.parse(url)
    return (address.hosts, address.path, address.service, address.db, address.tag)
