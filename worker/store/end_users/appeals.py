"""Keep appeals as cases: sealed, found by app, end user, job and the provider's case, until long after they are closed.

Each step is written together with its audit record, which says who took it and never what was written.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import app_chain
from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused
from worker.safety.appeals import Appeal, AppealState, AppealStep, has_notice, open_appeal, take_step
from worker.store import keys
from worker.store.audit.hold_names import end_user_hold
from worker.store.audit.noted_changes import Guard, NotedChanges
from worker.store.codec import pack
from worker.store.commands import Command
from worker.store.connection.pool import keyring_of
from worker.store.end_users.ledger_entries import LEDGER_TTL_S
from worker.store.end_users.score_pages import cursor_of, members_after, position_of
from worker.store.errors import store_errors
from worker.store.values import read, report_unreadable, reporting_unreadable, valid_members

CLOSED_TTL_S: Final = LEDGER_TTL_S
"""Seconds that an appeal is kept after it was closed; an open one stays."""
NEWER_APPEAL: Final = "appeal_needs_newer_release"
"""The code of the refusal to read what only a newer release can."""
MAX_OPEN: Final = 50
"""Appeals of one end user, job or case that are listed with it."""
_MAX_TRIES: Final = 10
_PAUSE_S: Final = 0.05  # at most before the first repetition; more before each one after it
_MAX_READ: Final = 500  # that one page looks at
_CHUNK: Final = 100
_MAX_PER_SWEEP: Final = 100
_RECHECK_MS: Final = 3_600_000
_ID: Final = re.compile(r"appeal_[0-9a-z]{26}")
_UNREADABLE: Final = "This appeal can't be read here: its key is missing, or it was changed."
_NEWER: Final = "A newer release wrote this appeal, and only that can read it: try again, or finish the update."

Step = Callable[[Appeal], Appeal]


def appeal_name(app: str, appeal_id: str) -> str:
    """Return the name under which an appeal is sealed."""
    return f"appealcase:{app}:{appeal_id}"


class Appeals:
    """The appeals in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._changes = NotedChanges(redis, clock)

    async def open(self, app: str, person: str | None, step: AppealStep) -> Appeal:
        """Open an appeal; check first that the end user and the jobs are the app's. Raises Refused."""
        tail = self._clock.random_bytes(ids.RANDOM_BYTES)
        appeal = open_appeal(ids.new_id("appeal", to_ms(step.at), tail), app, person, step)
        if await self._write(appeal, None, step) is None:
            raise Refused("appeal_busy", "Another appeal was opened at the same moment; try again.", 409)
        return appeal

    async def take(self, app: str, appeal_id: str, step: AppealStep) -> Appeal | None:
        """Take a step; return the appeal after it, or None if the app has no such one. Raises Refused."""
        for number in range(_MAX_TRIES):
            if number:  # others change it: at other moments than they do
                await asyncio.sleep(self._clock.random_bytes(1)[0] / 255 * _PAUSE_S * number)
            raw = await self._raw(app, appeal_id)
            if raw is None:
                return None
            appeal = take_step(self._open(app, appeal_id, raw), step)
            if await self._write(appeal, raw, step) is not None:
                return appeal
        raise Refused("appeal_busy", "The appeal is changing right now; try again.", 409)

    async def link_notice(self, app: str, case: str, notice: str, jobs: Sequence[str], step: AppealStep) -> int:
        """Link a notice of the provider to the app's open appeals that name its case; return to how many.

        The jobs that it concerns are linked, too, as far as there is room.
        """
        count = 0
        for appeal in await self.of(app, "case", case):
            if appeal.state == "closed" or has_notice(appeal, notice):
                continue
            try:
                fresh = [job for job in jobs if job not in appeal.jobs]
                count += await self.take(app, appeal.id, step.evolve(notice=notice, jobs=tuple(fresh))) is not None
            except Refused:  # it is full, or was closed meanwhile
                continue
        return count

    async def find(self, app: str, appeal_id: str) -> Appeal | None:
        """Return an appeal of the app, or None. Raises Refused for one that can't be read."""
        raw = await self._raw(app, appeal_id)
        return None if raw is None else self._open(app, appeal_id, raw)

    async def of(self, app: str, kind: str, value: str) -> list[Appeal]:
        """Return the newest appeals of the app by `user`, `job` or `case`, newest first."""
        index = keys.appeal_index(app, kind, value)
        return await self._read(app, [name for _, name in await members_after(self._redis, index, None, MAX_OPEN)])

    async def page(
        self,
        app: str,
        index: tuple[str, str],
        fits: Callable[[Appeal], bool],
        limit: int,
        cursor: str | None,
    ) -> tuple[list[Appeal], str | None]:
        """Return (up to `limit` appeals that fit, newest first; the cursor of the next page or None).

        `index`: ("", "") for all of the app, or as in `of`. The search is bounded: a page may be short, or empty, and
        yet have a next one.
        """
        found, after = list[Appeal](), position_of(cursor)
        for _ in range(_MAX_READ // _CHUNK):
            rows = await members_after(self._redis, keys.appeal_index(app, *index), after, _CHUNK)
            read = {one.id: one for one in await self._read(app, [name for _, name in rows])}
            for position in rows:
                after, one = position, read.get(position[1])
                if one is not None and fits(one):
                    found.append(one)
                    if len(found) == limit:
                        return found, cursor_of(after)
            if len(rows) < _CHUNK:
                return found, None
        return found, None if after is None else cursor_of(after)

    async def sweep(self) -> int:
        """Remove appeals that were closed long ago; return how many. Those under a legal hold stay."""
        now, count = to_ms(self._clock.now()), 0
        due = list[str]()
        with reporting_unreadable():
            async with store_errors("look for old appeals", keys.APPEALS_OVER):
                rows = await self._redis.zrangebyscore(keys.APPEALS_OVER, "-inf", now, start=0, num=_MAX_PER_SWEEP)
            due = await valid_members(self._redis, keys.APPEALS_OVER, rows, lambda text: " " in text)
        for member in due:
            app, _, appeal_id = member.partition(" ")
            count += await self._remove(app, appeal_id, member, now)
        return count

    async def _remove(self, app: str, appeal_id: str, member: str, now: int) -> bool:
        newer = False
        try:
            appeal = await self.find(app, appeal_id)
        except Refused as error:
            appeal, newer = None, error.code == NEWER_APPEAL
        held = [app_chain(app), *(appeal.jobs if appeal is not None else ())]
        if appeal is not None and appeal.safety_identifier is not None:
            held.append(end_user_hold(app, appeal.safety_identifier))
        async with store_errors("read the holds", keys.LEGAL_HOLDS):
            stays = newer or any(await self._redis.smismember(keys.LEGAL_HOLDS, held))
        async with store_errors("remove an appeal", keys.APPEALS_OVER), self._redis.pipeline(transaction=True) as pipe:
            if stays:
                pipe.zadd(keys.APPEALS_OVER, {member: now + _RECHECK_MS})
            else:
                pipe.delete(keys.appeal(app, appeal_id))
                for index in [keys.appeal_index(app), *(_indexes(appeal) if appeal is not None else ())]:
                    pipe.zrem(index, appeal_id)
                pipe.zrem(keys.APPEALS_OVER, member)
            await pipe.execute()
        return not stays

    async def _write(self, appeal: Appeal, before: bytes | None, step: AppealStep) -> object:
        """Write the appeal after this step, with its audit record; return None if it has changed meanwhile."""
        name = keys.appeal(appeal.app, appeal.id)
        sealed = self._keyring.seal_named(appeal_name(appeal.app, appeal.id), appeal.model_dump(mode="json"))
        opened = to_ms(appeal.opened_at)
        commands: list[Command] = [("SET", name, sealed)]
        commands += [("ZADD", index, opened, appeal.id) for index in _indexes(appeal)]
        if appeal.closed_at is not None:
            over = to_ms(appeal.closed_at) + CLOSED_TTL_S * 1000
            commands.append(("ZADD", keys.APPEALS_OVER, over, f"{appeal.app} {appeal.id}"))
        data: dict[str, Any] = {"appeal": appeal.id, "state": appeal.state, "characters": len(step.text)}
        data |= {"safety_identifier": appeal.safety_identifier, "jobs": list(step.jobs)}
        data |= {"provider_case": step.provider_case, "outcome": step.outcome, "notice": step.notice}
        data |= {"by_person": step.by_person} if step.by_person else {}
        act, guard = f"appeal.{step.kind}", Guard("string", name, value=before)
        return await self._changes.write(
            act, commands, guard, app=appeal.app, by=step.by, why="", data=data, at=step.at
        )

    async def _raw(self, app: str, appeal_id: str) -> bytes | None:
        if _ID.fullmatch(appeal_id) is None:
            return None
        async with store_errors("read an appeal", keys.appeal(app, appeal_id)):
            raw: bytes | None = await self._redis.get(keys.appeal(app, appeal_id))
        return raw

    def _open(self, app: str, appeal_id: str, raw: bytes) -> Appeal:
        try:
            return self._load(app, appeal_id, raw)
        except (KeyMissing, ContentDamaged, RecordUnreadable) as error:
            why = error.why if isinstance(error, RecordUnreadable) else "wrong_shape"
            report_unreadable(RecordUnreadable(keys.appeal(app, appeal_id), why))
            if why == "newer":
                raise Refused(NEWER_APPEAL, _NEWER, 409) from None
            raise Refused("appeal_unreadable", _UNREADABLE, 409) from None

    def _load(self, app: str, appeal_id: str, raw: bytes) -> Appeal:
        """Decode an appeal. Raises KeyMissing, ContentDamaged, RecordUnreadable."""
        content = pack(self._keyring.unseal_named(appeal_name(app, appeal_id), raw))
        return read(keys.appeal(app, appeal_id), content, Appeal.model_validate_json)

    async def _read(self, app: str, names: Sequence[str]) -> list[Appeal]:
        """Return the appeals of these ids, in this order; leave out those that are gone or can't be read."""
        if not names:
            return []
        async with store_errors("read appeals"):
            rows = await self._redis.mget([keys.appeal(app, name) for name in names])
        found = list[Appeal]()
        for name, raw in zip(names, rows, strict=True):
            try:
                found += [] if raw is None else [self._load(app, name, raw)]
            except RecordUnreadable as error:
                report_unreadable(error)
            except (KeyMissing, ContentDamaged):
                report_unreadable(RecordUnreadable(keys.appeal(app, name), "wrong_shape"))
        return found


def _indexes(appeal: Appeal) -> list[str]:
    named = [("user", appeal.safety_identifier), *(("case", step.provider_case) for step in appeal.steps)]
    named += [("job", job) for job in appeal.jobs]
    return [keys.appeal_index(appeal.app), *(keys.appeal_index(appeal.app, kind, one) for kind, one in named if one)]


def is_in(states: Sequence[AppealState]) -> Callable[[Appeal], bool]:
    """Return whether an appeal is in one of these states; any, without one."""
    return lambda appeal: not states or appeal.state in states
