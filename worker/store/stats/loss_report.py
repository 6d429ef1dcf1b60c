"""Read what safety cost, from the counters that commits keep: by app, week, model and end user.

The work grows with the apps, weeks, models and end users that are asked for, never with the number of jobs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from arq.connections import ArqRedis

from worker.jobs.errors import Refused
from worker.safety.loss_counts import JOBS
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.jobs.loss_counters import split_field
from worker.store.values import pipeline_replies

Dimension = Literal["app", "week", "model", "end_user"]
DIMENSIONS: Final[tuple[Dimension, ...]] = ("app", "week", "model", "end_user")
MAX_RANKED: Final = 200
"""The end users of an app and a week that are candidates for a list: those with the highest rank of that week."""
_MAX_PLACES: Final = 2_000  # apps times weeks of a report
_MAX_RANKED_PLACES: Final = 30  # of one that lists end users
_HASHES_AT_ONCE: Final = 50
_COUNT: Final = re.compile(rb"-?[0-9]{1,18}")
_Place = tuple[str, str]  # week, app


@dataclass(frozen=True, slots=True)
class LossQuery:
    """What is asked: ISO weeks, oldest first; of one app or all (None); of one model, one end user ("" = none)."""

    weeks: Sequence[str]
    app: str | None
    group_by: Sequence[Dimension] = ("week", "model")
    model: str | None = None
    end_user: str | None = None
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LossGroup:
    """What a row is of; a dimension that is not asked for is None, and so is the end user of jobs without one."""

    app: str | None = None
    week: str | None = None
    model: str | None = None
    end_user: str | None = None


@dataclass(frozen=True, slots=True)
class LossPage:
    """One page: rows with their counts, the sums over everything and over all that no row of this page has."""

    rows: Sequence[tuple[LossGroup, Counter[str]]]
    totals: Counter[str]
    rest: Counter[str]
    more: bool


class LossReport:
    """The counters in Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis

    async def read(self, query: LossQuery) -> LossPage:
        """Return a page. Raises Refused (422) for more apps and weeks than one request may read."""
        places = await self._places(query)
        lists_end_users = "end_user" in query.group_by and query.end_user is None
        most = _MAX_RANKED_PLACES if lists_end_users else _MAX_PLACES
        if len(places) > most:
            detail = (
                f"That is {len(places):,} weeks of apps, and at most {most:,} are read: name an app, or fewer weeks."
            )
            raise Refused("report_too_large", detail, 422)
        if lists_end_users:
            return await self._end_users(query, places)
        rows = await self._rows(query, [(place, query.end_user) for place in places])
        shown = rows[query.offset : query.offset + query.limit]
        return _page(shown, _sum(counts for _, counts in rows), more=len(rows) > query.offset + query.limit)

    async def _end_users(self, query: LossQuery, places: Sequence[_Place]) -> LossPage:
        """Return a page of end users, those of the highest rank first, each with its rows."""
        totals = _sum(counts for _, counts in await self._rows(query, [(place, None) for place in places]))
        ranked = await self._ranked(places)
        page = ranked[query.offset : query.offset + query.limit]
        wanted = [(place, name) for app, name in page for place in places if place[1] == app]
        order = {(app if "app" in query.group_by else None, name or None): n for n, (app, name) in enumerate(page)}
        shown = sorted(await self._rows(query, wanted), key=lambda row: order.get((row[0].app, row[0].end_user), 0))
        return _page(shown, totals, more=len(ranked) > query.offset + query.limit)

    async def _places(self, query: LossQuery) -> list[_Place]:
        if query.app is not None:
            return [(week, query.app) for week in query.weeks]
        names = [keys.loss_apps(week) for week in query.weeks]
        async with store_errors("list the apps"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrange(name, 0, _MAX_PLACES)
            found = await pipeline_replies(pipe, names)
        return [
            (week, app.decode(errors="replace"))
            for week, apps in zip(query.weeks, found, strict=True)
            for app in apps or ()
        ]

    async def _rows(
        self, query: LossQuery, wanted: Iterable[tuple[_Place, str | None]]
    ) -> list[tuple[LossGroup, Counter[str]]]:
        """Return the sums of these places by group, in order; of all end users, or of one each."""
        rows: dict[LossGroup, Counter[str]] = {}
        async for (week, app), end_user, model, counts in self._hashes(wanted):
            if query.model in (None, model):
                known = {"app": app, "week": week, "model": model, "end_user": end_user or None}
                group = LossGroup(**{name: known[name] for name in query.group_by})
                rows.setdefault(group, Counter()).update(counts)
        found = [(group, counts) for group, counts in rows.items() if counts[JOBS]]
        return sorted(found, key=lambda row: (row[0].week or "", row[0].app or "", row[0].model or ""))

    async def _hashes(
        self, wanted: Iterable[tuple[_Place, str | None]]
    ) -> AsyncIterator[tuple[_Place, str | None, str, dict[str, int]]]:
        rows = list(wanted)
        for some in (rows[at : at + _HASHES_AT_ONCE] for at in range(0, len(rows), _HASHES_AT_ONCE)):
            names = [
                keys.losses(*place) if end_user is None else keys.end_user_losses(*place, end_user)
                for place, end_user in some
            ]
            async with store_errors("read the counts"), self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(name)
                found = await pipeline_replies(pipe, names)
            for (place, end_user), reply in zip(some, found, strict=True):
                for model, counts in counts_by_model(reply or {}).items():
                    yield place, end_user, model, counts

    async def _ranked(self, places: Sequence[_Place]) -> list[tuple[str, str]]:
        """Return (app, end user) of those that are among the first of a week, by their ranks in such weeks."""
        names = [keys.loss_end_users(*place) for place in places]
        async with store_errors("rank end users"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrevrange(name, 0, MAX_RANKED - 1, withscores=True)
            found = await pipeline_replies(pipe, names)
        ranks = Counter[tuple[str, str]]()
        for (_, app), members in zip(places, found, strict=True):
            for person, score in members or ():
                ranks[app, person.decode(errors="replace")] += int(score)
        return sorted(ranks, key=lambda one: (-ranks[one], one))


def merged_page(pages: Sequence[LossPage], query: LossQuery) -> LossPage:
    """Return the page that the query asks for, from what each partition has from the first row to the end of that page.

    Rows of the same group are added up. Of end users those of the highest rank in each partition come first, in turn.
    """
    rows: dict[LossGroup, Counter[str]] = {}
    turn: dict[tuple[str | None, str | None], tuple[int, int]] = {}
    by_end_user = "end_user" in query.group_by and query.end_user is None
    for number, page in enumerate(pages):
        places = dict.fromkeys((group.app, group.end_user) for group, _ in page.rows)
        turn |= {name: min((at, number), turn.get(name, (at, number))) for at, name in enumerate(places)}
        for group, counts in page.rows:
            rows.setdefault(group, Counter()).update(counts)
    found = sorted(rows.items(), key=lambda row: (row[0].week or "", row[0].app or "", row[0].model or ""))
    end, totals = query.offset + query.limit, _sum(page.totals for page in pages)
    if not by_end_user:
        more = len(found) > end or any(page.more for page in pages)
        return _page(found[query.offset : end], totals, more=more)
    people = sorted(turn, key=lambda name: turn[name])
    shown = {name: place for place, name in enumerate(people[query.offset : end])}
    found = [row for row in found if (row[0].app, row[0].end_user) in shown]
    found.sort(key=lambda row: shown[row[0].app, row[0].end_user])
    return _page(found, totals, more=len(people) > end or any(page.more for page in pages))


def is_count(raw: bytes) -> bool:
    """Return whether a stored value is a count; one of more digits than Vigil ever writes is none."""
    return _COUNT.fullmatch(raw) is not None


def counts_by_model(stored: Mapping[bytes, bytes]) -> dict[str, dict[str, int]]:
    """Return the counts of a hash by model and name; what is no count is left out."""
    found: dict[str, dict[str, int]] = {}
    for field, count in stored.items():
        model, name = split_field(field.decode(errors="replace"))
        if name and is_count(count):
            found.setdefault(model, {})[name] = int(count)
    return found


def _page(rows: Sequence[tuple[LossGroup, Counter[str]]], totals: Counter[str], *, more: bool) -> LossPage:
    return LossPage(rows, totals, totals - _sum(counts for _, counts in rows), more)


def _sum(rows: Iterable[Counter[str]]) -> Counter[str]:
    total = Counter[str]()
    for row in rows:
        total.update(row)
    return total
