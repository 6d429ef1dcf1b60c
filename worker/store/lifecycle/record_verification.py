"""Compare the records in Redis with the signed audit trail, and name each difference (`vigil audit verify --records`).

Jobs are compared with their audit records; API keys, apps and webhook endpoints with the notes on them; pauses,
quarantines and legal holds with the notes of the acts that made them. It says what a MAC alone can't: that
a record was removed, or set back to an older value.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit import compare
from worker.audit.chain import app_chain, stream_id
from worker.audit.report import Report
from worker.clock import Clock, to_ms
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.store import keys
from worker.store.admission.pauses import PREFIX, load_pause
from worker.store.app_records import app_content, load_app
from worker.store.apps import key_content, read_key
from worker.store.audit.hold_names import APP, end_user_hold
from worker.store.audit.record_notes import Kind, RecordNote, RecordNotes, latest_notes, read_note
from worker.store.audit.trail import Trail
from worker.store.connection.pool import keyring_of
from worker.store.end_users.quarantine_rows import load_row
from worker.store.errors import store_errors
from worker.store.lifecycle.faults import FaultList, explain
from worker.store.lifecycle.job_verification import JobVerification
from worker.store.lifecycle.record_tags import names_of
from worker.store.webhooks.endpoints import Endpoints, endpoint_content

_NAMES: Final[dict[str, str]] = {"api_key": "API key", "app": "app", "webhook_endpoint": "webhook endpoint"}
_NOT_COMPARED: Final = (
    "there are no master keys (VIGIL_ENCRYPTION_KEYS), so API keys, apps and webhook endpoints have neither a MAC nor "
    "notes in the trail: they are not compared"
)


class RecordVerification:
    """One comparison of everything; verify the trail itself first."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._trail, self._notes = Trail(redis, clock), RecordNotes(redis, clock)
        self._endpoints = Endpoints(redis, clock)
        self._known: dict[tuple[str, str], RecordNote] = {}  # the newest note on each record
        self._acts: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}  # the newest act on a pause, an end user
        self._seen: set[tuple[str, str]] = set()
        self._read_again = False
        self._trimmed, self._unnoted = False, 0

    async def verify(self, report: Report) -> None:
        """Compare everything; add to the report what differs and how much was compared."""
        faults, begun = FaultList(report), self._clock.monotonic()
        self._trimmed = report.removed > 0
        report.compared = await JobVerification(self._redis, self._clock, report, faults).run()
        await self._read_app_chains(faults)
        if self._keyring.enabled:
            report.compared["api_keys"] = await self._api_keys(faults)
            report.compared["apps"] = await self._apps(faults)
            report.compared["webhook_endpoints"] = await self._webhook_endpoints(faults)
            await self._missing(faults)
            if self._unnoted:
                report.notes.append(f"{self._unnoted:,} records have no note in what retention has left of the trail")
        else:
            report.notes.append(_NOT_COMPARED)
        report.compared["pauses"] = await self._pauses(faults)
        report.compared["quarantines"] = await self._quarantines(faults)
        report.seconds += self._clock.monotonic() - begun
        faults.finish()

    # -- what the trail says

    async def _read_app_chains(self, faults: FaultList) -> None:
        """Read the notes and acts of every app's chain, and compare the legal holds of apps."""
        async for name in names_of(self._redis, keys.chain_records(app_chain(""))):
            chain = name.removeprefix(keys.chain_records(""))
            try:
                rows = await self._trail.of_chain(chain)
                async with store_errors("read the holds", keys.LEGAL_HOLDS):
                    held = {raw.decode(errors="replace") for raw in await self._redis.smembers(keys.LEGAL_HOLDS)}
            except RecordUnreadable as error:
                faults.add_text(f"{error.key} {explain(error)}")
                continue
            for row in rows:
                read_note(row, self._known)
            bodies = [(row.id, body) for row in rows for body in compare.bodies_of([row])]
            for place, body in bodies:
                self._note_act(place, body)
            for person, hold in compare.holds_of(body for _, body in bodies).items():
                held_as = chain if person is None else end_user_hold(chain.removeprefix(APP), person)
                if hold != (held_as in held):
                    faults.add_text(f"{held_as}: a legal hold on it was {'removed' if hold else 'never placed'}")

    def _note_act(self, place: str, body: dict[str, Any]) -> None:
        data = body.get("data")
        match body.get("type"), data:
            case (("pause" | "resume" as act), {"scope": str(scope)}):
                scope = scope if scope.startswith(PREFIX) else PREFIX + scope.removesuffix(":")
                key = ("pause", scope)
            case (
                ("quarantine.added" | "quarantine.lifted" | "quarantine.ended" as act),
                {"safety_identifier": str(person)},
            ):
                key = ("quarantine", person)
            case _:
                return
        earlier = self._acts.get(key)
        if earlier is None or stream_id(earlier[0]) < stream_id(place):
            self._acts[key] = (place, {**(data or {}), "act": act})

    # -- records with notes

    async def _api_keys(self, faults: FaultList) -> int:
        count = 0
        async with store_errors("list keys", keys.API_KEYS):
            listed = {raw.decode(errors="replace") for raw in await self._redis.hvals(keys.API_KEYS)}
        async for name, raw in self._strings(keys.api_key("")):
            digest, count = name.removeprefix(keys.api_key("")), count + 1
            try:
                key = read_key(self._keyring.macs, digest, raw)
            except RecordUnreadable as error:
                claimed = _claimed_id(raw)
                self._seen.add(("api_key", claimed))
                faults.add_text(f"API key {claimed or name} {explain(error)}: it is refused")
                continue
            if digest not in listed:
                faults.add_text(f"API key {key.id} of app {key.app} was removed from the list of keys")
            await self._noted("api_key", key.id, key.app, key_content(key), faults)
        return count

    async def _apps(self, faults: FaultList) -> int:
        count = 0
        async for name, raw in self._strings(keys.app("")):
            app, count = name.removeprefix(keys.app("")), count + 1
            try:
                record = load_app(self._keyring.macs, app, raw)
                await self._noted("app", app, app, app_content(self._keyring, record), faults)
            except RecordUnreadable as error:
                faults.add_text(f"app {app} {explain(error)}: its record is refused")
                self._seen.add(("app", app))
            except (ContentDamaged, KeyMissing) as error:
                faults.add_text(f"app {app}: {error}")
                self._seen.add(("app", app))
        return count

    async def _webhook_endpoints(self, faults: FaultList) -> int:
        count = 0
        async for key in names_of(self._redis, keys.endpoints("")):
            app = key.removeprefix(keys.endpoints(""))
            async with store_errors("list endpoints", key):
                names = [raw.decode(errors="replace") for raw in await self._redis.hkeys(key)]
            for name in names:
                count += 1
                try:
                    one = await self._endpoints.find(app, name)
                except (RecordUnreadable, KeyMissing) as error:
                    words = explain(error) if isinstance(error, RecordUnreadable) else f"can't be read: {error}"
                    faults.add_text(f"webhook endpoint {name} of app {app} {words}: nothing is sent to it")
                    self._seen.add(("webhook_endpoint", name))
                    continue
                if one is not None:
                    await self._noted("webhook_endpoint", name, app, endpoint_content(one), faults)
        return count

    async def _noted(self, kind: Kind, name: str, app: str, content: dict[str, Any], faults: FaultList) -> None:
        """Compare a record that Vigil wrote with the newest note on it."""
        self._seen.add((kind, name))
        what, digest = f"{_NAMES[kind]} {name} of app {app}", await self._notes.digest(kind, name, content)
        note = self._known.get((kind, name))
        if note is None or note.digest != digest:
            note = (await self._newer_notes()).get((kind, name))
        if note is None and self._trimmed:
            self._unnoted += 1  # its note may have been removed by retention
        elif note is None:
            faults.add_text(f"{what} is not in the trail: it is older than notes (`vigil store seal`), or was put back")
        elif not note.digest:
            faults.add_text(f"{what} was deleted, and put back", note.place)
        elif note.digest != digest:
            detail = f"{what} is not the one of the newest note on it: it was set back to an older one"
            faults.add_text(detail, note.place)

    async def _missing(self, faults: FaultList) -> None:
        """Name the records that are gone although no note says so."""
        for (kind, name), note in list(self._known.items()):
            if note.digest and (kind, name) not in self._seen:
                newer = (await self._newer_notes()).get((kind, name), note)
                if newer.digest:
                    faults.add_text(f"{_NAMES.get(kind, kind)} {name} of app {note.app} was removed", note.place)

    async def _newer_notes(self) -> dict[tuple[str, str], RecordNote]:
        """Read the notes once again: records may have been written and deleted in the meantime."""
        if not self._read_again:
            self._read_again = True
            self._known |= await latest_notes(self._redis, self._clock)
        return self._known

    # -- pauses and quarantines

    async def _pauses(self, faults: FaultList) -> int:
        now, found = to_ms(self._clock.now()), set[str]()
        async for name, raw in self._strings(keys.PAUSE):
            scope = name.removeprefix(keys.PAUSE)
            found.add(scope)
            try:
                pause = load_pause(self._keyring.macs, scope, raw)
            except (RecordUnreadable, ValueError, TypeError) as error:
                words = explain(error) if isinstance(error, RecordUnreadable) else "can't be read"
                faults.add_text(f"{scope} {words}: it stays in force until it is resumed")
                continue
            async with store_errors("list the pauses", keys.PAUSES):
                ends = await self._redis.zscore(keys.PAUSES, scope)
            if pause.until_ms > now and ends != pause.until_ms:
                faults.add_text(f"{scope} ends at another time than its record says, or is not in force")
        for (kind, scope), (place, act) in self._acts.items():
            if kind == "pause" and act["act"] == "pause" and scope not in found and not self._over(act, now):
                faults.add_text(f"{scope} was removed", place)
        return len(found)

    async def _quarantines(self, faults: FaultList) -> int:
        now = to_ms(self._clock.now())
        async with store_errors("list the quarantine", keys.QUARANTINE):
            rows = await self._redis.hgetall(keys.QUARANTINE)
        found = {name.decode(errors="replace"): raw for name, raw in rows.items()}
        ends: dict[str, int] = {}
        for person, raw in found.items():
            try:
                ends[person] = load_row(self._keyring.macs, person, raw).until_ms
            except RecordUnreadable as error:
                faults.add_text(f"quarantine of {person} {explain(error)}: it stays in force until it is lifted")
            except (ValueError, LookupError, TypeError):
                faults.add_text(f"quarantine of {person} can't be read: it stays in force until it is lifted")
        for (kind, person), (place, act) in self._acts.items():
            added = kind == "quarantine" and act["act"] == "quarantine.added"
            if added and "until" in act and person not in found and not self._over(act, now):
                faults.add_text(f"quarantine of {person} was removed", place)
            elif added and "until" in act and act["until"] is None and ends.get(person, 0):
                faults.add_text(f"quarantine of {person} ends, although it is to last until it is lifted", place)
        return len(found)

    def _over(self, act: dict[str, Any], now: int) -> bool:
        """Return True when what the act began has ended by itself."""
        until = act.get("until")
        try:
            return isinstance(until, str) and to_ms(datetime.fromisoformat(until)) <= now
        except ValueError:
            return False

    async def _strings(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        async for name in names_of(self._redis, prefix):
            try:
                async with store_errors("read records", name):
                    raw = await self._redis.get(name)
            except RecordUnreadable:
                continue  # of another type: the owner of the key sets it aside
            if raw is not None:
                yield name, raw


def _claimed_id(raw: bytes) -> str:
    """Return the id that a refused record claims, so that an operator can find it."""
    try:
        return str(json.loads(raw)["id"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
