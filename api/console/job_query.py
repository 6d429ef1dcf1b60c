"""What the address of the Jobs page asks for: its filters, and the addresses, chips and command that they make. Pure.

The parameters are those of `GET /v1/jobs`. A time may also be an age, such as `-24h`, so that a bookmark stays useful.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlencode

from api.jobs.search import FILTERS, REPEATABLE
from worker.jobs import ids
from worker.jobs.states import Status
from worker.jobs.timestamps import iso_utc

Pair = tuple[str, str]

PATH: Final = "/jobs"
LABELS: Final = {
    "status": "status",
    "model": "model asked",
    "served_model": "model served",
    "code": "code",
    "end_user": "end user",
    "metadata": "metadata",
    "request_id": "request id",
    "response_id": "response id",
    "created_after": "created after",
    "created_before": "created before",
}
"""Of each filter, for people."""
TIMES: Final = ("created_after", "created_before")
_GUESSED: Final = ("end_user", "code", "model", "served_model", "request_id", "response_id")
"""What a text that is none of the known forms may be."""
_ORDER: Final = {name: number for number, name in enumerate(FILTERS)}
_STATUSES: Final = {str(status): number for number, status in enumerate(Status)}
_MAX_AGE_DAYS: Final = 36_500
_AGE: Final = re.compile(r"-([0-9]{1,6})(m|h|d)")
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,6})?)?)?")
_JOB_ID: Final = re.compile(r"(?<![A-Za-z0-9_])job_[0-9a-z]{26}(?:[0-9a-z]{3})?(?![0-9a-z])")
_RESPONSE_ID: Final = re.compile(r"(?:resp_|chatcmpl-)[A-Za-z0-9_\-]+")
_REQUEST_ID: Final = re.compile(r"req_[A-Za-z0-9_\-]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Chip(NamedTuple):
    """A filter that is set, and the address of the page without it."""

    label: str
    value: str
    address: str


class SearchText(NamedTuple):
    """What a text in the search box stands for: a job, a filter, or, with `choices`, what it may be."""

    job_id: str | None = None
    filters: tuple[Pair, ...] = ()
    names_one: bool = False
    """The filter names one job, wherever it is: the other filters do not count."""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobQuery:
    """The filters of the page, each a name and a value, in the order of `FILTERS`."""

    pairs: tuple[Pair, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Pair]) -> JobQuery:
        """Read the filters among these parameters: without empty ones, and without what is said twice."""
        found: dict[Pair, None] = {}
        for name, sent in items:
            values = sent.split(",") if name == "status" else [sent]
            for value in (one.strip() for one in values):
                if name not in LABELS or not value:
                    continue
                if name not in REPEATABLE:
                    found = {pair: None for pair in found if pair[0] != name}
                found[name, _time(value) if name in TIMES else value] = None
        return cls(tuple(sorted(found, key=_place)))

    def __bool__(self) -> bool:
        """Return whether there is a filter."""
        return bool(self.pairs)

    def values(self, name: str) -> list[str]:
        """Return the values of a filter."""
        return [value for key, value in self.pairs if key == name]

    def value(self, name: str) -> str:
        """Return the value of a filter that has at most one; "" if it is not set."""
        return next(iter(self.values(name)), "")

    @property
    def params(self) -> dict[str, list[str]]:
        """Return the filters as the parameters of a query."""
        return {name: self.values(name) for name in dict.fromkeys(name for name, _ in self.pairs)}

    def also(self, *pairs: Pair) -> JobQuery:
        """Return these filters and some more, which replace those of the same name that can't be repeated."""
        return JobQuery.of((*self.pairs, *pairs))

    def but(self, *pairs: Pair) -> JobQuery:
        """Return these filters without some."""
        return JobQuery(tuple(pair for pair in self.pairs if pair not in pairs))

    def toggled(self, status: str) -> JobQuery:
        """Return these filters with this status if they lack it, without it if they have it."""
        pair = ("status", status)
        return self.but(pair) if pair in self.pairs else self.also(pair)

    def at(self, now: datetime) -> JobQuery:
        """Return the filters with the times that ages stand for now."""
        changed = ((name, _time_of_age(value, now) if name in TIMES else value) for name, value in self.pairs)
        return replace(self, pairs=tuple(changed))

    def address(self, **more: str) -> str:
        """Return the address of the page with these filters, and more parameters."""
        query = urlencode([*self.pairs, *((name, value) for name, value in more.items() if value)])
        return f"{PATH}?{query}" if query else PATH

    def chips(self) -> list[Chip]:
        """Return the filters but the known statuses, which have links of their own."""
        shown = (pair for pair in self.pairs if pair[0] != "status" or pair[1] not in _STATUSES)
        return [Chip(LABELS[name], value, self.but((name, value)).address()) for name, value in shown]

    def command(self) -> str:
        """Return the command that lists the same jobs."""
        return " ".join(
            ["vigil list", *(f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in self.pairs)]
        )


def read_search(text: str, models: Collection[str]) -> SearchText:
    """Return what a text stands for that somebody typed or pasted, perhaps a whole address; `models`: known names."""
    if found := _JOB_ID.search(text):
        return SearchText(job_id=found[0])
    for name, pattern in (("response_id", _RESPONSE_ID), ("request_id", _REQUEST_ID)):
        if found := pattern.fullmatch(text):
            own = ids.job_id_of(text)
            if own != text and ids.is_job_id(own):
                return SearchText(job_id=own)
            return SearchText(filters=((name, text),), names_one=True)
    key, equals, _ = text.partition("=")
    if equals and key:
        return SearchText(filters=(("metadata", text),))
    if text in _STATUSES:
        return SearchText(filters=(("status", text),))
    if text in models:
        return SearchText(filters=(("model", text),))
    return SearchText(choices=_GUESSED)


def _place(pair: Pair) -> tuple[int, int]:
    name, value = pair
    return _ORDER[name], _STATUSES.get(value, len(_STATUSES)) if name == "status" else 0


def _time(value: str) -> str:
    """Return the time with what was left out: a date is its midnight, without an offset it is UTC."""
    if (found := _DATE.fullmatch(value)) is None:
        return value
    date, minutes, seconds = found.groups()
    return f"{date}T{minutes or '00:00'}{seconds or ':00'}Z"


def _time_of_age(value: str, now: datetime) -> str:
    if (found := _AGE.fullmatch(value)) is None:
        return value
    age = min(int(found[1]) * _UNITS[found[2]], timedelta(days=_MAX_AGE_DAYS))
    return iso_utc(now - age, "milliseconds")
